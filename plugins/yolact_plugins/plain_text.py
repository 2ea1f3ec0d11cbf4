"""Escaping of external text for terminals: file names, class names and messages of libraries cannot control them.

Everything that the commands print passes through here: their own lines in ``yolact_runtime.terminal``, and everything
else that Python writes to stderr (argparse, ``warnings``, logging, tracebacks) in :func:`guarded_stderr`.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from yolact_plugins.text import printable

__all__ = [
    "LONGEST_LINE",
    "LONGEST_WORD",
    "GuardedStream",
    "guarded_stderr",
    "printable_line",
    "printable_lines",
    "shortened",
]

LONGEST_LINE, LONGEST_WORD = 4000, 400
"""Maximum number of characters of a line, and of a word between two spaces; longer ones are cut in the middle."""

_CONTINUED = "  "
_ELLIPSIS = "…"
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
# Prefixes of the commands' own lines, which no other text may imitate.
_OURS = ("error:", "warning:")


def shortened(text: str, longest: int) -> str:
    """Cut the middle of a `text` of more than `longest` characters; a name keeps its beginning and suffix."""
    if len(text) <= longest:
        return text
    head = (longest - len(_ELLIPSIS)) // 2
    return text[:head] + _ELLIPSIS + text[len(text) - (longest - len(_ELLIPSIS) - head) :]


def printable_line(text: str) -> str:
    r"""Escape a text with :func:`yolact_plugins.text.printable` and limit it to ``LONGEST_LINE`` characters.

    Line ends become ``\n``.
    """
    # Cut first: each character may become ten, and an external name may have millions.
    escaped = printable(shortened(text, LONGEST_LINE))
    return _cut(_cut_words(escaped))


def printable_lines(text: str) -> str:
    r"""Escape a text with :func:`printable_line`, line by line.

    Every further line begins with a space, so that a file name with a line end in it cannot pass for another message.
    """
    first, *others = text.split("\n")
    lines = [line if not line or line[0] == " " else _CONTINUED + line for line in map(printable_line, others)]
    # Two more characters may exceed the limit.
    return "\n".join([printable_line(first), *map(_cut, lines)])


def _cut(line: str) -> str:
    # The words left and right of the cut may have become one word.
    return _cut_words(shortened(line, LONGEST_LINE))


def _cut_words(line: str) -> str:
    return _LONG_WORD.sub(lambda word: shortened(word[0], LONGEST_WORD), line)


class GuardedStream:
    """A text stream that escapes everything written to it with :func:`printable_lines`.

    All other attributes are those of the wrapped stream.

    Args:
        stream: The stream to wrap.

    Attributes:
        unguarded: The wrapped stream, for callers that have escaped their text themselves.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream
        self._at_start = True

    def write(self, text: str) -> int:
        """Write the escaped text; return the length of the original, as the caller expects."""
        if not text:
            return 0
        ended = text.endswith("\n")
        shown = printable_lines(text[:-1] if ended else text)
        if self._at_start and shown.lstrip().startswith(_OURS):
            shown = _CONTINUED + shown
        self._at_start = ended
        self.unguarded.write(shown + "\n" * ended)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


@contextmanager
def guarded_stderr() -> Iterator[None]:
    """Guard ``sys.stderr`` in the block and, permanently, the interpreter's report of an uncaught error."""
    before = sys.stderr
    if before is None or isinstance(before, GuardedStream):
        yield
        return
    guard: Any = GuardedStream(before)
    sys.stderr = guard
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell
    try:
        yield
    finally:
        if sys.stderr is guard:
            sys.stderr = before


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback as the interpreter does."""
    stream: Any = sys.stderr
    if stream is not None:
        GuardedStream(getattr(stream, "unguarded", stream)).write(
            "".join(traceback.format_exception(kind, error, trace))
        )
        stream.flush()
