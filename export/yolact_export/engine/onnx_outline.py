"""What an engine build must know of an ONNX model before TensorRT sees it, read without the onnx package.

Protobuf messages are walked field by field; weights are stepped over. Field numbers (onnx.proto): ``ModelProto.graph``
= 7, ``.metadata_props`` = 14, ``.functions`` = 25; ``GraphProto.node`` = 1, ``.initializer`` = 5,
``.sparse_initializer`` = 15; ``NodeProto.name`` = 3, ``.op_type`` = 4, ``.attribute`` = 5; ``AttributeProto.t`` = 5,
``.g`` = 6, ``.tensors`` = 10, ``.graphs`` = 11, ``.sparse_tensor`` = 22, ``.sparse_tensors`` = 23;
``TensorProto.name`` = 8, ``.external_data`` = 13, ``.data_location`` = 14; ``FunctionProto.node`` = 7;
``SparseTensorProto.values`` = 1, ``.indices`` = 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from yolact_export.errors import EngineBuildError

__all__ = ["BYTES", "VARINT", "OnnxNode", "OnnxOutline", "fields", "messages", "read_outline"]

VARINT, BYTES = 0, 2
"""Wire types of numbers and of everything that has a length."""
_FIXED64, _FIXED32 = 1, 5
_EXTERNAL = 1
Field = tuple[int, int, int | memoryview]


@dataclass(frozen=True)
class OnnxNode:
    """A node's name and operator."""

    name: str
    operator: str


@dataclass(frozen=True)
class OnnxOutline:
    """A model without its weights.

    Attributes:
        nodes: Of the graph and all graphs inside it.
        external: Names of the tensors whose data lies in other files.
    """

    nodes: tuple[OnnxNode, ...]
    external: tuple[str, ...]

    def named(self, operator: str) -> tuple[str, ...]:
        """Names of the nodes of an operator."""
        return tuple(node.name for node in self.nodes if node.operator == operator)


def read_outline(model: bytes) -> OnnxOutline:
    """Walk a model.

    Raises:
        EngineBuildError: The bytes are no ONNX model.
    """
    walk = _Walk([], [])
    try:
        for number, _, value in fields(memoryview(model)):
            if isinstance(value, memoryview) and number == 7:
                walk.graph(value)
            elif isinstance(value, memoryview) and number == 25:
                walk.function(value)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise EngineBuildError(f"this is no ONNX model ({error}); was the file cut short?") from error
    if not walk.nodes:
        raise EngineBuildError("this is no ONNX model: it has no nodes; export the checkpoint again")
    return OnnxOutline(tuple(walk.nodes), tuple(walk.external))


@dataclass(frozen=True)
class _Walk:
    """Collects while it steps through the messages, however deep graphs are nested in nodes."""

    nodes: list[OnnxNode]
    external: list[str]

    def graph(self, message: memoryview) -> None:
        for number, value in messages(message):
            if number == 1:
                self.node(value)
            elif number == 5:
                self.tensor(value)
            elif number == 15:
                self.sparse(value)

    def function(self, message: memoryview) -> None:
        for number, value in messages(message):
            if number == 7:
                self.node(value)

    def node(self, message: memoryview) -> None:
        name = operator = ""
        for number, value in messages(message):
            if number == 3:
                name = str(value, "utf-8")
            elif number == 4:
                operator = str(value, "utf-8")
            elif number == 5:
                self.attribute(value)
        self.nodes.append(OnnxNode(name, operator))

    def attribute(self, message: memoryview) -> None:
        for number, value in messages(message):
            if number in {5, 10}:
                self.tensor(value)
            elif number in {6, 11}:
                self.graph(value)
            elif number in {22, 23}:
                self.sparse(value)

    def sparse(self, message: memoryview) -> None:
        for number, value in messages(message):
            if number in {1, 2}:
                self.tensor(value)

    def tensor(self, message: memoryview) -> None:
        name, external = "", False
        for number, kind, value in fields(message):
            if number == 8 and isinstance(value, memoryview):
                name = str(value, "utf-8")
            elif number == 13 or (number == 14 and kind == VARINT and value == _EXTERNAL):
                external = True
        if external:
            self.external.append(name)


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields."""
    for number, _, value in fields(message):
        if isinstance(value, memoryview):
            yield number, value


def fields(message: memoryview) -> Iterator[Field]:
    """``(field number, wire type, value)``; the values of fixed-size fields are not decoded."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = divmod(key, 8)
        if kind == VARINT:
            value, position = _varint(message, position)
            yield number, kind, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == BYTES:
            length, position = _varint(message, position)
        if number == 0 or length < 0 or position + length > len(message):
            raise ValueError(f"field {number} does not fit")
        yield number, kind, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("cut-off number")
