"""ResNet of bottleneck blocks, the backbone of the published models, with deformable blocks for YOLACT++."""

from __future__ import annotations

import dataclasses
import re

from torch import nn

from yolact_export.model.backbone import BackboneFamily, Features, ImageNetWeights, Shapes, count_blocks
from yolact_export.model.backbones.residual_stages import FourStages, ResidualBlock, emit_four_stages, make_shortcut
from yolact_export.model.config import BackboneConfig, YolactConfig, plus_scales, scales_for_size
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.layer_writer import LayerWriter, Tensor

__all__ = ["FAMILY", "Bottleneck", "ResNet", "ResNetConfig"]

_EXPANSION = 4
_DEPTHS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
# Priors per cell of YOLACT++: three scales and three aspect ratios.
_PLUS_PRIORS = 9


@dataclasses.dataclass(frozen=True)
class ResNetConfig(BackboneConfig):
    """A ResNet of bottleneck blocks.

    Attributes:
        blocks: Bottleneck blocks of each of the four stages.
        deformable: Indices of the blocks whose 3x3 convolution is deformable (YOLACT++), for each stage.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    deformable: tuple[tuple[int, ...], ...] = ((), (), (), ())


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 with a shortcut. The stride is on the 3x3 convolution, which may be deformable."""

    num_convolutions = 3

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
        self.downsample = make_shortcut(in_channels, out_channels, stride)


class ResNet(FourStages):
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


_R50 = ResNetConfig()
_R101 = ResNetConfig((3, 4, 23, 3))
_R50_DEFORMABLE = ResNetConfig(_R50.blocks, ((), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5), (0, 1, 2)))
_R101_DEFORMABLE = ResNetConfig(_R101.blocks, ((), (0, 3), (0, 3, 6, 9, 12, 15, 18, 21), (0,)))


def _plus(name: str, backbone: ResNetConfig) -> YolactConfig:
    return YolactConfig(name, backbone, prior_scales_px=plus_scales(), square_priors=False, mask_rescoring=True)


def _at_size(name: str, size: int) -> YolactConfig:
    return YolactConfig(name, _R101, input_height=size, input_width=size, prior_scales_px=scales_for_size(size))


class _ResNetFamily(BackboneFamily[ResNetConfig, ResNet]):
    name = "ResNet"
    config_type = ResNetConfig
    module_type = ResNet
    # Of YOLACT and YOLACT++, and the last two of YolactEdge.
    configs = (
        YolactConfig("yolact_resnet50", _R50),
        YolactConfig("yolact_base", _R101),
        _at_size("yolact_im400", 400),
        _at_size("yolact_im700", 700),
        YolactConfig(
            "yolact_resnet50_pascal",
            _R50,
            num_classes=21,
            prior_scales_px=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
            square_priors=False,
        ),
        _plus("yolact_plus_resnet50", _R50_DEFORMABLE),
        _plus("yolact_plus_base", _R101_DEFORMABLE),
        YolactConfig("yolact_edge", _R101),
        YolactConfig("yolact_edge_resnet50", _R50),
    )
    imagenet = ImageNetWeights(
        origin="a torchvision ResNet",
        sign="layer1.0.conv1.weight",
        classifier=("fc.",),
        # ``layer1`` of torchvision is ``layers.0`` of the published checkpoints.
        rename=lambda key: re.sub(r"^layer(\d)", lambda match: f"layers.{int(match[1]) - 1}", key),
    )

    def build(self, config: ResNetConfig) -> ResNet:
        return ResNet(config)

    def infer(self, shapes: Shapes) -> ResNetConfig | None:
        if "conv1.weight" not in shapes or "layers.0.0.conv3.weight" not in shapes:
            return None
        blocks = count_blocks(shapes, 4)
        deformable = tuple(
            tuple(block for block in range(count) if f"layers.{stage}.{block}.conv2.conv_offset_mask.weight" in shapes)
            for stage, count in enumerate(blocks)
        )
        return ResNetConfig(blocks, deformable)

    def emit(self, graph: LayerWriter, image: Tensor, backbone: ResNet) -> Features:
        return emit_four_stages(graph, image, backbone)

    def describe(self, config: ResNetConfig) -> str:
        depth = _DEPTHS.get(config.blocks)
        name = f"ResNet-{depth}" if depth else f"ResNet of {'-'.join(map(str, config.blocks))} blocks"
        count = sum(map(len, config.deformable))
        return f"{name} with {count} deformable blocks" if count else name

    def is_same_network(self, expected: ResNetConfig, found: ResNetConfig) -> bool:
        # A YOLACT++ trained with fewer deformable blocks is still one.
        return expected.blocks == found.blocks

    def likely_config(self, config: ResNetConfig, priors_per_cell: int) -> YolactConfig:
        depth = "resnet50" if config.blocks == _R50.blocks else "base"
        name = f"yolact_plus_{depth}" if priors_per_cell == _PLUS_PRIORS else f"yolact_{depth}"
        return next(known for known in self.configs if known.name == name)


FAMILY = _ResNetFamily()
