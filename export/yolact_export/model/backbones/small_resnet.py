"""A small ResNet of basic blocks for weak hardware; a backbone of this project, with no published weights."""

from __future__ import annotations

import dataclasses
from typing import cast

from torch import nn

from yolact_export.model.backbone import BackboneFamily, Features, Shapes, convolution_width, count_blocks
from yolact_export.model.backbones.residual_stages import FourStages, ResidualBlock, emit_four_stages, make_shortcut
from yolact_export.model.config import BackboneConfig, YolactConfig
from yolact_export.model.layer_writer import LayerWriter, Tensor

__all__ = ["FAMILY", "BasicBlock", "SmallResNet", "SmallResNetConfig"]


@dataclasses.dataclass(frozen=True)
class SmallResNetConfig(BackboneConfig):
    """A small ResNet of basic blocks.

    Attributes:
        width: Channels of the first stage; the others have 2, 4 and 8 times as many.
        blocks: Basic blocks of each of the four stages; (2, 2, 2, 2) is the depth of ResNet-18.
    """

    width: int = 32
    blocks: tuple[int, ...] = (2, 2, 2, 2)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions with a shortcut; the stride is on the first."""

    num_convolutions = 2

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = make_shortcut(in_channels, channels, stride)


class SmallResNet(FourStages):
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


class _SmallResNetFamily(BackboneFamily[SmallResNetConfig, SmallResNet]):
    name = "small ResNet"
    config_type = SmallResNetConfig
    module_type = SmallResNet
    configs = (
        YolactConfig("yolact_small", SmallResNetConfig(), fpn_channels=96, square_priors=False),
        YolactConfig(
            "yolact_tiny",
            SmallResNetConfig(16, (2, 2, 2, 1)),
            num_prototypes=16,
            fpn_channels=64,
            input_height=256,
            input_width=256,
            prior_scales_px=((16.0,), (32.0,), (64.0,), (110.0,), (180.0,)),
            square_priors=False,
        ),
    )

    def build(self, config: SmallResNetConfig) -> SmallResNet:
        return SmallResNet(config)

    def infer(self, shapes: Shapes) -> SmallResNetConfig | None:
        if "conv1.weight" not in shapes or "layers.0.0.conv3.weight" in shapes:
            return None
        return SmallResNetConfig(convolution_width(shapes, "conv1.weight"), count_blocks(shapes, 4))

    def emit(self, graph: LayerWriter, image: Tensor, backbone: SmallResNet) -> Features:
        return emit_four_stages(graph, image, backbone)

    def describe(self, config: SmallResNetConfig) -> str:
        return f"small ResNet, width {config.width}, {'-'.join(map(str, config.blocks))} blocks"

    def is_same_network(self, expected: SmallResNetConfig, found: SmallResNetConfig) -> bool:  # noqa: ARG002
        # Width and depth are free; the tensors tell them.
        return True


FAMILY = _SmallResNetFamily()
