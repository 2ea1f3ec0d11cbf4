"""MobileNetV2 1.0, the light backbone of YolactEdge."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from yolact_export.model.backbone import Backbone, BackboneFamily, Features, Shapes
from yolact_export.model.config import BackboneConfig, YolactConfig
from yolact_export.model.layer_writer import LayerWriter, Tensor
from yolact_runtime.model.network_parts import STEM

__all__ = ["FAMILY", "InvertedResidual", "MobileNetV2", "MobileNetV2Config"]

# Expansion, output channels, blocks, stride of the first block.
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM_CHANNELS = 32
_HEAD_CHANNELS = 1280
_SELECTED = (3, 4, 6)


@dataclasses.dataclass(frozen=True)
class MobileNetV2Config(BackboneConfig):
    """MobileNetV2 1.0, as in the image checkpoints of YolactEdge."""


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

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = image
        features = []
        for stage in list(self.layers)[: _SELECTED[-1] + 1]:
            x = stage(x)
            features.append(x)
        c3, c4, c5 = (features[index] for index in _SELECTED)
        return c3, c4, c5


class _MobileNetV2Family(BackboneFamily[MobileNetV2Config, MobileNetV2]):
    name = "MobileNetV2"
    config_type = MobileNetV2Config
    module_type = MobileNetV2
    configs = (YolactConfig("yolact_edge_mobilenetv2", MobileNetV2Config()),)

    def build(self, config: MobileNetV2Config) -> MobileNetV2:  # noqa: ARG002 # there is one
        return MobileNetV2()

    def infer(self, shapes: Shapes) -> MobileNetV2Config | None:
        return MobileNetV2Config() if len(shapes.get("layers.0.0.weight", ())) == 4 else None

    def emit(self, graph: LayerWriter, image: Tensor, backbone: MobileNetV2) -> Features:
        groups: Any = backbone.layers
        with graph.part(STEM):
            x = _emit_unit(graph, image, groups[0], "layers.0")
        features = [x]
        for number in range(1, _SELECTED[-1] + 1):
            for index, block in enumerate(groups[number]):
                x = _emit_block(graph, x, block, f"layers.{number}.{index}")
            features.append(x)
        c3, c4, c5 = (features[index] for index in _SELECTED)
        return c3, c4, c5

    def describe(self, config: MobileNetV2Config) -> str:  # noqa: ARG002 # there is one
        return self.name


def _emit_unit(graph: LayerWriter, x: Tensor, unit: Any, path: str) -> Tensor:
    return graph.relu6(graph.convolution(x, f"{path}.0", unit[0], unit[1]), f"{path}.2")


def _emit_block(graph: LayerWriter, x: Tensor, block: Any, path: str) -> Tensor:
    *units, project, batch_norm = block.conv
    y = x
    for position, unit in enumerate(units):
        y = _emit_unit(graph, y, unit, f"{path}.conv.{position}")
    y = graph.convolution(y, f"{path}.conv.{len(units)}", project, batch_norm)
    return graph.add(y, x, f"{path}.add") if block.has_shortcut else y


FAMILY = _MobileNetV2Family()
