"""Text from outside, made fit for a terminal: what a file, a class or another library says cannot steer it.

Everything that the project's commands write for people passes here: their own lines by ``yolact_runtime.terminal``,
and whatever else Python writes to stderr (argparse, ``warnings``, logging, tracebacks) by :func:`guarded_stderr`.
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
"""Characters of a line, and of what stands between two spaces: longer ones are cut in the middle."""

_CONTINUED = "  "
_ELLIPSIS = "…"
_LONG_WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
# How lines of the commands begin, which nobody else may imitate.
_OURS = ("error:", "warning:")


def shortened(text: str, longest: int) -> str:
    """`text`, cut in the middle where it is longer: a name keeps how it begins and its suffix."""
    if len(text) <= longest:
        return text
    head = (longest - len(_ELLIPSIS)) // 2
    return text[:head] + _ELLIPSIS + text[len(text) - (longest - len(_ELLIPSIS) - head) :]


def printable_line(text: str) -> str:
    r"""As :func:`yolact_plugins.text.printable`, in at most ``LONGEST_LINE`` characters, line ends as ``\n``."""
    # Cut first, because each character may become ten, and a name from outside may have millions.
    escaped = printable(shortened(text, LONGEST_LINE))
    return _cut(_cut_words(escaped))


def printable_lines(text: str) -> str:
    r"""As :func:`printable_line`, line by line.

    Every further line begins with a space, so that a file name with a line end in it cannot pass for another message.
    """
    first, *others = text.split("\n")
    lines = [line if not line or line[0] == " " else _CONTINUED + line for line in map(printable_line, others)]
    # Two more characters may be too many.
    return "\n".join([printable_line(first), *map(_cut, lines)])


def _cut(line: str) -> str:
    # What is left and right of the cut may be one word now.
    return _cut_words(shortened(line, LONGEST_LINE))


def _cut_words(line: str) -> str:
    return _LONG_WORD.sub(lambda word: shortened(word[0], LONGEST_WORD), line)


class GuardedStream:
    """A text stream whose writers are strangers: what they write becomes :func:`printable_lines`.

    Everything else is the stream's own.

    Args:
        stream: Written to.

    Attributes:
        unguarded: The stream, for writers that have made their text fit themselves.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream
        self._at_start = True

    def write(self, text: str) -> int:
        """Write what is left of the text; returns how long it was, as the caller expects."""
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
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


@contextmanager
def guarded_stderr() -> Iterator[None]:
    """Guard ``sys.stderr`` in the block; and, for good, what the interpreter says of an error that nobody caught."""
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
    """As the interpreter does."""
    stream: Any = sys.stderr
    if stream is not None:
        GuardedStream(getattr(stream, "unguarded", stream)).write(
            "".join(traceback.format_exception(kind, error, trace))
        )
        stream.flush()
