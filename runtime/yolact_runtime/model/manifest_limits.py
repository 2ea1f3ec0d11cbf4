"""How large what a manifest says may be: far above any model that is trained, far below what ends a process.

A manifest is data from elsewhere: its numbers become sizes of arrays, its texts lines of logs. The largest published
models have 700 x 700 pixels, 57 744 priors on 5 levels and a few thousand classes.
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
"""Of the network's input, and of its feature maps."""
MAX_PRIORS, MAX_LEVELS = 1 << 22, 64
"""Priors in all; levels, scales of a level, and aspect ratios."""
MAX_CLASSES, MAX_NAME, MAX_KEPT = 1 << 16, 1000, 1_000_000
"""Classes; characters of a name; boxes and instances that are kept."""
MAX_ENTRIES, MAX_TEXT = 1000, 10_000
"""Files of a bundle, and entries of ``provenance`` and ``build``; characters of one of these."""
TINY, HUGE = 1e-6, 1e6
"""Least and most of what is divided by, of scales, ratios and variances."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def plain(key: str) -> str:
    """Text of a document without quotes, short and in one line."""
    text = printable(key[:80])
    return text if text == key else f"{text[:77]}..."


def shown(value: object) -> str:
    """A value as a message can hold it: short, in one line."""
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
    """Refuse numbers out of bounds, and what is no number.

    Raises:
        ManifestError: One is.
    """
    for value in values:
        if not least <= value <= most:
            raise ManifestError(f"{where} must lie between {least:g} and {most:g}, found {shown(value)}")


def require_length(where: str, entries: Sized, most: int) -> None:
    """Refuse lists and objects with more entries than any model has.

    Raises:
        ManifestError: There are more than `most`.
    """
    if len(entries) > most:
        raise ManifestError(f"{where} has {len(entries)} entries, {most} at most")


def require_name(where: str, name: str, most: int = MAX_NAME) -> None:
    """Refuse what cannot be printed on a terminal or written into a log.

    Raises:
        ManifestError: It is longer than `most` characters, or has control characters.
    """
    if len(name) > most:
        raise ManifestError(f"{where} has {len(name)} characters, {most} at most")
    if (character := unprintable(name)) is not None:
        raise ManifestError(f"{where} is {json.dumps(name)[:60]}: {character} is no character of a name")


def require_texts(where: str, texts: Mapping[str, str]) -> None:
    """Refuse too many, too long or unprintable entries of an object that holds text.

    Raises:
        ManifestError: The message says which.
    """
    require_length(where, texts, MAX_ENTRIES)
    for key, text in texts.items():
        require_name(f"{where}: a key", key)
        require_name(f"{where}.{plain(key)}", text, MAX_TEXT)


def require_sha256(where: str, sha256: str) -> None:
    """Refuse what is no hash: it is printed, and compared with one.

    Raises:
        ManifestError: It is not 64 hexadecimal digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(f"{where} must be 64 hexadecimal digits in lower case, found {shown(sha256)}")
