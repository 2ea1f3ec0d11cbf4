"""How a try ended: three honest ways, and six that are failures."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum

from yolact_benchmarks.studies.bad_inputs.case import Answer

__all__ = ["FAILURES", "Finding", "Outcome", "judge_answer", "ok", "refused", "silent", "visible"]

_LONGEST = 200
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""What a terminal acts on, but for tabs and ends of lines."""


class Outcome(Enum):
    """How a try ended."""

    OK = "ok"
    """The right answer."""
    REFUSED = "refused"
    """An error that says why."""
    VISIBLE = "visible"
    """Another answer, and what the result says of its origin shows that."""
    TRACEBACK = "traceback"
    """An error that nobody wrote: a traceback, or an exit status without a sentence."""
    HANG = "hang"
    """No end within the time limit."""
    CRASH = "crash"
    """Ended by a signal that the campaign did not send."""
    SILENT = "silently wrong"
    """Success, and not the right answer."""
    TORN = "torn"
    """Half of a file or folder under its own name, or the earlier one lost."""
    LEFTOVER = "leftover"
    """Hidden or temporary files that nobody will remove; threads, descriptors or memory that are not given back."""


FAILURES = (Outcome.TRACEBACK, Outcome.HANG, Outcome.CRASH, Outcome.SILENT, Outcome.TORN, Outcome.LEFTOVER)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What came of a try.

    Attributes:
        outcome: Its class.
        what: What was changed or done, and for a failure what was found, in a line.
    """

    outcome: Outcome
    what: str

    def __post_init__(self) -> None:
        line = " ".join(self.what.split())
        object.__setattr__(self, "what", line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…")

    @property
    def is_failure(self) -> bool:
        """Whether no try may end like this."""
        return self.outcome in FAILURES


def ok(what: str) -> Finding:
    """The right answer."""
    return Finding(Outcome.OK, what)


def refused(what: str, error: object = "") -> Finding:
    """An error that says why; one without words is a failure."""
    if isinstance(error, BaseException) and not str(error).strip():
        return Finding(Outcome.TRACEBACK, f"{what}: {type(error).__name__} without a sentence")
    return Finding(Outcome.REFUSED, f"{what}: {error}")


def visible(what: str) -> Finding:
    """Another answer that shows that it is one."""
    return Finding(Outcome.VISIBLE, what)


def silent(what: str) -> Finding:
    """A wrong answer that looks like a right one."""
    return Finding(Outcome.SILENT, what)


def judge_answer(answer: Answer, what: str) -> Finding:
    """How a command ended; ``OK`` means exit status 0, and whether its results are right is for the caller to see."""
    last = (answer.stderr.strip().splitlines() or ["nothing said"])[-1]
    if answer.status is None:
        return Finding(Outcome.HANG, f"{what}: no end within the time limit; last words: {last}")
    if answer.status < 0:
        return Finding(Outcome.CRASH, f"{what}: ended by signal {-answer.status}; last words: {last}")
    if "Traceback (most recent call last)" in answer.stderr:
        return Finding(Outcome.TRACEBACK, f"{what}: {last}")
    if raw := _CONTROLS.search(answer.stderr + answer.stdout):
        return silent(f"{what}: the character {raw[0]!a} reached the terminal")
    if answer.status == 0:
        return ok(what)
    if not answer.explains:
        return Finding(Outcome.TRACEBACK, f"{what}: status {answer.status} without an error: {last}")
    return Finding(Outcome.REFUSED, f"{what}: {last}")
