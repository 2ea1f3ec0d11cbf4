"""Index of an exported network: producers and consumers of tensors, and the part of the model of each convolution."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from yolact_calibration.errors import CalibrationError
from yolact_runtime.model.network_parts import BOX_HEAD, CLASS_HEAD, MASK_HEAD, PROPERTY, derive_parts, stride_of

__all__ = ["FINAL_GROUPS", "Convolution", "NetworkGraph", "part_of", "write_part"]

FINAL_GROUPS = (BOX_HEAD, CLASS_HEAD, MASK_HEAD)
"""Groups whose convolutions compute the network's outputs; they start in float."""


@dataclasses.dataclass(frozen=True)
class Convolution:
    """Convolution of a network.

    Attributes:
        name: Name of its node, which is the module's path, with the pyramid level if one module serves several levels.
        group: Part of the model, such as ``"res3"`` or ``"protonet"``.
        macs: Multiply-accumulate operations for one image.
        in_channels: Number of input channels, over all groups.
        out_channels: Number of output channels.
        is_depthwise: Whether every channel has a filter of its own.
    """

    name: str
    group: str
    macs: int
    in_channels: int
    out_channels: int
    is_depthwise: bool


class NetworkGraph:
    """Index of a model written by :mod:`yolact_export`. The model is only read, and must not change during its use."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: Sequence[onnx.NodeProto] = model.graph.node
        self.producer: Mapping[str, onnx.NodeProto] = {name: node for node in self.nodes for name in node.output}
        self.consumers: Mapping[str, Sequence[onnx.NodeProto]] = _consumers(self.nodes)
        self.outputs = frozenset(output.name for output in model.graph.output)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        infos = (*model.graph.value_info, *model.graph.input, *model.graph.output)
        self._shapes = {info.name: _shape(info) for info in infos}

    def is_constant(self, name: str) -> bool:
        """Return whether the tensor is stored in the file."""
        return name in self._initializers

    def constant(self, name: str) -> npt.NDArray[Any]:
        """Return a copy of the value of a stored tensor."""
        return np.array(numpy_helper.to_array(self._initializers[name]))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, with the batch dimension, which is 1 if it is dynamic."""
        return self._shapes[name]

    @functools.cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Convolutions in the order of the graph."""
        return tuple(self._convolution(node) for node in self.nodes if node.op_type == "Conv")

    @functools.cached_property
    def parts(self) -> Mapping[str, str]:
        """Part of the model by node name; derived from the names in networks of earlier releases."""
        written = {node.name: part for node in self.nodes if (part := part_of(node)) is not None}
        if len(written) == len(self.nodes):
            return written
        return {**derive_parts({node.name: self._stride(node) for node in self.nodes}), **written}

    @functools.cached_property
    def groups(self) -> Mapping[str, tuple[Convolution, ...]]:
        """Convolutions by group, in the order of the graph."""
        found: dict[str, list[Convolution]] = {}
        for convolution in self.convolutions:
            found.setdefault(convolution.group, []).append(convolution)
        return {group: tuple(members) for group, members in found.items()}

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the only node that reads a tensor; None if there are several, or it is an output of the network."""
        readers = self.consumers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def _convolution(self, node: onnx.NodeProto) -> Convolution:
        weight = self._initializers[node.input[1]].dims
        out = self.shape(node.output[0])
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return Convolution(
            name=node.name,
            group=self.parts[node.name],
            macs=math.prod(weight) * math.prod(out[2:]),
            in_channels=weight[1] * groups,
            out_channels=weight[0],
            is_depthwise=groups > 1 and weight[1] == 1,
        )

    def _stride(self, node: onnx.NodeProto) -> int | None:
        """Return the ratio of the image's size to that of the node's feature map; None if its output is not a map."""
        image, shape = self.shape(self.model.graph.input[0].name), self._shapes.get(node.output[0], ())
        return stride_of(image[2], shape[2]) if len(shape) == len(image) == 4 else None


def part_of(node: onnx.NodeProto) -> str | None:
    """Return the part of the model that is written into a node; None in networks of earlier releases."""
    return next((entry.value for entry in node.metadata_props if entry.key == PROPERTY), None)


def write_part(node: onnx.NodeProto, part: str | None) -> onnx.NodeProto:
    """Write a part of the model into a node that has none, and return the node; None changes nothing."""
    if part is not None and part_of(node) is None:
        node.metadata_props.add(key=PROPERTY, value=part)
    return node


def _consumers(nodes: Sequence[onnx.NodeProto]) -> Mapping[str, Sequence[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def _shape(info: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = info.type.tensor_type.shape.dim
    sizes = tuple(1 if dim.dim_param else dim.dim_value for dim in dims)
    if any(size < 1 for size in sizes):
        raise CalibrationError(
            f'tensor "{info.name}" has no static shape; quantisation needs a graph as yolact-export writes it'
        )
    return sizes
