"""One try: a command line with a bad input, and the criterion for a right answer."""

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
    """Outcome of a try, from best to worst."""

    RIGHT = "right"
    """Exit status 0, and the result of a sound input."""
    SAID = "warned"
    """Exit status 0, and a warning says what was left out or assumed."""
    REFUSED = "refused"
    """Another exit status, and an error message; the results of other inputs were computed and written."""
    LOST = "others lost"
    """Refused, and the results of sound inputs are missing."""
    SILENT = "wrong in silence"
    """Exit status 0, no warning, and a result other than that of a sound input."""
    BROKEN = "broken"
    """A traceback, a crash, a timeout, or an exit status without an error message."""


@dataclasses.dataclass(frozen=True)
class Ending:
    """Signal that ends a command from outside.

    Attributes:
        signal: Signal to send.
        file: File that triggers the signal once it has `num_lines` lines.
        num_lines: Number of lines of `file` that triggers the signal.
    """

    signal: signal.Signals
    file: Path
    num_lines: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """Exit status and output of a command.

    Attributes:
        status: Exit status; negative for the signal that ended it, None if it had to be killed.
        stdout: Text printed to stdout.
        stderr: Text printed to stderr.
    """

    status: int | None
    stdout: str
    stderr: str

    @property
    def warns(self) -> bool:
        """Whether a warning was printed."""
        return any(line.startswith("warning: ") for line in self.stderr.splitlines())

    @property
    def explains(self) -> bool:
        """Whether a reason for the failure was printed: an ``error:`` line of the command or of argparse."""
        return any(line.startswith("error: ") or ": error: " in line for line in self.stderr.splitlines())


@dataclasses.dataclass(frozen=True)
class Case:
    """One try.

    Attributes:
        kind: Row of the table that the try counts in.
        name: Description of the bad input, for the list of failures.
        command: Name of the command, such as ``yolact-run``.
        words: Arguments of the command.
        is_right: Function that tells whether the answer of a command with exit status 0 is that of a sound input.
        keeps_others: Function that tells whether the results of the other inputs were written, whatever the status.
        ending: Signal that ends the command from outside, or None.
        largest_file_bytes: Largest file size, beyond which writing fails as on a full disk; None sets no limit.
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
    """Return the outcome of a try."""
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
    """Read the JSON document of a result file; return None if it is missing or truncated."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def num_instances(document: Any, names: Iterable[str]) -> dict[str, int] | None:
    """Return the number of instances by the file name of the input, from the output of ``yolact-run --json``.

    The result is None if the document is missing or lacks one of the names.
    """
    if document is None:
        return None
    found = {Path(entry["file"]).name: len(entry["instances"]) for entry in document["images"]}
    return {name: found[name] for name in names} if set(names) <= set(found) else None
