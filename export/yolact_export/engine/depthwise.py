"""Depthwise convolutions in INT8, rewritten for TensorRT-RTX as convolutions with groups of several channels.

TensorRT-RTX pads every group of an INT8 convolution to four channels (to eight on Turing): it stores the padding, and
for a depthwise convolution it reads and writes four times the activations. Here neighbouring channels share a group,
and the weights of the channels that an output does not use are 0. The result is the same number, because the additional
terms of each sum are 0. A channel that is NaN or infinite would spread to its group, but INT8 has neither. Only graphs
as this project writes them are rewritten: weights with a zero point of 0 and one scale, or one for each output, which
no other node reads. TensorRT and ONNX Runtime get the unchanged file.

Engines are built on machines without the onnx package, so protobuf messages are edited as bytes, and everything
unchanged is copied. Field numbers (onnx.proto): ``ModelProto.graph`` = 7; ``GraphProto.node`` = 1, ``.initializer`` =
5, ``.input`` = 11, ``.output`` = 12, ``.value_info`` = 13; ``ValueInfoProto.name`` = 1; ``NodeProto.input`` = 1,
``.output`` = 2, ``.name`` = 3, ``.op_type`` = 4, ``.attribute`` = 5; ``AttributeProto.name`` = 1, ``.i`` = 3, ``.g`` =
6, ``.graphs`` = 11, ``.type`` = 20; ``TensorProto.dims`` = 1, ``.data_type`` = 2, ``.name`` = 8, ``.raw_data`` = 9.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from yolact_export.errors import EngineBuildError
from yolact_runtime.model.protobuf import BYTES, VARINT, encode_field, fields, messages

__all__ = ["group_depthwise", "group_size"]

# Types in TensorProto and AttributeProto.
_INT8, _INT_ATTRIBUTE = 3, 2
_SIZE, _TURING_SIZE = 4, 8
_DROPPED = b"dropped"


@dataclass(frozen=True)
class _Node:
    """Node of the graph, with two of its attributes: the number of groups, and the axis of a scale."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    groups: int
    axis: int
    has_graph: bool


@dataclass(frozen=True)
class _Tensor:
    """Initialiser; `raw` is empty if it does not contain int8 as bytes."""

    dims: tuple[int, ...]
    raw: memoryview


@dataclass(frozen=True)
class _Change:
    """Convolution that gets groups of `size` channels, and the tensor with its weights."""

    node: _Node
    weight: str
    size: int


def group_size(capabilities: Sequence[str]) -> int:
    """Return the number of channels in a group for some GPUs; without names, for those from 8.0 on."""
    return _TURING_SIZE if "7.5" in capabilities else _SIZE


def group_depthwise(model: bytes, size: int = _SIZE) -> tuple[bytes, tuple[str, ...]]:
    """Rewrite the depthwise convolutions with quantised weights; all others stay unchanged.

    Groups are smaller if the number of channels is not divisible by `size`; a convolution with an odd number of
    channels stays unchanged.

    Args:
        model: Content of an ONNX file, including the weights.
        size: Number of channels in a group, a power of 2.

    Returns:
        The model, and the names of the convolutions that were rewritten.

    Raises:
        EngineBuildError: The bytes are not an ONNX model.
    """
    try:
        return _grouped(model, size)
    except ValueError as error:
        raise EngineBuildError(f"this is not an ONNX model ({error}); was the file truncated?") from error


def _grouped(model: bytes, size: int) -> tuple[bytes, tuple[str, ...]]:
    graph = next((value for number, value in messages(memoryview(model)) if number == 7), memoryview(b""))
    changes = _plan(graph, size)
    if not changes:
        return model, ()
    nodes = {change.node.outputs[0]: change for change in changes}
    weights = {change.weight: change for change in changes}
    # Entries that state the former sizes of these tensors.
    shapes = {name for change in changes for name in (change.node.inputs[1], change.weight)}

    def edit(number: int, value: memoryview) -> bytes | None:
        if number == 1 and (change := nodes.get(next(iter(_node(value).outputs), ""))):
            return _with_groups(value, change.node.groups // change.size)
        if number == 5 and (change := weights.get(_text(value, 8))):
            return _with_weights(value, change)
        return _DROPPED if number == 13 and _text(value, 1) in shapes else None

    rewritten = _edited(memoryview(model), lambda number, value: _edited(value, edit) if number == 7 else None)
    return rewritten, tuple(change.node.name for change in changes)


def _plan(graph: memoryview, size: int) -> list[_Change]:
    nodes = [_node(value) for number, value in messages(graph) if number == 1]
    if any(node.has_graph for node in nodes):
        # A nested graph may read tensors of the outer graph.
        return []
    tensors = {_text(value, 8): _tensor(value) for number, value in messages(graph) if number == 5}
    maker = {output: node for node in nodes for output in node.outputs}
    readers = Counter(name for node in nodes for name in node.inputs)
    # Other readers and producers, besides the nodes.
    readers.update(_text(value, 1) for number, value in messages(graph) if number in {11, 12})
    changes = []
    for node in nodes:
        rounding = maker.get("".join(node.inputs[1:2])) if node.operator == "Conv" and node.outputs else None
        if rounding is None or not _is_plain(rounding, tensors):
            continue
        weight, fitting = rounding.inputs[0], math.gcd(node.groups, size)
        # (outputs, 1, height, width), read by this convolution alone.
        outputs, *inner = tensors[weight].dims
        depthwise = inner[:1] == [1] and node.groups > 1 and outputs % node.groups == 0
        alone = readers[weight] == 1 and readers[node.inputs[1]] == 1
        if depthwise and alone and fitting > 1:
            changes.append(_Change(node, weight, fitting))
    return changes


def _is_plain(node: _Node, tensors: Mapping[str, _Tensor]) -> bool:
    """Return whether int8 weights are dequantised with a zero point of 0 and one scale, or one for each output."""
    if node.operator != "DequantizeLinear" or len(node.inputs) < 2 or not all(name in tensors for name in node.inputs):
        return False
    weight, scale, *zero = (tensors[name] for name in node.inputs)
    known = bool(weight.dims) and len(weight.raw) > 0 and all(len(each.raw) and not any(each.raw) for each in zero)
    return known and (math.prod(scale.dims) == 1 or node.axis == 0)


def _node(message: memoryview) -> _Node:
    strings: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""]}
    integers = {"group": 1, "axis": 1}
    has_graph = False
    for number, value in messages(message):
        if number in strings:
            strings[number].append(str(value, "utf-8"))
        elif number == 5:
            name = _text(value, 1)
            integers[name] = next(_numbers(value, 3), 1)
            has_graph = has_graph or any(inner in {6, 11} for inner, _ in messages(value))
    named = strings[3][-1], strings[4][-1], tuple(strings[1]), tuple(strings[2])
    return _Node(*named, integers["group"], integers["axis"], has_graph)


def _tensor(message: memoryview) -> _Tensor:
    dims, kind = tuple(_numbers(message, 1)), next(_numbers(message, 2), 0)
    raw = next((value for number, value in messages(message) if number == 9), memoryview(b""))
    return _Tensor(dims, raw if kind == _INT8 and len(raw) == math.prod(dims) else memoryview(b""))


def _numbers(message: memoryview, wanted: int) -> Iterator[int]:
    return (value for number, _, value in fields(message) if number == wanted and isinstance(value, int))


def _text(message: memoryview, wanted: int) -> str:
    return next((str(value, "utf-8") for number, value in messages(message) if number == wanted), "")


def _with_groups(node: memoryview, groups: int) -> bytes:
    def edit(number: int, value: memoryview) -> bytes | None:
        return group if number == 5 and _text(value, 1) == "group" else None

    group = (
        encode_field(1, BYTES, memoryview(b"group"))
        + encode_field(3, VARINT, groups)
        + encode_field(20, VARINT, _INT_ATTRIBUTE)
    )
    return _edited(node, edit)


def _with_weights(tensor: memoryview, change: _Change) -> bytes:
    """Widen ``(outputs, 1, h, w)`` to ``(outputs, size, h, w)``, with 0 for channels that an output does not use."""
    found = _tensor(tensor)
    outputs, _, *kernel = found.dims
    values = np.frombuffer(found.raw, np.int8).reshape(outputs, *kernel)
    wide = np.zeros((outputs, change.size, *kernel), np.int8)
    index = np.arange(outputs)
    channel = index // (outputs // change.node.groups)
    wide[index, channel % change.size] = values
    kept = b"".join(encode_field(n, kind, value) for n, kind, value in fields(tensor) if n not in {1, 9})
    dims = b"".join(encode_field(1, VARINT, side) for side in wide.shape)
    return dims + kept + encode_field(9, BYTES, memoryview(wide.tobytes()))


def _edited(message: memoryview, edit: Callable[[int, memoryview], bytes | None]) -> bytes:
    """Copy a message with edited fields.

    Args:
        message: Message to copy.
        edit: Function from a field's number and content to the new content, None to keep it, or :data:`_DROPPED`.
    """
    parts = []
    for number, kind, value in fields(message):
        new = edit(number, value) if kind == BYTES and isinstance(value, memoryview) else None
        if new is not _DROPPED:
            parts.append(encode_field(number, kind, value if new is None else memoryview(new)))
    return b"".join(parts)
