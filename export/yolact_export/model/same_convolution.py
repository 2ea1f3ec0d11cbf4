"""A convolution under TensorFlow's SAME padding: an odd pixel goes to the bottom and the right."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["SameConv2d", "same_padding"]


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Return the pixels that TensorFlow's SAME adds before and after an axis of `size` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias under TensorFlow's SAME padding, which depends on the size of the input."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        padded = functional.pad(x, (left, right, top, bottom))
        y: torch.Tensor = self._conv_forward(padded, self.weight, None)
        return y
