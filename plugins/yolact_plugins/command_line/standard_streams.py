"""The standard streams of a command: closed ones, and a stdout that cannot be written."""

from __future__ import annotations

import os
import sys

__all__ = ["StdoutError", "abandon_stdout", "finish_streams", "open_closed_streams", "write_stdout"]


class StdoutError(OSError):
    """An error of writing to stdout, for instance because it leads to a full disk."""

    def __str__(self) -> str:
        return f"cannot write stdout: {self.strerror}"


def open_closed_streams() -> None:
    """Open those of the three standard streams that were closed when the process was started (``>&-``).

    The next opened file would otherwise get their number, and their output: a C decoder's message about a damaged image
    would be written into a file of results. Writing to a closed stdout still fails.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Opened files get the lowest free number.
            os.open(os.devnull, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it is open as long as the process is
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def abandon_stdout() -> None:
    """Redirect stdout so that nothing more is written to it, not even by the interpreter at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_stdout(text: str = "") -> None:
    """Write a text and flush stdout, where a closed pipe or a full disk can still be handled.

    Raises:
        BrokenPipeError: The reader of stdout has closed it.
        StdoutError: The text, or what was written before, cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_stdout()
        raise StdoutError(error.errno, error.strerror) from error


def finish_streams() -> None:
    """Flush both streams and drop what cannot be written; the interpreter would try again and exit with status 120."""
    try:
        sys.stdout.flush()
    except OSError:
        # The end that was reported counts, and not that its reader is gone.
        abandon_stdout()
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
