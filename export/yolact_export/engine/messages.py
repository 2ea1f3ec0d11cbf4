"""Messages between the two processes of an engine build: a JSON header and bytes, over a pipe.

Each message consists of eight bytes with the header's length, eight with the payload's, the header, and the payload.
Nothing is pickled, so neither side can make the other run code; nothing is written to disk, so nothing is left there.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

__all__ = ["read_message", "write_message"]

_LENGTHS = struct.Struct(">QQ")


def write_message(stream: BinaryIO, header: dict[str, Any], payload: bytes = b"") -> None:
    """Write a message and flush it.

    Raises:
        BrokenPipeError: The reader has closed the pipe.
    """
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), len(payload)))
    stream.write(text)
    stream.write(payload)
    stream.flush()


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """Read the next message; return None at the end of the stream, even inside a message whose writer died."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    num_text, num_payload = _LENGTHS.unpack(lengths)
    text, payload = stream.read(num_text), stream.read(num_payload)
    if len(text) < num_text or len(payload) < num_payload:
        return None
    header: dict[str, Any] = json.loads(text)
    return header, payload
