"""The common layers of all networks as ONNX nodes, named by their module paths."""

from __future__ import annotations

import numpy as np
from torch import nn

from yolact_export.graph.builder import GraphBuilder, Tensor, int64
from yolact_export.graph.weights import folded_weights
from yolact_export.model.config import Normalisation
from yolact_export.model.same_convolution import SameConv2d, same_padding

__all__ = ["add", "convolution", "leaky_relu", "max_pool", "relu", "relu6", "reshape", "resize"]


def convolution(
    graph: GraphBuilder,
    x: Tensor,
    path: str,
    module: nn.Conv2d,
    batch_norm: nn.BatchNorm2d | None = None,
    *,
    normalisation: Normalisation | None = None,
    level: str = "",
) -> Tensor:
    """Write a convolution, and the batch norm after it.

    Args:
        graph: Graph that is extended.
        x: Input tensor, ``(in, H, W)``.
        path: Path of the module; the node and its output get this name, the weights ``{path}.weight`` and
            ``{path}.bias``.
        module: Convolution to write.
        batch_norm: Batch norm to fold into the weights.
        normalisation: Normalisation of the image to fold into the weights of the network's first convolution.
        level: Name of the pyramid level, if one module serves several: it is appended to the node's name, and the
            weights are stored once.
    """
    weight, bias = f"{path}.weight", f"{path}.bias"
    if not graph.has_constant(weight):
        values, offsets = folded_weights(module, batch_norm, normalisation)
        graph.constant(weight, values)
        if offsets is not None:
            graph.constant(bias, offsets)
    (top, bottom), (left, right) = _padding(module, x)
    kernel, stride = module.kernel_size, module.stride
    height = (x.shape[1] + top + bottom - kernel[0]) // stride[0] + 1
    width = (x.shape[2] + left + right - kernel[1]) // stride[1] + 1
    return graph.node(
        "Conv",
        f"{path}.{level}" if level else path,
        [x, weight, *([bias] if graph.has_constant(bias) else [])],
        (module.out_channels, height, width),
        kernel_shape=kernel,
        strides=stride,
        pads=(top, left, bottom, right),
        group=module.groups,
    )


def _padding(module: nn.Conv2d, x: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    if isinstance(module, SameConv2d):
        rows = same_padding(x.shape[1], module.kernel_size[0], module.stride[0])
        return rows, same_padding(x.shape[2], module.kernel_size[1], module.stride[1])
    assert not isinstance(module.padding, str)
    vertical, horizontal = module.padding
    return (vertical, vertical), (horizontal, horizontal)


def relu(graph: GraphBuilder, x: Tensor, name: str, *, output: str | None = None) -> Tensor:
    """Write ``max(x, 0)``."""
    return graph.node("Relu", name, [x], x.shape, output=output)


def relu6(graph: GraphBuilder, x: Tensor, name: str) -> Tensor:
    """Write ``x`` clipped to 0..6."""
    low = graph.constant("relu6.min", np.zeros((), np.float32))
    high = graph.constant("relu6.max", np.full((), 6.0, np.float32))
    return graph.node("Clip", name, [x, low, high], x.shape)


def leaky_relu(graph: GraphBuilder, x: Tensor, name: str, slope: float) -> Tensor:
    """Write ``x`` where it is positive, ``slope * x`` elsewhere."""
    return graph.node("LeakyRelu", name, [x], x.shape, alpha=slope)


def add(graph: GraphBuilder, x: Tensor, y: Tensor, name: str) -> Tensor:
    """Write the sum of two tensors of one shape."""
    return graph.node("Add", name, [x, y], x.shape)


def max_pool(graph: GraphBuilder, x: Tensor, name: str) -> Tensor:
    """Write the 3x3 stride-2 padding-1 max pool of a ResNet's stem."""
    channels, height, width = x.shape
    shape = (channels, (height + 1) // 2, (width + 1) // 2)
    return graph.node("MaxPool", name, [x], shape, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))


def resize(graph: GraphBuilder, x: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Resize a map bilinearly, with half-pixel centres, to an exact size."""
    shape = (x.shape[0], *size)
    attributes = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if isinstance(graph.batch, int):
        sizes = graph.constant(f"{name}.sizes", int64(graph.batch, *shape))
        return graph.node("Resize", name, [x, "", "", sizes], shape, **attributes)
    # Sizes of all dimensions would fix the batch, and sizes of some (the attribute `axes` of operator set 18) are
    # refused by the parser of TensorRT-RTX 1.7.
    scales = np.array([1.0, 1.0, *(_scale(old, new) for old, new in zip(x.shape[1:], size, strict=True))], np.float32)
    return graph.node("Resize", name, [x, "", graph.constant(f"{name}.scales", scales)], shape, **attributes)


def _scale(old: int, new: int) -> np.float32:
    """Return the float32 at or just above ``new / old``: backends round ``old * scale`` down, some in float64."""
    scale = np.float32(new / old)
    return scale if float(scale) * old >= new else np.nextafter(scale, np.float32(np.inf))


def reshape(graph: GraphBuilder, x: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Write the same values in another shape; the batch dimension stays."""
    # 0 copies the dimension, so one graph serves a static and a dynamic batch.
    target = graph.constant(f"shape.{'x'.join(map(str, shape))}", int64(0, *shape))
    return graph.node("Reshape", name, [x, target], shape)
