"""Check that an ONNX model contains all of its tensors.

ONNX allows a tensor to be in another file, which no hash of the model covers and whose name may lead anywhere, and ONNX
Runtime has a name that stands for an address in memory. Models of this project never use that, so such a model is
rejected wherever it would be loaded: only hashed content is run.

Every message that can contain a tensor is visited: graphs inside of nodes, attributes, functions, sparse tensors and
training graphs. The field numbers are those of onnx.proto; a test compares them with the onnx package.
"""

from __future__ import annotations

from pathlib import Path

from yolact_plugins.text import printable
from yolact_runtime.errors import BundleError
from yolact_runtime.model.protobuf import fields

__all__ = ["MESSAGES", "require_own_tensors"]

_TENSOR = "TensorProto"
_NAME, _DATA_LOCATION = 8, 14
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
        name = _external_tensor(memoryview(content))
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX model ({error}); was its copy or download cut short?") from error
    if name is not None:
        raise BundleError(
            f'{path} keeps its tensor "{name}" in another file (external data), which is not loaded: no hash covers '
            f"it. Models of yolact-export hold all of their tensors; export the checkpoint again"
        )


def _external_tensor(model: memoryview) -> str | None:
    """Return the name of the first external tensor."""
    waiting = [("ModelProto", model)]
    while waiting:
        kind, message = waiting.pop()
        if kind == _TENSOR:
            name, is_external = _look_at(message)
            if is_external:
                return name
            continue
        inner = MESSAGES[kind]
        waiting += [
            (inner[number], value)
            for number, value in fields(message)
            if number in inner and isinstance(value, memoryview)
        ]
    return None


def _look_at(tensor: memoryview) -> tuple[str, bool]:
    name, is_external = "", False
    for number, value in fields(tensor):
        if number == _NAME and isinstance(value, memoryview):
            name = printable(bytes(value[:80]).decode("utf-8", "replace"))
        elif number == _DATA_LOCATION and isinstance(value, int):
            # Readers disagree about which of two values counts, and about numbers that are longer than an enum.
            is_external |= value != 0
    return name, is_external
