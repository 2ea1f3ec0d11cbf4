"""Text from outside, made fit for a terminal."""

from __future__ import annotations

__all__ = ["printable", "printable_lines"]

_CONTINUED = "  "


def printable(text: str) -> str:
    r"""The text with everything that is no character to look at escaped as Python does: ``\x1b``, ``\n``, ``\u202e``.

    Names of files and classes come from outside, and a terminal obeys what it is sent: it would clear the screen,
    change its title or turn the line round.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(text: str) -> str:
    r"""As :func:`printable`, line by line.

    Every further line begins with a space, so that a file name with a line end in it cannot pass for another message.
    """
    first, *others = text.split("\n")
    lines = [line if not line or line[0] == " " else _CONTINUED + line for line in map(printable, others)]
    return "\n".join([printable(first), *lines])
