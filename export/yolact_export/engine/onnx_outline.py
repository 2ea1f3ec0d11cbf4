"""What an engine build must know of an ONNX model before TensorRT sees it, read without the onnx package.

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
        raise EngineBuildError(f"this is no ONNX model ({error}); was the file cut short?") from error
    if not nodes:
        raise EngineBuildError("this is no ONNX model: it has no nodes; export the checkpoint again")
    return OnnxOutline(tuple(nodes), tuple(external))
