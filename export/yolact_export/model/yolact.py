"""The network: image to raw outputs, without any detection logic."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from yolact_export.model.config import YolactConfig
from yolact_export.model.deformable import ModulatedDeformConv2d
from yolact_export.model.fpn import Fpn, PyramidLevels
from yolact_export.model.mask_iou import MaskIouNet
from yolact_export.model.prediction_head import PredictionHead
from yolact_export.model.protonet import Protonet
from yolact_export.model.registry import family_of

__all__ = ["RawOutput", "Yolact", "create_model"]


class RawOutput(NamedTuple):
    """Raw outputs of the network for a batch of images; P counts the priors of all levels, P3 first.

    Attributes:
        box_regression: ``(B, P, 4)`` offsets to the priors.
        class_logit: ``(B, P, C)`` logits before the softmax; class 0 is the background.
        mask_coefficient: ``(B, P, K)`` coefficients after tanh.
        prototype: ``(B, K, Hp, Wp)`` prototypes after ReLU, channels first.
    """

    box_regression: torch.Tensor
    class_logit: torch.Tensor
    mask_coefficient: torch.Tensor
    prototype: torch.Tensor


class Yolact(nn.Module):
    """YOLACT or YOLACT++; the state-dict keys are those of the published checkpoints.

    Attributes:
        config: Configuration that the model was built from. The channel widths of a pruned checkpoint may be smaller.
        semantic_seg_conv: Training aid on P3; never computed by :meth:`forward`.
        maskiou_net: Mask-IoU network under its published name; see :attr:`mask_iou`.
    """

    def __init__(self, config: YolactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.fpn_channels
        self.backbone = family_of(config.backbone).build(config.backbone)
        self.fpn = Fpn(self.backbone.out_channels, width)
        self.proto_net = Protonet(width, config.num_prototypes)
        head = PredictionHead(width, config.priors_per_cell, config.num_classes, config.num_prototypes)
        self.prediction_layers = nn.ModuleList([head])
        self.semantic_seg_conv = nn.Conv2d(width, config.num_classes - 1, 1)
        self.maskiou_net = MaskIouNet(config.num_classes - 1) if config.mask_rescoring else None

    @property
    def mask_iou(self) -> MaskIouNet | None:
        """The mask-IoU network of a YOLACT++ model."""
        return self.maskiou_net

    @property
    def output_layers(self) -> tuple[str, ...]:
        """Names of the convolutions that write outputs, whose channels have a meaning of their own."""
        head = [f"prediction_layers.0.{layer}" for layer in ("bbox_layer", "conf_layer", "mask_layer")]
        last = max(index for index, module in enumerate(self.proto_net) if isinstance(module, nn.Conv2d))
        return (*head, f"proto_net.{last}", "semantic_seg_conv")

    def features(self, image: torch.Tensor) -> PyramidLevels:
        """Compute P3..P7 from a normalised ``image (B, 3, H, W)`` float32."""
        levels: PyramidLevels = self.fpn(self.backbone(image))
        return levels

    def predict(self, levels: PyramidLevels) -> RawOutput:
        """Compute raw outputs from the levels of the pyramid."""
        head = self.prediction_layers[0]
        box, logit, coefficient = (torch.cat(parts, dim=1) for parts in zip(*map(head, levels), strict=True))
        return RawOutput(box, logit, coefficient, self.proto_net(levels[0]))

    def semantic_logit(self, levels: PyramidLevels) -> torch.Tensor:
        """Compute logits ``(B, C - 1, H3, W3)`` of the foreground classes per pixel, for a training loss."""
        logit: torch.Tensor = self.semantic_seg_conv(levels[0])
        return logit

    def forward(self, image: torch.Tensor) -> RawOutput:
        """Compute raw outputs from a normalised ``image (B, 3, H, W)`` float32, of any size."""
        return self.predict(self.features(image))


def create_model(config: YolactConfig) -> Yolact:
    """Create a model with fresh random weights, in training mode, from PyTorch's global random generator.

    As upstream, everything but the backbone starts with Xavier weights and zero biases. The weights of a deformable
    block start as those of a plain convolution.
    """
    model = Yolact(config)
    parts = (model.fpn, model.proto_net, model.prediction_layers, model.semantic_seg_conv, model.maskiou_net)
    for part in parts:
        for module in part.modules() if part is not None else ():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    for module in model.backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in model.backbone.modules():
        if isinstance(module, ModulatedDeformConv2d):
            module.reset_parameters()
    return model
