"""DarkNet-53, the backbone of YOLOv3, as YOLACT uses it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from yolact_export.model.backbone import Backbone, BackboneFamily, Features, Shapes, count_blocks
from yolact_export.model.config import BackboneConfig, Normalisation, YolactConfig
from yolact_export.model.layer_writer import LayerWriter, Tensor
from yolact_runtime.model.network_parts import STEM

__all__ = ["FAMILY", "DarkNet", "DarkNetBlock", "DarkNetConfig"]

_LEAKY_SLOPE = 0.1


@dataclasses.dataclass(frozen=True)
class DarkNetConfig(BackboneConfig):
    """DarkNet-53. ``blocks`` counts the residual blocks of each of the five stages."""

    blocks: tuple[int, ...] = (1, 2, 8, 8, 4)


def _unit(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.LeakyReLU(_LEAKY_SLOPE),
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


class _DarkNetFamily(BackboneFamily[DarkNetConfig, DarkNet]):
    name = "DarkNet-53"
    config_type = DarkNetConfig
    module_type = DarkNet
    configs = (
        YolactConfig(
            "yolact_darknet53",
            DarkNetConfig(),
            normalisation=Normalisation((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
        ),
    )

    def build(self, config: DarkNetConfig) -> DarkNet:
        return DarkNet(config)

    def infer(self, shapes: Shapes) -> DarkNetConfig | None:
        if "_preconv.0.weight" not in shapes:
            return None
        # The first element of a stage is its stride-2 unit, not a residual block.
        return DarkNetConfig(tuple(max(count - 1, 0) for count in count_blocks(shapes, 5)))

    def emit(self, graph: LayerWriter, image: Tensor, backbone: DarkNet) -> Features:
        with graph.part(STEM):
            x = _emit_unit(graph, image, backbone.stem, "_preconv")
        features = []
        stages: Any = backbone.layers
        for stage, blocks in enumerate(stages):
            for index, block in enumerate(blocks):
                path = f"layers.{stage}.{index}"
                if index == 0:
                    x = _emit_unit(graph, x, block, path)
                    continue
                y = _emit_unit(graph, x, block.conv1, f"{path}.conv1")
                x = graph.add(_emit_unit(graph, y, block.conv2, f"{path}.conv2"), x, f"{path}.add")
            features.append(x)
        return features[-3], features[-2], features[-1]

    def describe(self, config: DarkNetConfig) -> str:
        return "DarkNet-53" if config == DarkNetConfig() else f"DarkNet of {config.blocks} blocks"


def _emit_unit(graph: LayerWriter, x: Tensor, unit: Any, path: str) -> Tensor:
    return graph.leaky_relu(graph.convolution(x, f"{path}.0", unit[0], unit[1]), f"{path}.2", _LEAKY_SLOPE)


FAMILY = _DarkNetFamily()
