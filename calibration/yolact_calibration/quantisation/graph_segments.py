"""Division of a network into consecutive segments, so that only one at a time has its activations in memory."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from yolact_calibration.errors import CalibrationError

if TYPE_CHECKING:
    import onnx

__all__ = ["Segment", "TensorType", "check_tensors", "cut_graph", "place_tensors", "segment_model"]

# Assumed size of a tensor whose shape is unknown.
_UNKNOWN_BYTES = 4_000_000


@dataclass(frozen=True)
class TensorType:
    """Type and shape of an array.

    Attributes:
        dtype: NumPy's name of the dtype.
        shape: Lengths of all dimensions.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """Group of nodes that run together.

    Attributes:
        nodes: Indices into the graph's nodes, in order.
        inputs: Names of the activations that it reads.
        outputs: Names of the activations that are wanted, or that a later segment reads.
    """

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def check_tensors(graph: onnx.GraphProto, tensors: Sequence[str]) -> None:
    """Refuse names that are not activations of the graph.

    Raises:
        CalibrationError: A name is unknown, or belongs to a weight; the message lists similar names.
    """
    weights = {tensor.name for tensor in graph.initializer}
    known = {info.name for info in graph.input} - weights
    known.update(name for node in graph.node for name in node.output if name)
    for name in tensors:
        if name in weights:
            raise CalibrationError(f'"{name}" is a weight of the network; its range follows from its values')
        if name not in known:
            near = difflib.get_close_matches(name, known, 3) or sorted(known)[:3]
            raise CalibrationError(f'the network has no tensor "{name}"; similar names are {", ".join(near)}')


def cut_graph(graph: onnx.GraphProto, wanted: Collection[str], bytes_at_once: int) -> list[Segment]:
    """Cut a graph where the wanted tensors of a segment reach a size; nodes that no wanted tensor needs are left out.

    Args:
        graph: Graph in topological order, as ONNX requires.
        wanted: Names of the tensors to become outputs of segments.
        bytes_at_once: Size in bytes; a segment ends at the first wanted tensor with which its outputs reach it.
    """
    parts: list[list[int]] = [[]]
    sizes = _sizes(graph)
    room = bytes_at_once
    for index in _needed(graph, wanted):
        if room <= 0:
            parts.append([])
            room = bytes_at_once
        parts[-1].append(index)
        # Only after wanted tensors: a cut between a convolution and its ReLU would prevent their fusion.
        room -= sum(sizes.get(name, _UNKNOWN_BYTES) for name in graph.node[index].output if name in wanted)
    return _connect(graph, [part for part in parts if part], wanted)


def segment_model(model: onnx.ModelProto, segment: Segment, inputs: Mapping[str, TensorType]) -> onnx.ModelProto:
    """Create the model of one segment, with the weights that it needs.

    Args:
        model: Model that was cut.
        segment: Segment of its graph.
        inputs: Types and shapes of the segment's inputs, by name.
    """
    import onnx

    nodes = [model.graph.node[index] for index in segment.nodes]
    read = {name for node in nodes for name in node.input}
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    part.graph.name = model.graph.name or "segment"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    for name in segment.inputs:
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(inputs[name].dtype))
        part.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, inputs[name].shape))
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in segment.outputs)
    return part


def place_tensors(sizes: Mapping[str, int], segments: Sequence[Segment]) -> tuple[dict[str, int], int]:
    """Place the outputs of segments in one block of memory.

    A tensor keeps its place from its own segment to the last one that reads it; other tensors use the place before and
    after.

    Args:
        sizes: Size of every output by name, in any unit.
        segments: Segments in the order in which they run.

    Returns:
        The offset of each tensor, and the size of the block.
    """
    lives = {}
    for place, segment in enumerate(segments):
        lives.update({name: [place, place] for name in segment.outputs})
        for name in lives.keys() & set(segment.inputs):
            lives[name][1] = place
    offsets: dict[str, int] = {}
    # Largest first: small ones fit into the gaps.
    for name in sorted(lives, key=lambda name: (-sizes[name], name)):
        first, last = lives[name]
        beside = [other for other in offsets if lives[other][0] <= last and lives[other][1] >= first]
        offset = 0
        for other in sorted(beside, key=lambda other: offsets[other]):
            if offset + sizes[name] <= offsets[other]:
                break
            offset = max(offset, offsets[other] + sizes[other])
        offsets[name] = offset
    return offsets, max((offset + sizes[name] for name, offset in offsets.items()), default=0)


def _needed(graph: onnx.GraphProto, wanted: Collection[str]) -> list[int]:
    """Return the indices of the nodes that a wanted tensor depends on, in order."""
    names = set(wanted)
    needed = []
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if not names.isdisjoint(node.output):
            names.update(node.input)
            needed.append(index)
    return needed[::-1]


def _connect(graph: onnx.GraphProto, parts: Sequence[Sequence[int]], wanted: Collection[str]) -> list[Segment]:
    weights = {tensor.name for tensor in graph.initializer}
    made = [_names(name for index in part for name in graph.node[index].output) for part in parts]
    inputs = [
        _names(name for index in part for name in graph.node[index].input if name not in weights and name not in own)
        for part, own in zip(parts, made, strict=True)
    ]
    last = {name: place for place, names in enumerate(inputs) for name in names}
    segments = []
    for place, (part, own, read) in enumerate(zip(parts, made, inputs, strict=True)):
        outputs = tuple(name for name in own if name in wanted or last.get(name, -1) > place)
        segments.append(Segment(tuple(part), tuple(read), outputs))
    return segments


def _names(names: Iterable[str]) -> dict[str, None]:
    """Return the names that are not empty, without duplicates, in order."""
    return dict.fromkeys(name for name in names if name)


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the bytes of the float32 tensors whose shape the graph states; an unknown batch counts as 1."""
    sizes = {}
    for info in (*graph.value_info, *graph.output):
        shape = info.type.tensor_type.shape.dim
        if shape and all(dim.dim_value > 0 for dim in shape[1:]):
            sizes[info.name] = 4 * max(1, shape[0].dim_value) * math.prod(dim.dim_value for dim in shape[1:])
    return sizes
