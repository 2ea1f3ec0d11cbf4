"""Modulated deformable convolution (DCNv2), in plain PyTorch.

Source: Zhu et al., "Deformable ConvNets v2", as YOLACT++ uses it: 3x3, one deformable group, no dilation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["ModulatedDeformConv2d"]

KERNEL_SIZE = 3
NUM_TAPS = KERNEL_SIZE * KERNEL_SIZE


class ModulatedDeformConv2d(nn.Module):
    """A 3x3 convolution, padding 1, whose nine taps move by learnt offsets and are weighted by learnt masks.

    ``conv_offset_mask`` computes 27 channels: ``dy, dx`` of tap 0, ``dy, dx`` of tap 1, ... (in pixels, interleaved,
    *not* nine dy and then nine dx), and then nine mask logits. A tap outside the map reads zero.

    Attributes:
        weight: ``(out, in, 3, 3)`` weights.
        bias: ``(out,)`` bias. Plain convolutions of this network have none; folding a batch norm must not drop it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, KERNEL_SIZE, KERNEL_SIZE))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * NUM_TAPS, KERNEL_SIZE, stride=stride, padding=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as a plain convolution at half gain: all offsets are 0 and all masks are sigmoid(0)."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.conv_offset_mask.weight)
        if self.conv_offset_mask.bias is not None:
            nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``x (B, in, H, W)``; return ``(B, out, ceil(H / stride), ceil(W / stride))``."""
        offset, mask_logit = self.conv_offset_mask(x).split([2 * NUM_TAPS, NUM_TAPS], dim=1)
        batch, _, height, width = offset.shape
        grid = _sampling_grid(offset, x.shape[2], x.shape[3], self.stride)
        # With align_corners=False no size divides by zero, not even one pixel. Memory: nine copies of the output map.
        taps = functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        taps = taps.view(batch, -1, NUM_TAPS, height, width) * mask_logit.sigmoid().unsqueeze(1)
        return functional.conv2d(taps.flatten(1, 2), self.weight.flatten(1)[:, :, None, None], self.bias)


def _sampling_grid(offset: torch.Tensor, in_height: int, in_width: int, stride: int) -> torch.Tensor:
    """Return where each tap reads, in the units of ``grid_sample``.

    Args:
        offset: ``(B, 18, Ho, Wo)`` offsets: dy and dx of each tap in pixels.
        in_height: Number of rows of the sampled map.
        in_width: Number of columns of the sampled map.
        stride: Stride of the convolution.

    Returns:
        ``(B, 9 * Ho, Wo, 2)`` x and y, where -1 and 1 are the outer edges of the first and last pixel.
    """
    batch, _, height, width = offset.shape
    offset = offset.view(batch, NUM_TAPS, 2, height, width)
    tap = torch.arange(NUM_TAPS, device=offset.device)
    row = torch.arange(height, device=offset.device) * stride - 1
    column = torch.arange(width, device=offset.device) * stride - 1
    base_y = (row[None, :, None] + (tap // KERNEL_SIZE)[:, None, None]).to(offset.dtype)
    base_x = (column[None, None, :] + (tap % KERNEL_SIZE)[:, None, None]).to(offset.dtype)
    y = ((offset[:, :, 0] + base_y) * 2 + 1) / in_height - 1
    x = ((offset[:, :, 1] + base_x) * 2 + 1) / in_width - 1
    return torch.stack((x, y), dim=-1).view(batch, NUM_TAPS * height, width, 2)
