"""Fields of an annotation file: numbers, ids, names and flags, converted or refused with a readable message.

Other programs write these files, so any field may be null, text, NaN, negative, huge, missing or a nested list. Every
reader here returns a value within stated bounds or raises :class:`FieldError`, and nothing else.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

__all__ = [
    "MAX_AREA_PX",
    "MAX_COORDINATE_PX",
    "MAX_SIDE_PX",
    "FieldError",
    "Id",
    "is_number",
    "listed",
    "read_file_name",
    "read_flag",
    "read_id",
    "read_name",
    "read_number",
    "read_side",
    "shown",
]

Id = int | str
"""Type of an id: a 64-bit integer, or text that is not a number."""

MAX_SIDE_PX = 1 << 20
"""Maximum side of an image in pixels; OpenCV does not decode larger ones."""
# Coordinates may lie outside their image, but not where float32 loses whole pixels; areas are products of two.
MAX_COORDINATE_PX, MAX_AREA_PX = 1e7, 1e14
_PLAIN = frozenset({float, int})
_MOST_DIGITS = 40
_LONGEST_NAME, _LONGEST_PATH = 500, 4000
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LISTED = 5


class FieldError(Exception):
    """A field is invalid; the message names the field, but not the record that contains it."""


def shown(value: Any) -> str:
    """Return a value as text for a message: always short, whatever its nesting or number of digits."""
    if isinstance(value, str):
        text = ascii(value[:_MOST_DIGITS])
        return f"{text}…" if len(value) > _MOST_DIGITS else text
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        # Python refuses to print integers with more than 4300 digits.
        return str(value) if value.bit_length() < 3 * _MOST_DIGITS else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, dict):
        return f"an object with {len(value)} keys" if value else "an empty object"
    if isinstance(value, list | tuple) and not value:
        return "an empty list"
    if isinstance(value, list | tuple):
        if len(value) <= _LISTED and not any(isinstance(item, list | tuple | dict) for item in value):
            return f"[{', '.join(map(shown, value))}]"
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def listed(names: list[str]) -> str:
    """Return the first few names as text, and how many more there are."""
    first = ", ".join(names[:_LISTED])
    return f"{first} and {len(names) - _LISTED} more" if len(names) > _LISTED else first


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a real number, finite or not; true and false are not numbers."""
    # The fast test first: files have millions of numbers.
    return type(value) in _PLAIN or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def read_number(record: Mapping[str, Any], field: str, low: float, high: float) -> float:
    """Read a number within a range.

    Raises:
        FieldError: The field is missing, not a number, or out of range.
    """
    value = record.get(field)
    # Python compares integers of any size with floats exactly, and NaN compares with nothing.
    if not is_number(value) or not low <= value <= high:
        raise _unlike(record, field, f"it must be a number from {low:g} to {high:g}")
    return float(value)


def read_side(record: Mapping[str, Any], field: str) -> int:
    """Read the width or height of an image in pixels.

    Raises:
        FieldError: The field is not a whole number from 1 to :data:`MAX_SIDE_PX`.
    """
    value = record.get(field)
    if not is_number(value) or not 1 <= value <= MAX_SIDE_PX or value != math.floor(value):
        raise _unlike(record, field, f"it must be a whole number of pixels from 1 to {MAX_SIDE_PX}")
    return int(value)


def read_id(record: Mapping[str, Any], field: str) -> Id:
    """Read an id.

    A whole number, a number with a fraction of zero and text of decimal digits are the same id: 12, 12.0 and "12".
    Other text is an id of its own: "img_7", and also "007", which is not 7.

    Raises:
        FieldError: The field is missing, empty, or not such a number or text.
    """
    value = record.get(field)
    if type(value) is int and -(1 << 63) <= value < 1 << 63:
        return value
    if isinstance(value, str) and value and len(value) <= _LONGEST_PATH:
        if _WHOLE.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63:
            return int(value)
        return value
    # Beyond this, floats have lost digits: two ids might have become equal.
    limit = 1 << 53 if isinstance(value, float) else 1 << 63
    if is_number(value) and -limit <= value < limit and value == math.floor(value):
        return int(value)
    raise _unlike(record, field, "an id must be a whole number of at most 64 bits, or text")


def read_flag(record: Mapping[str, Any], field: str) -> bool:
    """Read a flag: 0 or 1, as number, text or truth value; null or missing is 0.

    Raises:
        FieldError: The field is something else.
    """
    value = record.get(field)
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if value in ("0", "1") if isinstance(value, str) else is_number(value) and value in (0, 1):
        return bool(int(value))
    raise _unlike(record, field, "it must be 0, 1 or null")


def read_name(record: Mapping[str, Any], field: str) -> str:
    """Read a readable name: text, or a whole number, which is converted to text.

    Raises:
        FieldError: The field is missing, empty, too long, or contains control characters.
    """
    value = record.get(field)
    if type(value) is int and value.bit_length() < 64:
        return str(value)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_NAME or _CONTROL.search(value):
        raise _unlike(record, field, f"a name must be text of at most {_LONGEST_NAME} characters on one line")
    return value


def read_file_name(record: Mapping[str, Any], field: str) -> str:
    """Read the name of a file; whether it leads out of its folder is checked elsewhere.

    Raises:
        FieldError: The field is missing, empty, too long, or contains a zero character.
    """
    value = record.get(field)
    if not isinstance(value, str) or not value.strip() or len(value) > _LONGEST_PATH or "\0" in value:
        raise _unlike(record, field, "it must be the path of an image below the images' folder")
    return value


def _unlike(record: Mapping[str, Any], field: str, expected: str) -> FieldError:
    found = f"is {shown(record[field])}" if field in record else "is missing"
    return FieldError(f"{field} {found}; {expected}")
