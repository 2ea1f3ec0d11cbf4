"""Upper limits for the content of a manifest: far above any trained model, far below what crashes a process.

A manifest is external data: its numbers become sizes of arrays, its texts lines of logs. The largest published models
have 700 x 700 pixels, 57 744 priors on 5 levels and a few thousand classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sized

from yolact_plugins.text import printable, unprintable
from yolact_runtime.errors import ManifestError

__all__ = [
    "HUGE",
    "MAX_CLASSES",
    "MAX_ENTRIES",
    "MAX_FRAME_PIXELS",
    "MAX_KEPT",
    "MAX_LEVELS",
    "MAX_NAME",
    "MAX_PIXELS",
    "MAX_PRIORS",
    "MAX_SIDE",
    "MAX_TEXT",
    "TINY",
    "plain",
    "require_length",
    "require_name",
    "require_sha256",
    "require_texts",
    "require_within",
    "shown",
]

MAX_SIDE, MAX_PIXELS = 16_384, 1 << 24
"""Limits of the network's input and of its feature maps."""
MAX_FRAME_PIXELS = 1 << 30
"""Limit of pixels in an image or a camera frame: OpenCV decodes no more, and a file that claims more is damaged."""
MAX_PRIORS, MAX_LEVELS = 1 << 22, 64
"""Limits of the total number of priors, and of levels, scales per level and aspect ratios."""
MAX_CLASSES, MAX_NAME, MAX_KEPT = 1 << 16, 1000, 1_000_000
"""Limits of the number of classes, of characters in a name, and of boxes and instances that are kept."""
MAX_ENTRIES, MAX_TEXT = 1000, 10_000
"""Limits of files in a bundle, of entries in ``provenance`` and ``build``, and of characters in one of these."""
TINY, HUGE = 1e-6, 1e6
"""Range of divisors, scales, ratios and variances."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def plain(key: str) -> str:
    """Shorten a document's text to one line without quotes."""
    text = printable(key[:80])
    return text if text == key else f"{text[:77]}..."


def shown(value: object) -> str:
    """Format a value for a message: short and in one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    try:
        text = repr(value)
    except ValueError:  # Python does not write out whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_within(where: str, values: Iterable[float], least: float, most: float) -> None:
    """Raise an error if a value is out of bounds or not a number.

    Raises:
        ManifestError: A value is out of bounds.
    """
    for value in values:
        if not least <= value <= most:
            raise ManifestError(f"{where} must lie between {least:g} and {most:g}, found {shown(value)}")


def require_length(where: str, entries: Sized, most: int) -> None:
    """Raise an error for a list or object with more entries than any model has.

    Raises:
        ManifestError: There are more than `most` entries.
    """
    if len(entries) > most:
        raise ManifestError(f"{where} has {len(entries)} entries, {most} at most")


def require_name(where: str, name: str, most: int = MAX_NAME) -> None:
    """Raise an error for a name that cannot be printed on a terminal or written to a log.

    Raises:
        ManifestError: The name is longer than `most` characters, or has control characters.
    """
    if len(name) > most:
        raise ManifestError(f"{where} has {len(name)} characters, {most} at most")
    if (character := unprintable(name)) is not None:
        raise ManifestError(f"{where} is {json.dumps(name)[:60]}: {character} is not allowed in a name")


def require_texts(where: str, texts: Mapping[str, str]) -> None:
    """Raise an error if an object of text has too many, too long or unprintable entries.

    Raises:
        ManifestError: An entry is invalid; the message says which.
    """
    require_length(where, texts, MAX_ENTRIES)
    for key, text in texts.items():
        require_name(f"{where}: a key", key)
        require_name(f"{where}.{plain(key)}", text, MAX_TEXT)


def require_sha256(where: str, sha256: str) -> None:
    """Raise an error if a text is not a hash, because it is printed and compared with one.

    Raises:
        ManifestError: The text is not 64 hexadecimal digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(f"{where} must be 64 hexadecimal digits in lower case, found {shown(sha256)}")
