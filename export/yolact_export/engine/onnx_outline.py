"""Outline of an ONNX model for checks before a build, read without the onnx package.

Field numbers (onnx.proto): ``NodeProto.name`` = 3, ``.op_type`` = 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from yolact_export.errors import EngineBuildError
from yolact_runtime.model.onnx_tensors import tensor_place, walk
from yolact_runtime.model.protobuf import messages

__all__ = ["OnnxNode", "OnnxOutline", "read_outline"]


@dataclass(frozen=True)
class OnnxNode:
    """Name and operator of a node."""

    name: str
    operator: str


@dataclass(frozen=True)
class OnnxOutline:
    """Model without its weights.

    Attributes:
        nodes: Nodes of the graph and of all graphs inside it.
        external: Names of the tensors whose data is in other files.
    """

    nodes: tuple[OnnxNode, ...]
    external: tuple[str, ...]

    def named(self, operator: str) -> tuple[str, ...]:
        """Return the names of the nodes with an operator."""
        return tuple(node.name for node in self.nodes if node.operator == operator)


def read_outline(model: bytes) -> OnnxOutline:
    """Read the outline of a model.

    Raises:
        EngineBuildError: The bytes are not an ONNX model.
    """
    nodes, external = list[OnnxNode](), list[str]()
    try:
        for kind, message in walk(model):
            if kind == "NodeProto":
                texts = dict(messages(message))
                nodes.append(OnnxNode(str(texts.get(3, b""), "utf-8"), str(texts.get(4, b""), "utf-8")))
            elif kind == "TensorProto":
                name, is_external = tensor_place(message)
                external += [name] * is_external
    except ValueError as error:
        raise EngineBuildError(f"this is not an ONNX model ({error}); was the file truncated?") from error
    if not nodes:
        raise EngineBuildError("this is not an ONNX model: it has no nodes; export the checkpoint again")
    return OnnxOutline(tuple(nodes), tuple(external))
