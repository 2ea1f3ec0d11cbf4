"""State of a process that a command changes while it runs, and puts back for a program that called it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from yolact_plugins.plain_text import printable_lines

__all__ = ["escaped_stdout", "log_on_stderr"]


@contextmanager
def log_on_stderr(level: int = logging.WARNING) -> Iterator[None]:
    """Write log records to stderr inside the block; nothing changes in a program that has set up its own logging.

    Args:
        level: Least severe level that is written.
    """
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@contextmanager
def escaped_stdout() -> Iterator[None]:
    """Escape characters that the encoding of stdout lacks inside the block: file names are not always text in it."""
    stdout = sys.stdout
    if not isinstance(stdout, io.TextIOWrapper):
        yield
        return
    before = stdout.errors
    stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stdout.reconfigure(errors=before)


class _PrintableFormatter(logging.Formatter):
    """A formatter that escapes log lines, which may contain file names."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))
