"""The standard streams of a command: closed ones, and a stdout that cannot be written."""

from __future__ import annotations

import os
import sys

__all__ = ["StdoutError", "abandon_stderr_if_full", "abandon_stdout", "open_closed_streams"]


class StdoutError(OSError):
    """Stdout cannot be written, for instance because it leads to a full disk."""

    def __str__(self) -> str:
        return f"cannot write stdout: {self.strerror}"


def open_closed_streams() -> None:
    """Open those of the three standard streams that whoever started the process has closed (``>&-``).

    The next file that is opened would have their number, and get what is meant for them: what a decoder in C says of a
    damaged image would be written into a file of results. Writing to a stdout that was closed still fails.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Opened files get the lowest number that is free.
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it is open as long as the process is
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def abandon_stdout() -> None:
    """Let nothing be written to stdout any more, not even by the interpreter when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def abandon_stderr_if_full() -> None:
    """Drop what cannot be written to stderr: the interpreter would try again when it ends, and make it status 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
