"""The deformable convolution of YOLACT++ as ONNX nodes, in two equivalent forms.

``deform-conv`` is one operator of operator set 19. ``grid-sample`` only needs GridSample of set 16, which every backend
has: the nine taps are sampled, weighted, and combined by a 1x1 convolution.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from torch import nn

from yolact_export.graph.builder import GraphBuilder, Tensor
from yolact_export.graph.layers import reshape
from yolact_export.graph.weights import Float32, folded_weights
from yolact_export.model.deformable import KERNEL_SIZE, NUM_TAPS, ModulatedDeformConv2d
from yolact_runtime.model.network_parts import OFFSETS

__all__ = ["DeformConvForm", "deformable_convolution"]


class DeformConvForm(str, Enum):
    """Form in which a deformable convolution is written."""

    DEFORM_CONV = "deform-conv"
    GRID_SAMPLE = "grid-sample"


def deformable_convolution(
    graph: GraphBuilder,
    x: Tensor,
    path: str,
    module: ModulatedDeformConv2d,
    batch_norm: nn.BatchNorm2d,
    form: DeformConvForm,
) -> Tensor:
    """Write a deformable convolution and the batch norm after it; the last node is called `path`."""
    weight, bias = folded_weights(module, batch_norm)
    assert bias is not None
    with graph.part(OFFSETS):
        offset, mask = _offset_and_mask(graph, x, path, module, form)
    if form is DeformConvForm.DEFORM_CONV:
        inputs: list[Tensor | str] = [
            x,
            graph.constant(f"{path}.weight", weight),
            offset,
            graph.constant(f"{path}.bias", bias),
            mask,
        ]
        shape = (module.out_channels, *offset.shape[1:])
        strides = (module.stride, module.stride)
        return graph.node("DeformConv", path, inputs, shape, kernel_shape=(3, 3), strides=strides, pads=(1, 1, 1, 1))
    taps = _sample_taps(graph, x, offset, mask, path, module.stride)
    inputs = [
        taps,
        graph.constant(f"{path}.weight", weight.reshape(module.out_channels, -1, 1, 1)),
        graph.constant(f"{path}.bias", bias),
    ]
    return graph.node("Conv", path, inputs, (module.out_channels, *taps.shape[1:]), kernel_shape=(1, 1))


def _offset_and_mask(
    graph: GraphBuilder, x: Tensor, path: str, module: ModulatedDeformConv2d, form: DeformConvForm
) -> tuple[Tensor, Tensor]:
    """Write offsets ``(18, Ho, Wo)`` in pixels, and masks ``(9, Ho, Wo)`` after their sigmoid."""
    path = f"{path}.conv_offset_mask"
    weight, bias = folded_weights(module.conv_offset_mask)
    assert bias is not None
    if form is DeformConvForm.GRID_SAMPLE:
        # GridSample expects x before y: swapped in the weights, at no cost, instead of in the tensor.
        order = np.concatenate([np.arange(2 * NUM_TAPS) ^ 1, np.arange(2 * NUM_TAPS, 3 * NUM_TAPS)])
        weight, bias = weight[order], bias[order]
    stride = module.stride
    height, width = (-(-size // stride) for size in x.shape[1:])
    both = graph.node(
        "Conv",
        path,
        [x, graph.constant(f"{path}.weight", weight), graph.constant(f"{path}.bias", bias)],
        (3 * NUM_TAPS, height, width),
        kernel_shape=(KERNEL_SIZE, KERNEL_SIZE),
        strides=(stride, stride),
        pads=(1, 1, 1, 1),
    )
    split = graph.constant("deformable.split", np.array([2 * NUM_TAPS, NUM_TAPS], np.int64))
    parts = {f"{path}.offset": (2 * NUM_TAPS, height, width), f"{path}.mask_logit": (NUM_TAPS, height, width)}
    offset, logit = graph.nodes("Split", f"{path}.split", [both, split], parts, axis=1)
    return offset, graph.node("Sigmoid", f"{path}.mask", [logit], logit.shape)


def _sample_taps(graph: GraphBuilder, x: Tensor, offset: Tensor, mask: Tensor, path: str, stride: int) -> Tensor:
    """Write the weighted taps, ``(in * 9, Ho, Wo)``; `offset` has x before y."""
    channels, in_height, in_width = x.shape
    _, height, width = offset.shape
    pairs = reshape(graph, offset, (NUM_TAPS, 2, height, width), f"{path}.offset_pairs")
    pairs = graph.node("Transpose", f"{path}.offset_last", [pairs], (NUM_TAPS, height, width, 2), perm=(0, 1, 3, 4, 2))
    # GridSample's unit: -1 and 1 are the outer edges of the first and last pixel (align_corners=0). It never divides by
    # zero, unlike the other unit for a map of one pixel.
    scale = graph.constant(
        f"deformable.scale.{in_height}x{in_width}", np.array([2.0 / in_width, 2.0 / in_height], np.float32)
    )
    base = graph.constant(
        f"deformable.base.{in_height}x{in_width}.stride{stride}", _base_grid(in_height, in_width, height, width, stride)
    )
    grid = graph.node("Mul", f"{path}.offset_scaled", [pairs, scale], pairs.shape)
    grid = graph.node("Add", f"{path}.grid", [grid, base], pairs.shape)
    grid = reshape(graph, grid, (NUM_TAPS * height, width, 2), f"{path}.grid_rows")
    taps = graph.node(
        "GridSample",
        f"{path}.grid_sample",
        [x, grid],
        (channels, NUM_TAPS * height, width),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=0,
    )
    taps = reshape(graph, taps, (channels, NUM_TAPS, height, width), f"{path}.taps")
    weights = reshape(graph, mask, (1, NUM_TAPS, height, width), f"{path}.tap_weights")
    taps = graph.node("Mul", f"{path}.taps_weighted", [taps, weights], taps.shape)
    return reshape(graph, taps, (channels * NUM_TAPS, height, width), f"{path}.columns")


def _base_grid(in_height: int, in_width: int, height: int, width: int, stride: int) -> Float32:
    """Return where the taps read without offsets, ``(1, 9, Ho, Wo, 2)`` as x and y in GridSample's unit."""
    tap = np.arange(NUM_TAPS)
    y = np.arange(height)[None, :, None] * stride - 1 + (tap // KERNEL_SIZE)[:, None, None]
    x = np.arange(width)[None, None, :] * stride - 1 + (tap % KERNEL_SIZE)[:, None, None]
    y, x = np.broadcast_arrays((2 * y + 1) / in_height - 1, (2 * x + 1) / in_width - 1)
    return np.stack([x, y], axis=-1)[None].astype(np.float32)
