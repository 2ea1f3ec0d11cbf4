"""MobileNetV2 1.0, the light backbone of YolactEdge."""

from __future__ import annotations

import torch
from torch import nn

from yolact_export.model.backbone import Backbone

__all__ = ["InvertedResidual", "MobileNetV2"]

# Expansion, output channels, blocks, stride of the first block.
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_SELECTED = (3, 4, 6)


def _unit(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; a shortcut where the shapes allow it. Keys as in torchvision."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        expand = [_unit(in_channels, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _unit(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetV2(Backbone):
    """Stem, seven groups of inverted residuals and the classifier's 1x1 head; groups 3, 4 and 6 are returned.

    ``layers.8``, the head, is in the published files. It is kept so that they load strictly, and never computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_unit(3, _STEM_CHANNELS, stride=2)])
        channels = _STEM_CHANNELS
        for expansion, out_channels, num_blocks, stride in _GROUPS:
            blocks = []
            for block in range(num_blocks):
                blocks.append(InvertedResidual(channels, out_channels, stride if block == 0 else 1, expansion))
                channels = out_channels
            self.layers.append(nn.Sequential(*blocks))
        self.layers.append(_unit(channels, _HEAD_CHANNELS, 1))
        self.out_channels = (32, 64, 160)

    @property
    def selected(self) -> tuple[int, int, int]:
        """Indices of the groups whose outputs are returned."""
        return _SELECTED

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = image
        features = []
        for stage in list(self.layers)[: _SELECTED[-1] + 1]:
            x = stage(x)
            features.append(x)
        c3, c4, c5 = (features[index] for index in _SELECTED)
        return c3, c4, c5
