"""Whether an ONNX model holds all of its tensors itself.

ONNX lets a tensor lie in another file, which no hash of the model covers and whose name may lead anywhere, and ONNX
Runtime has a name that stands for an address in memory. A model of this project never has one, so that such a model is
refused wherever it would be loaded: what was hashed is all that runs.

Every message that can hold a tensor is walked: graphs inside of nodes, attributes, functions, sparse tensors and
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
"""Message -> field number -> message, of all that lead to a tensor."""
# ONNX Runtime takes bytes with this mark for a model in its own format, whatever else they are.
_ORT_MARK = slice(4, 8)


def require_own_tensors(content: bytes, path: Path) -> None:
    """Refuse a model with a tensor outside of it.

    Args:
        content: The model.
        path: Where it came from, for messages.

    Raises:
        BundleError: It has one, or is not an ONNX model.
    """
    if content[_ORT_MARK] == b"ORTM":
        raise BundleError(f"{path} is in ONNX Runtime's own format; run the .onnx file that it was made of")
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
    """Name of the first tensor that lies elsewhere."""
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
