"""The weights of a mask-IoU network (YOLACT++), for kernels that run it without an inference library."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import BundleError
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.onnx_graph import Graph, Node, quoted, read_graph

__all__ = ["MIN_SIDE", "WIDTHS", "MaskIouNetwork", "OtherNetworkError", "read_mask_iou"]

Float = npt.NDArray[np.float32]
WIDTHS = (1, 8, 16, 32, 64, 128)
"""Number of channels of the mask, and after each 3 x 3 convolution."""
MIN_SIDE = 63
"""Minimum side of a mask in prototype pixels.

Nothing is left of a smaller one after five unpadded stride-2 convolutions.
"""
# Defaults of omitted ONNX attributes that equal the network's values.
_NEUTRAL = {"group": (1,), "dilations": (1, 1), "pads": (0, 0, 0, 0)}


class OtherNetworkError(BundleError):
    """A mask-IoU network is intact but not the published one; the message describes the difference."""


@dataclass(frozen=True)
class MaskIouNetwork:
    """The published architecture with its weights.

    Attributes:
        layers: Weights ``(outputs, inputs, side, side)`` and biases ``(outputs,)`` of the six convolutions, float32:
            five of 3 x 3, stride 2, without padding, and one of 1 x 1. A ReLU follows each, and at the end the maximum
            over the map.
    """

    layers: tuple[tuple[Float, Float], ...]

    @property
    def num_classes(self) -> int:
        """Number of classes without the background, C - 1."""
        return len(self.layers[-1][1])


def read_mask_iou(file: ModelFile) -> MaskIouNetwork:
    """Read the network of a bundle.

    Raises:
        OtherNetworkError: The network is not the published one.
        BundleError: The file is not an ONNX model, or has weights that are not finite.
    """
    graph = read_graph(file)
    wanted = [*("Conv", "Relu") * 6, "GlobalMaxPool", "Flatten"]
    found = [node.op_type for node in graph.nodes]
    if found != wanted:
        raise OtherNetworkError(
            f"{file.path.name} is not the published mask-IoU network: its operations are "
            f"{quoted(', '.join(found)) or 'none'}; expected six times Conv, Relu, then GlobalMaxPool, Flatten"
        )
    _check_chain(graph, file)
    convolutions = graph.nodes[:12:2]
    shapes = [(outputs, inputs, 3, 3) for inputs, outputs in itertools.pairwise(WIDTHS)]
    layers = [_layer(graph, node, shape, file) for node, shape in zip(convolutions, shapes, strict=False)]
    weight = graph.weights.get(convolutions[-1].inputs[1])
    classes = 0 if weight is None or not weight.ndim else len(weight)
    layers.append(_layer(graph, convolutions[-1], (classes, WIDTHS[-1], 1, 1), file))
    return MaskIouNetwork(tuple(layers))


def _check_chain(graph: Graph, file: ModelFile) -> None:
    """Check that every operation reads the output of the previous one, and otherwise only weights."""
    before = graph.inputs
    for node in graph.nodes:
        if node.inputs[:1] != before or len(node.outputs) != 1 or len(node.inputs) != (3 if _is_conv(node) else 1):
            raise OtherNetworkError(
                f"{file.path.name} is not the published mask-IoU network: {node.op_type} reads "
                f"{quoted(', '.join(node.inputs))} where {quoted(', '.join(before))} is expected"
            )
        before = node.outputs
    if graph.outputs != before or graph.nodes[-1].numbers.get("axis", (1,)) != (1,):
        raise OtherNetworkError(f"{file.path.name} is not the published mask-IoU network: it has other outputs")


def _is_conv(node: Node) -> bool:
    return node.op_type == "Conv"


def _layer(graph: Graph, node: Node, shape: tuple[int, ...], file: ModelFile) -> tuple[Float, Float]:
    sides = shape[2:]
    wanted = {**_NEUTRAL, "kernel_shape": sides, "strides": (2, 2) if sides == (3, 3) else (1, 1)}
    defaults = {**_NEUTRAL, "kernel_shape": sides, "strides": (1, 1)}
    for name in {*node.numbers, "strides"}:
        if name not in wanted or node.numbers.get(name, defaults[name]) != wanted[name]:
            raise OtherNetworkError(
                f"{file.path.name} is not the published mask-IoU network: a convolution to {shape[0]} channels has "
                f"{quoted(name)} {quoted(str(node.numbers.get(name, defaults.get(name))))}"
            )
    weight, bias = (graph.weights.get(name) for name in node.inputs[1:])
    if weight is None or bias is None or weight.shape != shape or bias.shape != shape[:1] or not shape[0]:
        has = [None if array is None else array.shape for array in (weight, bias)]
        raise OtherNetworkError(
            f"{file.path.name} is not the published mask-IoU network: weights and biases of a convolution should have "
            f"the shapes {shape} and {shape[:1]} in float32, found {has[0]} and {has[1]}"
        )
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise BundleError(f"{file.path} contains weights that are NaN or infinite; export the checkpoint again")
    return weight, bias
