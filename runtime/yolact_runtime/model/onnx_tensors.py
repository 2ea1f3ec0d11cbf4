"""Check that an ONNX model contains all of its tensors.

ONNX allows a tensor to be in another file, which no hash of the model covers and whose name may lead anywhere, and ONNX
Runtime has a name that stands for an address in memory. Models of this project never use that, so such a model is
rejected wherever it would be loaded: only hashed content is run.

Every message that can contain a tensor is visited: graphs inside of nodes, attributes, functions, sparse tensors and
training graphs. The field numbers are those of onnx.proto; a test compares them with the onnx package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from yolact_plugins.text import printable
from yolact_runtime.errors import BundleError
from yolact_runtime.model.protobuf import fields, messages

__all__ = ["MESSAGES", "require_own_tensors", "tensor_place", "walk"]

_TENSOR = "TensorProto"
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14
MESSAGES = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
}
"""Fields that lead to a tensor: message -> field number -> message."""
# ONNX Runtime takes bytes with this mark for a model in its own format, whatever else they are.
_ORT_MARK = slice(4, 8)


def require_own_tensors(content: bytes, path: Path) -> None:
    """Reject a model with a tensor outside of it.

    Args:
        content: Content of the model.
        path: Path of the model, for messages.

    Raises:
        BundleError: The model has an external tensor, or is not an ONNX model.
    """
    if content[_ORT_MARK] == b"ORTM":
        raise BundleError(f"{path} is in ONNX Runtime's own format; run the .onnx file that it was converted from")
    try:
        tensors = (tensor_place(message) for kind, message in walk(content) if kind == _TENSOR)
        name = next((printable(name) for name, is_external in tensors if is_external), None)
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX model ({error}); was its copy or download cut short?") from error
    if name is not None:
        raise BundleError(
            f'{path} keeps its tensor "{name}" in another file (external data), which is not loaded: no hash covers '
            f"it. Models of yolact-export hold all of their tensors; export the checkpoint again"
        )


def walk(model: bytes) -> Iterator[tuple[str, memoryview]]:
    """Yield every message of a model that leads to a tensor, with its type, in the order of the file.

    Raises:
        ValueError: It is not an ONNX model.
    """
    waiting = [("ModelProto", memoryview(model))]
    while waiting:
        kind, message = waiting.pop()
        yield kind, message
        if inner := MESSAGES.get(kind):
            # A stack of our own: graphs may be nested deeper than Python's.
            waiting += [(inner[number], value) for number, value in messages(message) if number in inner][::-1]


def tensor_place(tensor: memoryview) -> tuple[str, bool]:
    """Return a tensor's name, its first 80 bytes, and whether its data lies in another file.

    Raises:
        ValueError: The bytes are not a message.
    """
    name, is_external = "", False
    for number, _, value in fields(tensor):
        if number == _NAME and isinstance(value, memoryview):
            name = bytes(value[:80]).decode("utf-8", "replace")
        elif number == _DATA_LOCATION and isinstance(value, int):
            # Readers disagree about which of two values counts, and about numbers that are longer than an enum.
            is_external |= value != 0
        elif number == _EXTERNAL_DATA:
            is_external = True
    return name, is_external
