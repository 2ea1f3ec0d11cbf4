"""Shapes of convolutions for latency tables and FLOP counts: channels, kernel, and the size of the feature maps."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

__all__ = ["LayerCall", "LayerShape", "is_deformable", "trace_layers"]


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """Convolution at a given input size. Two layers of the same shape take the same time.

    Attributes:
        in_channels: Number of input channels.
        out_channels: Number of output channels.
        kernel_size: Size ``(rows, columns)`` of the kernel.
        stride: Strides ``(rows, columns)``.
        groups: Number of groups: 1, or the number of channels (depthwise).
        in_size: Size ``(height, width)`` of the input map in pixels, without padding.
        out_size: Size ``(height, width)`` of the output map in pixels. Padding follows from the two sizes.
        deformable: Whether it is modulated deformable (DCNv2); the convolution that predicts its offsets is a separate
            layer.
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    deformable: bool = False

    @property
    def macs(self) -> int:
        """Number of multiply-accumulate operations for one image; bilinear sampling is not counted."""
        rows, columns = self.kernel_size
        per_pixel = self.out_channels * (self.in_channels // self.groups) * rows * columns
        return per_pixel * self.out_size[0] * self.out_size[1]

    @property
    def key(self) -> str:
        """Unique one-line text of the shape, the key of a cache."""
        pairs = ("x".join(map(str, pair)) for pair in (self.kernel_size, self.stride, self.in_size, self.out_size))
        kernel, stride, in_size, out_size = pairs
        kind = "deformable" if self.deformable else "conv"
        channels = f"{self.in_channels}>{self.out_channels}"
        return f"{kind} {channels} kernel {kernel} stride {stride} groups {self.groups} map {in_size}>{out_size}"

    def with_channels(self, in_channels: int, out_channels: int) -> LayerShape:
        """Return the layer with other widths; a depthwise one keeps one group per channel."""
        groups = self.groups if self.groups == 1 else out_channels
        return dataclasses.replace(self, in_channels=in_channels, out_channels=out_channels, groups=groups)


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One use of a layer in a forward pass; the shared head is used once for each pyramid level.

    Attributes:
        name: Name of the layer in the state dict, without ``.weight``.
        shape: Shape of the layer in this use.
    """

    name: str
    shape: LayerShape

    @property
    def block(self) -> str:
        """Part of the network: ``backbone``, ``fpn``, ``proto_net`` or ``prediction_layers``."""
        return self.name.partition(".")[0]


def is_deformable(module: nn.Module) -> bool:
    """Return whether it is a modulated deformable convolution, recognised by the published name of its child."""
    return isinstance(getattr(module, "conv_offset_mask", None), nn.Conv2d)


def trace_layers(model: nn.Module, image: torch.Tensor) -> tuple[LayerCall, ...]:
    """Run `model` once and list every convolution in the order of execution.

    Args:
        model: Model in eval mode; not modified.
        image: ``(1, 3, H, W)`` float32 image on the model's device, of the size to measure.
    """
    calls: list[LayerCall] = []
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) or is_deformable(module):

            def note(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor, name: str = name) -> None:
                calls.append(LayerCall(name, _shape_of(module, inputs[0], output)))

            handles.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(calls)


def _shape_of(module: Any, x: torch.Tensor, y: torch.Tensor) -> LayerShape:
    stride = module.stride if isinstance(module.stride, tuple) else (module.stride, module.stride)
    return LayerShape(
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        kernel_size=(module.weight.shape[2], module.weight.shape[3]),
        stride=stride,
        groups=getattr(module, "groups", 1),
        in_size=(x.shape[2], x.shape[3]),
        out_size=(y.shape[2], y.shape[3]),
        deformable=is_deformable(module),
    )
