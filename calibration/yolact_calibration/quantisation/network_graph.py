"""A look at an exported network: who makes a tensor, who reads it, and which part of the model a convolution is."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from yolact_calibration.errors import CalibrationError

__all__ = ["FINAL_GROUPS", "Convolution", "NetworkGraph", "group_of"]

_FINAL_LAYERS = {"bbox_layer": "box head", "conf_layer": "class head", "mask_layer": "mask head"}

FINAL_GROUPS = tuple(_FINAL_LAYERS.values())
"""The groups whose convolutions give the network's answers; they start in float."""

# The first that matches a node's name.
_GROUPS: tuple[tuple[str, str], ...] = (
    (r".*\.conv_offset_mask", "deformable offsets"),
    (r"backbone\.(conv1|conv_stem|_preconv\.0|layers\.0\.0)$", "stem"),
    (r"fpn\.lat_layers\..*", "fpn lateral"),
    (r"fpn\.pred_layers\..*", "fpn prediction"),
    (r"fpn\.downsample_layers\..*", "fpn downsample"),
    (r"proto_net\..*", "protonet"),
    (r"prediction_layers\.0\.upfeature\..*", "upfeature"),
    *((rf"prediction_layers\.0\.{layer}\..*", group) for layer, group in _FINAL_LAYERS.items()),
    (r"maskiou_net\..*", "mask IoU"),
)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a network.

    Attributes:
        name: Of its node, which is the module's path; with the pyramid level where one module serves several.
        group: Part of the model, such as ``"res3"`` or ``"protonet"``.
        macs: Multiply-accumulate operations on one image.
        in_channels: Channels it reads, over all groups.
        out_channels: Channels it writes.
        is_depthwise: Every channel has a filter of its own.
    """

    name: str
    group: str
    macs: int
    in_channels: int
    out_channels: int
    is_depthwise: bool


class NetworkGraph:
    """Indices over a model that :mod:`yolact_export` wrote. The model is only read, and must not change meanwhile."""

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
        """The tensor is stored in the file."""
        return name in self._initializers

    def constant(self, name: str) -> npt.NDArray[Any]:
        """Value of a stored tensor; a copy."""
        return np.array(numpy_helper.to_array(self._initializers[name]))

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, with the batch dimension, which is 1 where it is dynamic."""
        return self._shapes[name]

    @functools.cached_property
    def convolutions(self) -> tuple[Convolution, ...]:
        """All of them, in the order of the graph."""
        return tuple(self._convolution(node) for node in self.nodes if node.op_type == "Conv")

    @functools.cached_property
    def groups(self) -> Mapping[str, tuple[Convolution, ...]]:
        """Group -> its convolutions, in the order of the graph."""
        found: dict[str, list[Convolution]] = {}
        for convolution in self.convolutions:
            found.setdefault(convolution.group, []).append(convolution)
        return {group: tuple(members) for group, members in found.items()}

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The node that alone reads a tensor which is no output of the network; else None."""
        readers = self.consumers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def _convolution(self, node: onnx.NodeProto) -> Convolution:
        weight = self._initializers[node.input[1]].dims
        out = self.shape(node.output[0])
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return Convolution(
            name=node.name,
            group=group_of(node.name, self._stride(out)),
            macs=math.prod(weight) * math.prod(out[2:]),
            in_channels=weight[1] * groups,
            out_channels=weight[0],
            is_depthwise=groups > 1 and weight[1] == 1,
        )

    def _stride(self, shape: tuple[int, ...]) -> int:
        """By how much a map is smaller than the image, rounded to a power of two."""
        image = self.shape(self.model.graph.input[0].name)
        return 1 << round(math.log2(max(image[2] / shape[2], 1)))


def group_of(name: str, stride: int) -> str:
    """Part of the model that a convolution belongs to.

    Args:
        name: Of its node.
        stride: Of its output to the image; names the parts of backbones that are no ResNets.
    """
    for pattern, group in _GROUPS:
        if re.match(pattern, name):
            return group
    if found := re.match(r"backbone\.layers\.(\d+)\.\d+\.(conv[123]$|downsample\.)", name):
        return f"res{int(found[1]) + 2}"
    return f"backbone /{stride}"


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
