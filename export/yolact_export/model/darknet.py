"""DarkNet-53, the backbone of YOLOv3, as YOLACT uses it."""

from __future__ import annotations

import torch
from torch import nn

from yolact_export.model.backbone import Backbone
from yolact_export.model.config import DarkNetConfig

__all__ = ["LEAKY_SLOPE", "DarkNet", "DarkNetBlock"]

LEAKY_SLOPE = 0.1


def _unit(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(LEAKY_SLOPE),
    )


class DarkNetBlock(nn.Module):
    """A 1x1 unit that halves the channels and a 3x3 unit, with a shortcut; no activation after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _unit(channels, channels // 2, 1)
        self.conv2 = _unit(channels // 2, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.conv1(x)
        return shortcut + self.conv2(x)  # type: ignore[no-any-return] # nn.Module.__call__ is untyped


class DarkNet(Backbone):
    """Five stages, each a stride-2 unit and residual blocks; the last three are returned. Keys as published."""

    def __init__(self, config: DarkNetConfig) -> None:
        super().__init__()
        self._preconv = _unit(3, 32, 3)
        self.layers = nn.ModuleList()
        channels = 32
        for num_blocks in config.blocks:
            blocks = (DarkNetBlock(2 * channels) for _ in range(num_blocks))
            self.layers.append(nn.Sequential(_unit(channels, 2 * channels, 3, stride=2), *blocks))
            channels *= 2
        self.out_channels = (256, 512, 1024)

    @property
    def stem(self) -> nn.Sequential:
        """The first unit; its published name is private."""
        return self._preconv

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self._preconv(image)
        features = []
        for stage in self.layers:
            x = stage(x)
            features.append(x)
        return features[-3], features[-2], features[-1]
