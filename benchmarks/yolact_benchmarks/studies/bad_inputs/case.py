"""One try: words of a command line, a bad input among them, and how to tell a right answer."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Case", "Ending", "Outcome", "judge", "num_instances", "read_results"]


class Outcome(Enum):
    """How a try ended, from best to worst."""

    RIGHT = "right"
    """Exit status 0, and the answer that a sound input gets."""
    SAID = "warned"
    """Exit status 0, and a warning says what was left out or assumed."""
    REFUSED = "refused"
    """Another status and a sentence that says why; inputs beside the bad one were done and written."""
    LOST = "others lost"
    """Refused, and the results of sound inputs are missing."""
    SILENT = "wrong in silence"
    """Exit status 0, no warning, and not the answer that a sound input gets."""
    BROKEN = "broken"
    """A traceback, a crash, no end within the time limit, or a status without a sentence."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """A command that is ended from outside.

    Attributes:
        signal: The signal that it gets.
        file: It is sent once this file has `num_lines` lines.
        num_lines: See above.
    """

    signal: signal.Signals
    file: Path
    num_lines: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command left behind.

    Attributes:
        status: Its exit status; negative for the signal that ended it, None where it had to be killed.
        stdout: What it printed.
        stderr: What it said.
    """

    status: int | None
    stdout: str
    stderr: str

    @property
    def warns(self) -> bool:
        """Whether it said a warning."""
        return any(line.startswith("warning: ") for line in self.stderr.splitlines())

    @property
    def explains(self) -> bool:
        """Whether it gave a reason for its end: an ``error:`` line, or argparse's."""
        return any(line.startswith("error: ") or ": error: " in line for line in self.stderr.splitlines())


@dataclasses.dataclass(frozen=True)
class Case:
    """One try.

    Attributes:
        kind: The row of the table that it counts in.
        name: What is bad about the input, for the list of those that went wrong.
        command: Such as ``yolact-run``.
        words: After the command's name.
        is_right: Whether the answer of a command that ended with status 0 is that of a sound input.
        keeps_others: Whether the sound inputs beside the bad one were done and written, whatever the status.
        ending: How it is ended from outside, or None.
        largest_file_bytes: Writing beyond it fails, as on a full disk; None: no limit.
    """

    kind: str
    name: str
    command: str
    words: tuple[str, ...]
    is_right: Callable[[Answer], bool]
    keeps_others: Callable[[Answer], bool] = lambda _: True
    ending: Ending | None = None
    largest_file_bytes: int | None = None


def judge(case: Case, answer: Answer) -> Outcome:
    """How a try ended."""
    if answer.status is None or answer.status < 0 or "Traceback (most recent call last)" in answer.stderr:
        return Outcome.BROKEN
    if answer.status != 0:
        if not answer.explains:
            return Outcome.BROKEN
        return Outcome.REFUSED if case.keeps_others(answer) else Outcome.LOST
    if answer.warns:
        return Outcome.SAID if case.keeps_others(answer) else Outcome.LOST
    return Outcome.RIGHT if case.is_right(answer) and case.keeps_others(answer) else Outcome.SILENT


def read_results(path: Path) -> Any:
    """The JSON document of a result file; None where there is none, or a torn one."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def num_instances(document: Any, names: Iterable[str]) -> dict[str, int] | None:
    """What ``yolact-run --json`` wrote: file name of an input -> instances found; None where one is missing."""
    if document is None:
        return None
    found = {Path(entry["file"]).name: len(entry["instances"]) for entry in document["images"]}
    return {name: found[name] for name in names} if set(names) <= set(found) else None
