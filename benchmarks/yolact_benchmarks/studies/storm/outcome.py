"""Outcomes of a try: three acceptable ones, and six failures."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum

from yolact_benchmarks.studies.bad_inputs.case import Answer

__all__ = ["FAILURES", "Finding", "Outcome", "judge_answer", "ok", "refused", "silent", "visible"]

_LONGEST = 200
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Pattern of control characters, except for tabs and line ends."""


class Outcome(Enum):
    """Outcome of a try."""

    OK = "ok"
    """The right answer."""
    REFUSED = "refused"
    """An error message states the reason."""
    VISIBLE = "visible"
    """Another answer, and the result's own metadata show that."""
    TRACEBACK = "traceback"
    """An unhandled error: a traceback, or an exit status without an error message."""
    HANG = "hang"
    """No end within the time limit."""
    CRASH = "crash"
    """Ended by a signal that the campaign did not send."""
    SILENT = "silently wrong"
    """Success, and not the right answer."""
    TORN = "torn"
    """A truncated file or folder under its own name, or the loss of an earlier one."""
    LEFTOVER = "leftover"
    """Hidden or temporary files that will never be removed; leaked threads, descriptors or memory."""


FAILURES = (Outcome.TRACEBACK, Outcome.HANG, Outcome.CRASH, Outcome.SILENT, Outcome.TORN, Outcome.LEFTOVER)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Outcome of a try, with a description.

    Attributes:
        outcome: Outcome of the try.
        what: Description of the change, and for a failure of what was found, in one line.
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
    """Return a finding for the right answer."""
    return Finding(Outcome.OK, what)


def refused(what: str, error: object = "") -> Finding:
    """Return a finding for an error that states its reason; an empty message is a failure."""
    if isinstance(error, BaseException) and not str(error).strip():
        return Finding(Outcome.TRACEBACK, f"{what}: {type(error).__name__} without a message")
    return Finding(Outcome.REFUSED, f"{what}: {error}")


def visible(what: str) -> Finding:
    """Return a finding for another answer that shows its origin."""
    return Finding(Outcome.VISIBLE, what)


def silent(what: str) -> Finding:
    """Return a finding for a wrong answer that looks like a right one."""
    return Finding(Outcome.SILENT, what)


def judge_answer(answer: Answer, what: str) -> Finding:
    """Judge how a command ended; ``OK`` means exit status 0, and the caller checks whether the results are right."""
    last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
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
