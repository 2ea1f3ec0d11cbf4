"""The choice of a backbone by its configuration."""

from __future__ import annotations

from yolact_export.model.backbone import Backbone
from yolact_export.model.config import (
    BackboneConfig,
    DarkNetConfig,
    EfficientNetLite0Config,
    MobileNetV2Config,
    ResNetConfig,
)
from yolact_export.model.darknet import DarkNet
from yolact_export.model.efficientnet_lite import EfficientNetLite0
from yolact_export.model.mobilenet import MobileNetV2
from yolact_export.model.resnet import ResNet, SmallResNet

__all__ = ["make_backbone"]


def make_backbone(config: BackboneConfig) -> Backbone:
    """A backbone of that structure with fresh random weights."""
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
