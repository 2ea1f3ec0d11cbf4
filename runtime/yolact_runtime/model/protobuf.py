"""The fields of a protobuf message, without a schema and without the protobuf package.

Nothing is copied: the content of a field is a view of the message. Groups, which protobuf itself deprecated, are
rejected.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["fields", "varints"]

# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field, in order: an int for a varint, a view for anything else.

    Fields of a fixed size are views, too; absent fields are not yielded.

    Raises:
        ValueError: The bytes are not a message, or are truncated.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = divmod(key, 8)
        if number == 0:
            raise ValueError("field number 0")
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        else:
            length = _FIXED.get(kind, -1)
        if length < 0 or place + length > end:
            raise ValueError(f"field {number} does not fit into the file")
        yield number, message[place : place + length]
        place += length


def varints(packed: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed field; negative ones are yielded modulo 2**64.

    Raises:
        ValueError: The last number is truncated.
    """
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return a number, and the position behind it."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("cut-off number")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
