"""Placement of quantisation: the tensors that are rounded, and the nodes that read the rounded value.

A plan has two dialects. ``tensorrt`` is for TensorRT and TensorRT-RTX, which fuse a convolution with its bias, ReLU and
residual sum and derive their rounding from what is read: inputs of convolutions, and the skip input of a sum. ``cpu``
is for ONNX Runtime, whose integer kernels need every input and output of an operator rounded.

Sources: the placement that NVIDIA's explicit quantisation and Model Optimizer describe; the fusions of ONNX Runtime.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from enum import Enum

import onnx

from yolact_calibration.quantisation.network_graph import NetworkGraph

__all__ = ["Dialect", "Placement", "place", "quantisable_tensors"]

# Operators that only move or select values: input and output share one scale, so that nothing is rounded twice.
_MOVES = frozenset({"MaxPool", "Resize"})
# Activations that ONNX Runtime folds into the rounding of the preceding convolution.
_ABSORBED = frozenset({"Relu", "Clip"})


class Dialect(str, Enum):
    """Runtime for which the rounding is written."""

    TENSORRT = "tensorrt"
    CPU = "cpu"


@dataclasses.dataclass(frozen=True)
class Placement:
    """Rounding in one network.

    Attributes:
        tensors: Rounded tensors, in the order of the graph, mapped to the tensor whose range they use, which is their
            own unless an operator only moves values.
        reads: Pairs ``(node, tensor)`` in which the node reads the rounded value. All other nodes read the original
            tensor.
        rounded_outputs: Names of the network's outputs that are rounded values.
    """

    tensors: Mapping[str, str]
    reads: frozenset[tuple[str, str]]
    rounded_outputs: frozenset[str] = frozenset()


def place(graph: NetworkGraph, int8: Collection[str], dialect: Dialect) -> Placement:
    """Decide which tensors a plan rounds.

    Args:
        graph: Graph of a float network.
        int8: Names of the convolutions to compute in INT8.
        dialect: Runtime for which the rounding is written.
    """
    chosen = frozenset(int8)
    return _place_tensorrt(graph, chosen) if dialect is Dialect.TENSORRT else _place_cpu(graph, chosen)


def quantisable_tensors(graph: NetworkGraph) -> tuple[str, ...]:
    """List every tensor whose range a plan may need, in either dialect: those that a calibration must observe."""
    everything = {convolution.name for convolution in graph.convolutions}
    needed = {name for dialect in Dialect for name in place(graph, everything, dialect).tensors.values()}
    # A plan with gaps also rounds tensors that a full plan fuses with the next operator.
    for node in graph.nodes:
        if node.op_type in {"Conv", "Add", *_MOVES}:
            needed |= {node.output[0], *(name for name in node.input[:2] if name and not graph.is_constant(name))}
    order = [graph.model.graph.input[0].name, *(name for node in graph.nodes for name in node.output)]
    return tuple(name for name in order if name in needed)


def _place_tensorrt(graph: NetworkGraph, int8: frozenset[str]) -> Placement:
    reads: set[tuple[str, str]] = set()
    for node in graph.nodes:
        if node.name in int8:
            reads.add((node.name, node.input[0]))
        elif node.op_type == "Add" and (skip := _skip_input(graph, node, int8)):
            # Rounding the sum's other input would separate the convolution from the sum, and prevent their fusion.
            reads.add((node.name, skip))
    source: dict[str, str] = {}
    for node in reversed(graph.nodes):
        if node.op_type == "Resize" and _is_read_rounded(graph, node.output[0], reads):
            reads.add((node.name, node.input[0]))
            source[node.output[0]] = node.input[0]
    return _finish(graph, reads, source, frozenset())


def _skip_input(graph: NetworkGraph, node: onnx.NodeProto, int8: frozenset[str]) -> str | None:
    """Return the input of a sum that does not come from its own INT8 convolution; None if neither input does."""
    makers = [graph.producer.get(name) for name in node.input]
    for index, maker in enumerate(makers):
        if maker is not None and maker.name in int8 and maker.op_type == "Conv":
            return str(node.input[1 - index])
    return None


def _is_read_rounded(graph: NetworkGraph, tensor: str, reads: set[tuple[str, str]]) -> bool:
    """Return whether a node reads the rounded value of the tensor, or of its ReLU."""
    for reader in graph.consumers.get(tensor, ()):
        if (reader.name, tensor) in reads:
            return True
        if reader.op_type == "Relu" and _is_read_rounded(graph, reader.output[0], reads):
            return True
    return False


def _place_cpu(graph: NetworkGraph, int8: frozenset[str]) -> Placement:
    reads: set[tuple[str, str]] = set()
    source: dict[str, str] = {}
    # Tensors whose producer is an integer kernel, so that their unrounded values do not exist.
    rounded: set[str] = set()
    for node in graph.nodes:
        data = [name for name in node.input[:2] if name and not graph.is_constant(name)]
        if node.name in int8:
            reads.add((node.name, node.input[0]))
        elif node.op_type in {"Add", "LeakyRelu", *_MOVES} and rounded.issuperset(data):
            reads.update((node.name, name) for name in data)
        else:
            continue
        output = _after_activation(graph, node)
        rounded.add(output)
        if node.op_type in _MOVES:
            source[output] = data[0]
    reads |= {(reader.name, name) for name in rounded for reader in graph.consumers.get(name, ())}
    return _finish(graph, reads, source, frozenset(rounded))


def _after_activation(graph: NetworkGraph, node: onnx.NodeProto) -> str:
    output: str = node.output[0]
    reader = graph.only_consumer(output)
    if node.op_type in {"Conv", "Add"} and reader is not None and reader.op_type in _ABSORBED:
        return str(reader.output[0])
    return output


def _finish(
    graph: NetworkGraph, reads: set[tuple[str, str]], source: Mapping[str, str], rounded: frozenset[str]
) -> Placement:
    names = {name for _, name in reads} | rounded
    order = [graph.model.graph.input[0].name, *(name for node in graph.nodes for name in node.output)]
    tensors: dict[str, str] = {}
    for name in order:
        if name in names:
            # Producers come first in the order, so chains of moves resolve to their beginning.
            origin = source.get(name, name)
            tensors[name] = tensors.get(origin, origin)
    return Placement(tensors, frozenset(reads), rounded & graph.outputs)
