"""Writing of ONNX models to disk, weight by weight.

``onnx.save`` serialises the whole model in memory first, which costs twice its size in addition to the model itself.
Protobuf fields can be written one after the other, so here only one weight is serialised at a time. The result is an
ordinary ONNX file. Field numbers: onnx.proto, ``ModelProto.graph`` = 7, ``GraphProto.initializer`` = 5.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from yolact_runtime.model.protobuf import encode_head

__all__ = ["write_model"]

_GRAPH, _INITIALIZER = 7, 5


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with its weights inside the file (no external data).

    Args:
        model: Model to write; not modified.
        path: Path of the file, which is overwritten.
    """
    graph = _without(model.graph, "initializer", onnx.GraphProto()).SerializeToString(deterministic=True)
    # Sizes come first in the format, and are known without serialising.
    heads = [encode_head(_INITIALIZER, weight.ByteSize()) for weight in model.graph.initializer]
    size = len(graph) + sum(
        len(head) + weight.ByteSize() for head, weight in zip(heads, model.graph.initializer, strict=True)
    )
    with path.open("wb") as file:
        file.write(_without(model, "graph", onnx.ModelProto()).SerializeToString(deterministic=True))
        file.write(encode_head(_GRAPH, size))
        file.write(graph)
        for head, weight in zip(heads, model.graph.initializer, strict=True):
            file.write(head)
            file.write(weight.SerializeToString(deterministic=True))


def _without(
    message: onnx.ModelProto | onnx.GraphProto, left_out: str, copy: onnx.ModelProto | onnx.GraphProto
) -> onnx.ModelProto | onnx.GraphProto:
    """Fill `copy` with every field of `message` except one, which may be large, and return it."""
    for field, value in message.ListFields():
        if field.name == left_out:
            continue
        if isinstance(value, str | bytes | int):
            setattr(copy, field.name, value)
        else:
            getattr(copy, field.name).extend(value)
    return copy
