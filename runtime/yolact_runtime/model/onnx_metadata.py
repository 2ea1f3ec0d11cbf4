"""The ``metadata_props`` of an ONNX file, read without the onnx package.

An ONNX file is a protobuf message. Only its top-level fields are walked, and the graph is skipped with a seek, so that
the size of the model does not matter. Field numbers: onnx.proto, ``ModelProto.metadata_props`` = 14,
``StringStringEntryProto`` key = 1, value = 2.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from yolact_runtime.errors import BundleError

__all__ = ["read_metadata"]

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
# Protobuf wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_metadata(path: Path) -> dict[str, str]:
    """Key -> value of the model's metadata properties.

    Raises:
        BundleError: The file cannot be read, or is not an ONNX model.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            entries = [_entry(content) for content in _fields(file, size, _METADATA_PROPS)]
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not an ONNX model ({error}); was its copy or download cut short?") from error
    return dict(entries)


def _entry(content: bytes) -> tuple[str, str]:
    key, value = (
        b"".join(_fields(io.BytesIO(content), len(content), number)).decode("utf-8") for number in (_KEY, _VALUE)
    )
    return key, value


def _fields(file: BinaryIO, end: int, wanted: int) -> Iterator[bytes]:
    """Contents of the length-delimited fields numbered `wanted`; the others are skipped."""
    while file.tell() < end:
        number, kind = divmod(_varint(file), 8)
        if number == 0:
            raise ValueError("field number 0")
        if kind == _VARINT:
            _varint(file)
            continue
        lengths = {_FIXED64: 8, _FIXED32: 4}
        length = _varint(file) if kind == _BYTES else lengths.get(kind, -1)
        if length < 0 or file.tell() + length > end:
            raise ValueError(f"field {number} does not fit into the file")
        if number == wanted and kind == _BYTES:
            yield file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise ValueError("cut-off number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
