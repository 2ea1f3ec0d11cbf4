"""ResNet backbones: the published bottleneck ones, with deformable blocks for YOLACT++, and a small one of our own."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from yolact_export.model.backbone import Backbone
from yolact_export.model.config import ResNetConfig, SmallResNetConfig
from yolact_export.model.deformable import ModulatedDeformConv2d

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "SmallResNet"]

_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut. The stride is on the 3x3 convolution, which may be deformable."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, deformable: bool) -> None:
        super().__init__()
        out_channels = channels * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2: nn.Conv2d | ModulatedDeformConv2d
        if deformable:
            self.conv2 = ModulatedDeformConv2d(channels, channels, stride)
        else:
            self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut; the stride is on the first."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class _FourStages(Backbone):
    """The frame of a ResNet: a stem convolution, a max pool and four stages, of which the last three are returned."""

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    layers: nn.ModuleList

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(image))), 3, stride=2, padding=1)
        features = []
        for stage in self.layers:
            x = stage(x)
            features.append(x)
        return features[1], features[2], features[3]


class ResNet(_FourStages):
    """ResNet of bottlenecks without its classifier; keys as published (``layers.{stage}.{block}``)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layers = nn.ModuleList()
        in_channels = 64
        for stage, (num_blocks, deformable) in enumerate(zip(config.blocks, config.deformable, strict=True)):
            channels = 64 * 2**stage
            blocks = []
            for block in range(num_blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                blocks.append(Bottleneck(in_channels, channels, stride, deformable=block in deformable))
                in_channels = channels * _EXPANSION
            self.layers.append(nn.Sequential(*blocks))
        self.out_channels = (512, 1024, 2048)


class SmallResNet(_FourStages):
    """A ResNet of basic blocks, `width` channels wide in its first stage, with a 3x3 stem."""

    def __init__(self, config: SmallResNetConfig) -> None:
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.ModuleList()
        in_channels = width
        for stage, num_blocks in enumerate(config.blocks):
            channels = width * 2**stage
            blocks = []
            for block in range(num_blocks):
                blocks.append(BasicBlock(in_channels, channels, 2 if block == 0 and stage > 0 else 1))
                in_channels = channels
            self.layers.append(nn.Sequential(*blocks))
        self.out_channels = cast("tuple[int, int, int]", tuple(width * 2**stage for stage in (1, 2, 3)))
