"""The frame of a ResNet, which several families share: a stem, a max pool and four stages of residual blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from yolact_export.model.backbone import Backbone, Features
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.layer_writer import LayerWriter, Tensor
from yolact_runtime.model.network_parts import STEM, residual_stage

__all__ = ["FourStages", "ResidualBlock", "emit_four_stages", "make_shortcut"]


class ResidualBlock(nn.Module):
    """A block of convolutions with batch norms and a shortcut.

    Attributes:
        num_convolutions: Number of convolutions beside the shortcut: ``conv1`` and so on, with ``bn1`` and so on.
        downsample: The convolution of the shortcut and its batch norm; None if the shortcut is the input itself.
    """

    num_convolutions: int
    downsample: nn.Sequential | None

    def layers(self) -> Iterator[tuple[nn.Conv2d | ModulatedDeformConv2d, nn.BatchNorm2d]]:
        """Yield the convolutions beside the shortcut, each with its batch norm."""
        for number in range(1, self.num_convolutions + 1):
            yield getattr(self, f"conv{number}"), getattr(self, f"bn{number}")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index, (convolution, batch_norm) in enumerate(self.layers()):
            y = batch_norm(convolution(functional.relu(y) if index else y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def make_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Return the layers that fit a block's input to its output; None if the input fits as it is."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class FourStages(Backbone):
    """A stem convolution, a max pool and four stages of residual blocks, of which the last three are returned."""

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


def emit_four_stages(graph: LayerWriter, image: Tensor, backbone: FourStages) -> Features:
    """Write such a backbone; see :meth:`~yolact_export.model.backbone.BackboneFamily.emit`."""
    with graph.part(STEM):
        x = graph.convolution(image, "conv1", backbone.conv1, backbone.bn1)
        x = graph.max_pool(graph.relu(x, "relu"), "maxpool")
    features = []
    stages: Any = backbone.layers
    for number, blocks in enumerate(stages):
        with graph.part(residual_stage(number)):
            for index, block in enumerate(blocks):
                x = _emit_block(graph, x, block, f"layers.{number}.{index}")
        features.append(x)
    return features[1], features[2], features[3]


def _emit_block(graph: LayerWriter, x: Tensor, block: ResidualBlock, path: str) -> Tensor:
    y = x
    for number, (convolution, batch_norm) in enumerate(block.layers(), start=1):
        y = y if number == 1 else graph.relu(y, f"{path}.relu{number - 1}")
        y = graph.convolution(y, f"{path}.conv{number}", convolution, batch_norm)
    shortcut: Any = block.downsample
    if shortcut is not None:
        x = graph.convolution(x, f"{path}.downsample.0", shortcut[0], shortcut[1])
    return graph.relu(graph.add(y, x, f"{path}.add"), f"{path}.relu")
