"""The ``metadata_props`` of an ONNX model, read without the onnx package.

Only top-level fields are visited, so that the size of the model does not matter. Field numbers: onnx.proto,
``ModelProto.metadata_props`` = 14, ``StringStringEntryProto`` key = 1, value = 2.
"""

from __future__ import annotations

import os
from pathlib import Path

from yolact_plugins.files import human_size
from yolact_runtime.errors import BundleError
from yolact_runtime.model.protobuf import messages

__all__ = ["metadata_of", "read_metadata", "read_onnx"]

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2
_MAX_BYTES = 1 << 31
"""Maximum size of a protobuf message in bytes."""


def read_onnx(path: Path) -> bytes:
    """Read an ONNX file, up to the maximum size, without interpreting it.

    Raises:
        BundleError: The file cannot be read, or is longer than any ONNX model.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > _MAX_BYTES:
                raise BundleError(f"{path} is longer than {human_size(_MAX_BYTES)}: it is not an ONNX model")
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata properties of a file; see :func:`metadata_of`.

    Raises:
        BundleError: The file cannot be read, or is not an ONNX model.
    """
    return metadata_of(read_onnx(path), path)


def metadata_of(content: bytes, path: Path) -> dict[str, str]:
    """Read the metadata properties of a model.

    Args:
        content: Content of the model.
        path: Path of the model, for messages.

    Raises:
        BundleError: The content is not an ONNX model.
    """
    try:
        return dict(_entry(value) for number, value in messages(memoryview(content)) if number == _METADATA_PROPS)
    except (ValueError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not an ONNX model ({error}); was its copy or download cut short?") from error


def _entry(content: memoryview) -> tuple[str, str]:
    texts = {_KEY: b"", _VALUE: b""}
    for number, value in messages(content):
        if number in texts:
            texts[number] = bytes(value)  # of a field that comes twice the last one counts
    return texts[_KEY].decode("utf-8"), texts[_VALUE].decode("utf-8")
