"""Several lines of text from outside, made fit for a terminal."""

from __future__ import annotations

from yolact_plugins.text import printable

__all__ = ["printable_lines"]

_CONTINUED = "  "


def printable_lines(text: str) -> str:
    r"""As :func:`yolact_plugins.text.printable`, line by line.

    Every further line begins with a space, so that a file name with a line end in it cannot pass for another message.
    """
    first, *others = text.split("\n")
    lines = [line if not line or line[0] == " " else _CONTINUED + line for line in map(printable, others)]
    return "\n".join([printable(first), *lines])
