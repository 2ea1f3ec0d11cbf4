"""Multiplications and additions of a network's convolutions, counted from its ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from yolact_runtime.model.model_file import ModelFile

__all__ = ["convolution_operations", "kernel_operations"]

_FOLLOWING = {"Relu", "Clip", "Add", "QuantizeLinear", "DequantizeLinear"}


def convolution_operations(model: ModelFile) -> dict[str, int]:
    """Count the operations of each convolution, by the name of its node; a multiply-add counts as two.

    Args:
        model: File of the network. Without the package onnx, the result is empty.
    """
    nodes, sizes = _read(model)
    return _count(nodes, sizes)


def kernel_operations(model: ModelFile) -> dict[str, int]:
    """Count the operations of each convolution, by every name that its kernel may have.

    ONNX Runtime names a kernel after its last node, such as the ReLU that follows a convolution, or after its output
    tensor.

    Args:
        model: File of the network. Without the package onnx, the result is empty.
    """
    nodes, sizes = _read(model)
    found = _count(nodes, sizes)
    producer = {name: node for node in nodes for name in node.output}
    for node in nodes:
        maker = producer.get(node.input[0]) if node.input else None
        if node.op_type in _FOLLOWING and maker is not None and maker.name in found:
            found[node.name] = found[maker.name]
    return found | {node.output[0]: found[node.name] for node in nodes if node.name in found}


def _read(model: ModelFile) -> tuple[list[Any], dict[str, tuple[int, ...]]]:
    """Return the nodes in order, and the shapes of the tensors by name."""
    try:
        import onnx
    except ImportError:
        return [], {}
    graph = onnx.load_model_from_string(model.content).graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.value_info, *graph.output):
        sizes.setdefault(info.name, tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim))
    return list(graph.node), sizes


def _count(nodes: Iterable[Any], sizes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    producer = {name: node for node in nodes for name in node.output}
    found = {}
    for node in nodes:
        if node.op_type != "Conv":
            continue
        # Weights of a quantised network come through a DequantizeLinear.
        weight = producer.get(node.input[1])
        filters = sizes.get(weight.input[0] if weight is not None else node.input[1], ())
        out = sizes.get(node.output[0], ())
        if filters and out:
            found[node.name] = 2 * math.prod(filters) * math.prod(out[2:])
    return found
