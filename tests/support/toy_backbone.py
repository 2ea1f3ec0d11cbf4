"""A family of backbones that is defined outside of the package: three strided convolutions and a pool."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional

from yolact_export.model.backbone import Backbone, BackboneFamily, Features, ImageNetWeights, Shapes, convolution_width
from yolact_export.model.config import BackboneConfig, YolactConfig
from yolact_export.model.layer_writer import LayerWriter, Tensor

__all__ = ["FAMILY", "ToyBackbone", "ToyConfig"]


@dataclasses.dataclass(frozen=True)
class ToyConfig(BackboneConfig):
    width: int = 32


class ToyBackbone(Backbone):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        width = config.width
        self.toy_stem = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.steps = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(3))
        self.out_channels = (width, width, width)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.relu6(self.stem_norm(self.toy_stem(image)))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        features = []
        for step in self.steps:
            x = functional.leaky_relu(step(x), 0.25)
            features.append(x)
        c3, c4, c5 = features
        return c3, c4, c5


class _ToyFamily(BackboneFamily[ToyConfig, ToyBackbone]):
    name = "toy backbone"
    config_type = ToyConfig
    module_type = ToyBackbone
    configs = (
        YolactConfig(
            "yolact_toy",
            ToyConfig(),
            num_classes=3,
            num_prototypes=8,
            fpn_channels=32,
            input_height=128,
            input_width=96,
        ),
    )
    imagenet = ImageNetWeights("a toy classifier", "toy.sign", ("toy.",), lambda key: key.removeprefix("net."))

    def build(self, config: ToyConfig) -> ToyBackbone:
        return ToyBackbone(config)

    def infer(self, shapes: Shapes) -> ToyConfig | None:
        return ToyConfig(convolution_width(shapes, "toy_stem.weight")) if "toy_stem.weight" in shapes else None

    def emit(self, graph: LayerWriter, image: Tensor, backbone: ToyBackbone) -> Features:
        with graph.part("stem"):
            x = graph.relu6(graph.convolution(image, "toy_stem", backbone.toy_stem, backbone.stem_norm), "relu")
            x = graph.max_pool(x, "pool")
        features = []
        for index, step in enumerate(backbone.steps):
            assert isinstance(step, nn.Conv2d)
            x = graph.leaky_relu(graph.convolution(x, f"steps.{index}", step), f"steps.{index}.relu", 0.25)
            features.append(x)
        c3, c4, c5 = features
        return c3, c4, c5

    def describe(self, config: ToyConfig) -> str:
        return f"toy backbone, width {config.width}"


FAMILY = _ToyFamily()
