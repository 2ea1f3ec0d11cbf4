"""The backbones as ONNX nodes."""

from __future__ import annotations

from typing import cast

from torch import nn

from yolact_export.errors import ExportError
from yolact_export.graph.builder import GraphBuilder, Tensor
from yolact_export.graph.deformable import DeformConvForm, deformable_convolution
from yolact_export.graph.layers import add, convolution, leaky_relu, max_pool, relu, relu6
from yolact_export.model.backbone import Backbone
from yolact_export.model.config import Normalisation
from yolact_export.model.darknet import LEAKY_SLOPE, DarkNet, DarkNetBlock
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.efficientnet_lite import EfficientNetLite0, MobileBlock
from yolact_export.model.mobilenet import InvertedResidual, MobileNetV2
from yolact_export.model.resnet import BasicBlock, Bottleneck, ResNet, SmallResNet

__all__ = ["emit_backbone"]

Features = tuple[Tensor, Tensor, Tensor]
_PATH = "backbone"


def emit_backbone(
    graph: GraphBuilder,
    image: Tensor,
    backbone: Backbone,
    form: DeformConvForm,
    normalisation: Normalisation | None,
) -> Features:
    """C3, C4 and C5 of an image.

    Args:
        graph: Extended.
        image: ``(3, H, W)``.
        backbone: In eval mode.
        form: How deformable convolutions are written.
        normalisation: Folded into the first convolution, where the image is not normalised.

    Raises:
        ExportError: There is no ONNX form of that backbone.
    """
    match backbone:
        case ResNet() | SmallResNet():
            return _resnet(graph, image, backbone, form, normalisation)
        case DarkNet():
            return _darknet(graph, image, backbone, normalisation)
        case MobileNetV2():
            return _mobilenet(graph, image, backbone, normalisation)
        case EfficientNetLite0():
            return _lite0(graph, image, backbone, normalisation)
        case _:
            raise ExportError(f"no ONNX form is known of the backbone {type(backbone).__name__}")


def _resnet(
    graph: GraphBuilder,
    image: Tensor,
    backbone: ResNet | SmallResNet,
    form: DeformConvForm,
    normalisation: Normalisation | None,
) -> Features:
    x = convolution(graph, image, f"{_PATH}.conv1", backbone.conv1, backbone.bn1, normalisation=normalisation)
    x = max_pool(graph, relu(graph, x, f"{_PATH}.relu"), f"{_PATH}.maxpool")
    features = []
    for stage, blocks in enumerate(backbone.layers):
        for index, block in enumerate(cast("nn.Sequential", blocks)):
            path = f"{_PATH}.layers.{stage}.{index}"
            y = (
                _basic(graph, x, block, path)
                if isinstance(block, BasicBlock)
                else _bottleneck(graph, x, block, path, form)
            )
            y = add(graph, y, _shortcut(graph, x, block, path), f"{path}.add")
            x = relu(graph, y, f"{path}.relu")
        features.append(x)
    return features[1], features[2], features[3]


def _bottleneck(graph: GraphBuilder, x: Tensor, block: nn.Module, path: str, form: DeformConvForm) -> Tensor:
    assert isinstance(block, Bottleneck)
    y = relu(graph, convolution(graph, x, f"{path}.conv1", block.conv1, block.bn1), f"{path}.relu1")
    if isinstance(block.conv2, ModulatedDeformConv2d):
        y = deformable_convolution(graph, y, f"{path}.conv2", block.conv2, block.bn2, form)
    else:
        y = convolution(graph, y, f"{path}.conv2", block.conv2, block.bn2)
    return convolution(graph, relu(graph, y, f"{path}.relu2"), f"{path}.conv3", block.conv3, block.bn3)


def _basic(graph: GraphBuilder, x: Tensor, block: BasicBlock, path: str) -> Tensor:
    y = relu(graph, convolution(graph, x, f"{path}.conv1", block.conv1, block.bn1), f"{path}.relu1")
    return convolution(graph, y, f"{path}.conv2", block.conv2, block.bn2)


def _shortcut(graph: GraphBuilder, x: Tensor, block: nn.Module, path: str) -> Tensor:
    assert isinstance(block, Bottleneck | BasicBlock)
    if block.downsample is None:
        return x
    return _conv_bn(graph, x, f"{path}.downsample", block.downsample)


def _conv_bn(
    graph: GraphBuilder, x: Tensor, path: str, unit: nn.Module, normalisation: Normalisation | None = None
) -> Tensor:
    """The first two elements of a Sequential, a convolution and its batch norm."""
    conv, batch_norm = list(unit.children())[:2]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(batch_norm, nn.BatchNorm2d)
    return convolution(graph, x, f"{path}.0", conv, batch_norm, normalisation=normalisation)


def _darknet(graph: GraphBuilder, image: Tensor, backbone: DarkNet, normalisation: Normalisation | None) -> Features:
    def unit(x: Tensor, path: str, module: nn.Module, norm: Normalisation | None = None) -> Tensor:
        return leaky_relu(graph, _conv_bn(graph, x, path, module, norm), f"{path}.2", LEAKY_SLOPE)

    x = unit(image, f"{_PATH}._preconv", backbone.stem, normalisation)
    features = []
    for stage, blocks in enumerate(backbone.layers):
        for index, block in enumerate(cast("nn.Sequential", blocks)):
            path = f"{_PATH}.layers.{stage}.{index}"
            if isinstance(block, DarkNetBlock):
                y = unit(x, f"{path}.conv1", block.conv1)
                x = add(graph, unit(y, f"{path}.conv2", block.conv2), x, f"{path}.add")
            else:
                x = unit(x, path, block)
        features.append(x)
    return features[-3], features[-2], features[-1]


def _mobilenet(
    graph: GraphBuilder, image: Tensor, backbone: MobileNetV2, normalisation: Normalisation | None
) -> Features:
    def unit(x: Tensor, path: str, module: nn.Module, norm: Normalisation | None = None) -> Tensor:
        return relu6(graph, _conv_bn(graph, x, path, module, norm), f"{path}.2")

    x = unit(image, f"{_PATH}.layers.0", backbone.layers[0], normalisation)
    features = [x]
    for group, blocks in enumerate(list(backbone.layers)[1 : backbone.selected[-1] + 1], start=1):
        for index, block in enumerate(cast("nn.Sequential", blocks)):
            assert isinstance(block, InvertedResidual)
            path = f"{_PATH}.layers.{group}.{index}"
            *units, project, batch_norm = block.conv
            y = x
            for position, module in enumerate(units):
                y = unit(y, f"{path}.conv.{position}", module)
            assert isinstance(project, nn.Conv2d)
            assert isinstance(batch_norm, nn.BatchNorm2d)
            y = convolution(graph, y, f"{path}.conv.{len(units)}", project, batch_norm)
            x = add(graph, y, x, f"{path}.add") if block.has_shortcut else y
        features.append(x)
    c3, c4, c5 = (features[index] for index in backbone.selected)
    return c3, c4, c5


def _lite0(
    graph: GraphBuilder, image: Tensor, backbone: EfficientNetLite0, normalisation: Normalisation | None
) -> Features:
    x = convolution(graph, image, f"{_PATH}.conv_stem", backbone.conv_stem, backbone.bn0, normalisation=normalisation)
    x = relu6(graph, x, f"{_PATH}.relu")
    features = []
    for index, block in enumerate(backbone.blocks):
        assert isinstance(block, MobileBlock)
        path = f"{_PATH}.blocks.{index}"
        y = x
        if block.expand_conv is not None:
            y = relu6(
                graph, convolution(graph, y, f"{path}.expand_conv", block.expand_conv, block.bn0), f"{path}.relu0"
            )
        y = convolution(graph, y, f"{path}.depthwise_conv", block.depthwise_conv, block.bn1)
        y = convolution(graph, relu6(graph, y, f"{path}.relu1"), f"{path}.project_conv", block.project_conv, block.bn2)
        x = add(graph, y, x, f"{path}.add") if block.has_shortcut else y
        features.append(x)
    c3, c4, c5 = (features[index] for index in backbone.selected)
    return c3, c4, c5
