"""Nodes and weights of a small ONNX model, read without the onnx package.

It serves models that this project's own kernels run. Everything is copied, so large networks are not read this way. The
field numbers are those of onnx.proto; a test compares them with the onnx package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from yolact_plugins.text import printable
from yolact_runtime.errors import BundleError
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.protobuf import fields, varints

__all__ = ["FIELDS", "Graph", "Node", "quoted", "read_graph"]

FIELDS = {
    "ModelProto": {"graph": 7},
    "GraphProto": {"node": 1, "initializer": 5, "input": 11, "output": 12},
    "ValueInfoProto": {"name": 1},
    "NodeProto": {"input": 1, "output": 2, "op_type": 4, "attribute": 5, "domain": 7},
    "AttributeProto": {"name": 1, "i": 3, "ints": 8},
    "TensorProto": {"dims": 1, "data_type": 2, "float_data": 4, "name": 8, "raw_data": 9},
}
"""Field numbers of everything that is read: message -> field -> number."""
_FLOAT = 1
# Limit of every NumPy release; the product of many more dimensions would take minutes.
_MAX_DIMENSIONS = 32
# Number of characters: the operations of the only expected network need 101.
_LONGEST = 200
_Message = dict[str, list[int | memoryview]]


@dataclass(frozen=True)
class Node:
    """An operation of the model.

    Attributes:
        op_type: Operation type, preceded by its domain if it is not ONNX's own: ``com.microsoft.Gelu``.
        inputs: Names of input tensors; empty for omitted optional ones.
        outputs: Names of output tensors.
        numbers: Integers of each attribute, by name; attributes of other types have none.
    """

    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """The operations of a model.

    Attributes:
        nodes: Operations in the order of the file, which is a valid execution order.
        inputs: Names of the input tensors, without weights.
        outputs: Names of the output tensors.
        weights: Weights as float32 arrays, by name. Weights of other dtypes are omitted.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, npt.NDArray[np.float32]]


def quoted(text: str) -> str:
    """Make names of a model printable, and shorten them for a message."""
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def read_graph(file: ModelFile) -> Graph:
    """Read a whole model.

    Raises:
        BundleError: The file is not an ONNX model, or a weight's number of values contradicts its shape.
    """
    try:
        model = _read("ModelProto", memoryview(file.content))
        # A message in several parts is the concatenation of them.
        graph = _read("GraphProto", memoryview(b"".join(_view(part) for part in model["graph"])))
        weights = _weights(graph["initializer"])
        return Graph(
            tuple(_node(_view(value)) for value in graph["node"]),
            tuple(name for name in _names(graph["input"]) if name not in weights),
            tuple(_names(graph["output"])),
            {name: array for name, array in weights.items() if array is not None},
        )
    except (ValueError, TypeError, IndexError) as error:
        raise BundleError(
            f"{file.path} is not a whole ONNX model ({error}); was its copy or download cut short?"
        ) from error


def _read(kind: str, message: memoryview) -> _Message:
    names = {number: name for name, number in FIELDS[kind].items()}
    found: _Message = {name: [] for name in names.values()}
    for number, _, value in fields(message):
        if number in names:
            found[names[number]].append(value)
    return found


def _node(message: memoryview) -> Node:
    found = _read("NodeProto", message)
    domain, op_type = _text(found["domain"]), _text(found["op_type"])
    inputs, outputs = (tuple(_text([value]) for value in found[name]) for name in ("input", "output"))
    attributes = [_read("AttributeProto", _view(value)) for value in found["attribute"]]
    numbers = {_text(each["name"]): tuple(_integers(each["ints"] or each["i"][-1:])) for each in attributes}
    return Node(f"{domain}.{op_type}" if domain not in ("", "ai.onnx") else op_type, inputs, outputs, numbers)


def _weights(initializers: list[int | memoryview]) -> dict[str, npt.NDArray[np.float32] | None]:
    weights: dict[str, npt.NDArray[np.float32] | None] = {}
    for value in initializers:
        name, array = _weight(_view(value))
        if name in weights:
            raise ValueError(f'two weights are called "{quoted(name)}"')
        weights[name] = array
    return weights


def _weight(message: memoryview) -> tuple[str, npt.NDArray[np.float32] | None]:
    found = _read("TensorProto", message)
    name = _text(found["name"])
    if found["data_type"][-1:] != [_FLOAT]:
        return name, None
    # Numbers are raw bytes, packed, or single: each of them is a view of little-endian bytes.
    content = b"".join(_view(value) for value in found["raw_data"][-1:] or found["float_data"])
    shape = _integers(found["dims"])
    if len(shape) > _MAX_DIMENSIONS or not all(0 <= side < 1 << 31 for side in shape):
        raise ValueError(f'the weight "{quoted(name)}" has an invalid shape')
    if len(content) != 4 * math.prod(shape):
        raise ValueError(f'the weight "{quoted(name)}" has {len(content)} bytes for the shape {shape}')
    return name, np.frombuffer(content, "<f4").astype(np.float32).reshape(shape)


def _names(infos: list[int | memoryview]) -> list[str]:
    return [_text(_read("ValueInfoProto", _view(info))["name"]) for info in infos]


def _integers(values: list[int | memoryview]) -> list[int]:
    found = [number for value in values for number in ([value] if isinstance(value, int) else varints(value))]
    return [number - (1 << 64) if number >> 63 else number for number in found]


def _text(values: list[int | memoryview]) -> str:
    return bytes(_view(values[-1])).decode("utf-8") if values else ""


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number where a message should be")
    return value
