"""What the pyramid asks of a backbone, and the choice of one."""

from __future__ import annotations

import abc

import torch
from torch import nn

from yolact_export.model.config import (
    BackboneConfig,
    DarkNetConfig,
    EfficientNetLite0Config,
    MobileNetV2Config,
    ResNetConfig,
)

__all__ = ["Backbone", "make_backbone"]


class Backbone(nn.Module, abc.ABC):
    """Turns an image into feature maps at strides 8, 16 and 32.

    Attributes:
        out_channels: Channels of the three maps, finest first, as the configuration gives them. A pruned checkpoint
            may narrow the layers of a model that exists; this stays what it was.
    """

    out_channels: tuple[int, int, int]

    @abc.abstractmethod
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features C3, C4 and C5 of a normalised ``image (B, 3, H, W)``; every stride rounds up."""


def make_backbone(config: BackboneConfig) -> Backbone:
    """A backbone of that structure with fresh random weights."""
    # The families import this module for its base class.
    from yolact_export.model.darknet import DarkNet
    from yolact_export.model.efficientnet_lite import EfficientNetLite0
    from yolact_export.model.mobilenet import MobileNetV2
    from yolact_export.model.resnet import ResNet, SmallResNet

    match config:
        case ResNetConfig():
            return ResNet(config)
        case DarkNetConfig():
            return DarkNet(config)
        case MobileNetV2Config():
            return MobileNetV2()
        case EfficientNetLite0Config():
            return EfficientNetLite0()
        case _:
            return SmallResNet(config)
