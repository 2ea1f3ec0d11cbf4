"""Pyramid, prototype network, prediction head and mask-IoU network as ONNX nodes."""

from __future__ import annotations

from typing import cast

from torch import nn

from yolact_export.errors import ExportError
from yolact_export.graph.builder import GraphBuilder, Tensor
from yolact_export.graph.layers import add, convolution, relu, reshape, resize
from yolact_export.model.fpn import Fpn
from yolact_export.model.mask_iou import MaskIouNet
from yolact_export.model.prediction_head import PredictionHead
from yolact_export.model.protonet import Protonet
from yolact_runtime.model.network_parts import (
    BOX_HEAD,
    CLASS_HEAD,
    FPN_DOWNSAMPLE,
    FPN_LATERAL,
    FPN_PREDICTION,
    FPN_UPSAMPLE,
    MASK_HEAD,
    MASK_IOU,
    PROTONET,
    UPFEATURE,
)

__all__ = ["LEVELS", "emit_head", "emit_mask_iou", "emit_protonet", "emit_pyramid"]

LEVELS = ("P3", "P4", "P5", "P6", "P7")


def emit_pyramid(graph: GraphBuilder, features: tuple[Tensor, Tensor, Tensor], fpn: Fpn) -> tuple[Tensor, ...]:
    """Write P3..P7 from C3, C4 and C5."""
    merged: list[Tensor] = []
    for index, feature in enumerate(reversed(features)):
        with graph.part(FPN_LATERAL):
            x = convolution(graph, feature, f"fpn.lat_layers.{index}", cast("nn.Conv2d", fpn.lat_layers[index]))
        if merged:
            level = LEVELS[2 - index]
            _, height, width = x.shape
            with graph.part(FPN_UPSAMPLE):
                y = resize(graph, merged[-1], (height, width), f"fpn.resize.{level}")
                x = add(graph, x, y, f"fpn.add.{level}")
        merged.append(x)
    outputs = []
    with graph.part(FPN_PREDICTION):
        for index, x in enumerate(merged):
            path = f"fpn.pred_layers.{index}"
            y = convolution(graph, x, path, cast("nn.Conv2d", fpn.pred_layers[index]))
            outputs.append(relu(graph, y, f"{path}.relu"))
    p5, p4, p3 = outputs
    with graph.part(FPN_DOWNSAMPLE):
        p6 = convolution(graph, p5, "fpn.downsample_layers.0", cast("nn.Conv2d", fpn.downsample_layers[0]))
        p7 = convolution(graph, p6, "fpn.downsample_layers.1", cast("nn.Conv2d", fpn.downsample_layers[1]))
    return p3, p4, p5, p6, p7


def emit_protonet(graph: GraphBuilder, p3: Tensor, protonet: Protonet) -> Tensor:
    """Write the output ``prototype``, ``(K, Hp, Wp)``."""
    with graph.part(PROTONET):
        return _protonet(graph, p3, protonet)


def _protonet(graph: GraphBuilder, p3: Tensor, protonet: Protonet) -> Tensor:
    x = p3
    for index, module in enumerate(protonet):
        path = f"proto_net.{index}"
        match module:
            case nn.Conv2d():
                x = convolution(graph, x, path, module)
            case nn.ReLU():
                x = relu(graph, x, path)
            case nn.Upsample():
                _, height, width = x.shape
                x = resize(graph, x, (2 * height, 2 * width), path)
            case nn.Identity():
                pass
            case _:
                raise ExportError(f"{path}: there is no ONNX form of {type(module).__name__}")
    return relu(graph, x, "proto_net.relu", output="prototype")


def emit_head(graph: GraphBuilder, levels: tuple[Tensor, ...], head: PredictionHead) -> tuple[Tensor, Tensor, Tensor]:
    """Write the outputs ``box_regression (P, 4)``, ``class_logit (P, C)`` and ``mask_coefficient (P, K)``."""
    path = "prediction_layers.0"
    boxes, logits, coefficients = [], [], []
    for level, x in zip(LEVELS, levels, strict=True):
        with graph.part(UPFEATURE):
            x = convolution(graph, x, f"{path}.upfeature.0", cast("nn.Conv2d", head.upfeature[0]), level=level)
            x = relu(graph, x, f"{path}.upfeature.1.{level}")
        with graph.part(BOX_HEAD):
            boxes.append(_rows(graph, x, f"{path}.bbox_layer", head.bbox_layer, 4, level))
        with graph.part(CLASS_HEAD):
            logits.append(_rows(graph, x, f"{path}.conf_layer", head.conf_layer, head.num_classes, level))
        with graph.part(MASK_HEAD):
            coefficients.append(_rows(graph, x, f"{path}.mask_layer", head.mask_layer, head.num_prototypes, level))
    with graph.part(BOX_HEAD):
        box = _concatenated(graph, boxes, f"{path}.bbox_layer.concat", "box_regression")
    with graph.part(CLASS_HEAD):
        logit = _concatenated(graph, logits, f"{path}.conf_layer.concat", "class_logit")
    with graph.part(MASK_HEAD):
        linear = _concatenated(graph, coefficients, f"{path}.mask_layer.concat")
        coefficient = graph.node("Tanh", f"{path}.mask_layer.tanh", [linear], linear.shape, output="mask_coefficient")
    return box, logit, coefficient


def _rows(graph: GraphBuilder, x: Tensor, path: str, module: nn.Conv2d, size: int, level: str) -> Tensor:
    """Write one row of `size` values per prior: rows, columns, then the priors of a cell."""
    y = convolution(graph, x, path, module, level=level)
    channels, height, width = y.shape
    y = graph.node("Transpose", f"{path}.{level}.transpose", [y], (height, width, channels), perm=(0, 2, 3, 1))
    return reshape(graph, y, (height * width * channels // size, size), f"{path}.{level}.rows")


def _concatenated(graph: GraphBuilder, parts: list[Tensor], name: str, output: str | None = None) -> Tensor:
    shape = (sum(part.shape[0] for part in parts), parts[0].shape[1])
    return graph.node("Concat", name, parts, shape, output=output, axis=1)


def emit_mask_iou(graph: GraphBuilder, mask: Tensor, network: MaskIouNet) -> Tensor:
    """Write the output ``mask_iou (C - 1,)`` of masks ``(1, Hp, Wp)``.

    Raises:
        ExportError: The masks are too small for five convolutions without padding.
    """
    with graph.part(MASK_IOU):
        return _mask_iou(graph, mask, network)


def _mask_iou(graph: GraphBuilder, mask: Tensor, network: MaskIouNet) -> Tensor:
    x = mask
    for index, module in enumerate(network.maskiou_net):
        path = f"maskiou_net.maskiou_net.{index}"
        x = convolution(graph, x, path, module) if isinstance(module, nn.Conv2d) else relu(graph, x, path)
        if min(x.shape[1:]) < 1:
            raise ExportError(
                f"prototypes of {mask.shape[1]} x {mask.shape[2]} are too small for mask re-scoring, which needs "
                f"63 x 63 (an input of 249 x 249): export with a larger --input-size"
            )
    x = graph.node("GlobalMaxPool", "maskiou_net.max", [x], (x.shape[0], 1, 1))
    return graph.node("Flatten", "maskiou_net.flatten", [x], (x.shape[0],), output="mask_iou", axis=1)
