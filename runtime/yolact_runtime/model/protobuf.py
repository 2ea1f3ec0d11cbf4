"""The fields of a protobuf message, read and written without a schema and without the protobuf package.

Nothing is copied that is read: what a field holds is a view of the message. What readers of protobuf disagree about is
refused: groups, which protobuf itself gave up, field numbers beyond its limit, and numbers of more than 64 bits.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["BYTES", "VARINT", "encode_field", "encode_head", "fields", "messages", "varints"]

VARINT, BYTES = 0, 2
"""Wire types of numbers, and of everything that has a length."""
_FIXED = {1: 8, 5: 4}
"""Wire type -> its size in bytes."""
_MAX_NUMBER = (1 << 29) - 1


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and value of each field, in order: an int of a varint, a view of anything else.

    Fields of a fixed size are views, too; absent fields are not yielded.

    Raises:
        ValueError: The bytes are not a message, or are truncated.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if not 0 < number <= _MAX_NUMBER:
            raise ValueError(f"field number {number}")
        if kind == VARINT:
            value, place = _varint(message, place)
            yield number, kind, value
            continue
        if kind == BYTES:
            length, place = _varint(message, place)
        else:
            length = _FIXED.get(kind, -1)
        if length < 0 or place + length > end:
            raise ValueError(f"field {number} does not fit into the file")
        yield number, kind, message[place : place + length]
        place += length


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and content of the fields that have a length: messages, texts, bytes and packed numbers.

    Raises:
        ValueError: As for :func:`fields`.
    """
    for number, kind, value in fields(message):
        if kind == BYTES and isinstance(value, memoryview):
            yield number, value


def varints(packed: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed field, not negative: one below 0 comes as what it is modulo 2**64.

    Raises:
        ValueError: The last number is truncated.
    """
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def encode_field(number: int, kind: int, value: int | memoryview) -> bytes:
    """Return a field as it stands in a message; the value is of the form in which :func:`fields` yields it."""
    if isinstance(value, int):
        return _encode_number(number << 3 | kind) + _encode_number(value)
    head = encode_head(number, len(value)) if kind == BYTES else _encode_number(number << 3 | kind)
    return head + bytes(value)


def encode_head(number: int, size: int) -> bytes:
    """Return what stands before the content of a field that has a length, for content that is written elsewhere."""
    return _encode_number(number << 3 | BYTES) + _encode_number(size)


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return a number and the place after it."""
    # Nearly all keys and most lengths are a single byte.
    if place < len(message) and (first := message[place]) < 0x80:
        return first, place + 1
    value = shift = 0
    while place < len(message) and shift <= 63:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise ValueError("a number of more than 64 bits")
            return value, place
        shift += 7
    raise ValueError("cut-off number")


def _encode_number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
