"""The structure of a model, inferred from the keys and shapes of its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from yolact_export.errors import CheckpointError
from yolact_export.model.config import (
    BackboneConfig,
    DarkNetConfig,
    EfficientNetLite0Config,
    MobileNetV2Config,
    ResNetConfig,
    SmallResNetConfig,
)

__all__ = ["Structure", "describe_backbone", "infer_structure"]

Shapes = Mapping[str, tuple[int, ...]]

_HEAD = "prediction_layers.0"
_RESNET_STAGES = 4
_DARKNET_STAGES = 5
_DEPTHS: dict[tuple[int, ...], int] = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


@dataclasses.dataclass(frozen=True)
class Structure:
    """What tensors alone tell about a model.

    Attributes:
        backbone: Family, depth and deformable blocks.
        num_classes: C, with the background.
        num_prototypes: K.
        priors_per_cell: A.
        fpn_channels: Width of the pyramid.
        mask_rescoring: The mask-IoU network of YOLACT++ is there.
    """

    backbone: BackboneConfig
    num_classes: int
    num_prototypes: int
    priors_per_cell: int
    fpn_channels: int
    mask_rescoring: bool

    def describe(self) -> str:
        """One line for people."""
        extra = ", mask re-scoring" if self.mask_rescoring else ""
        return (
            f"{describe_backbone(self.backbone)}, pyramid of {self.fpn_channels} channels, {self.num_classes} classes "
            f"with the background, {self.num_prototypes} prototypes, {self.priors_per_cell} priors per cell{extra}"
        )


def describe_backbone(backbone: BackboneConfig) -> str:
    """Name of a backbone, for people."""
    match backbone:
        case ResNetConfig():
            depth = _DEPTHS.get(backbone.blocks)
            name = f"ResNet-{depth}" if depth else f"ResNet of {'-'.join(map(str, backbone.blocks))} blocks"
            count = sum(map(len, backbone.deformable))
            return f"{name} with {count} deformable blocks" if count else name
        case DarkNetConfig():
            return "DarkNet-53" if backbone == DarkNetConfig() else f"DarkNet of {backbone.blocks} blocks"
        case MobileNetV2Config():
            return "MobileNetV2"
        case EfficientNetLite0Config():
            return "EfficientNet-Lite0"
        case _:
            return f"small ResNet, width {backbone.width}, {'-'.join(map(str, backbone.blocks))} blocks"


def infer_structure(shapes: Shapes, source: str) -> Structure:
    """Recognise the structure.

    Args:
        shapes: Shape of every tensor, by its published key.
        source: The file, for messages.

    Raises:
        CheckpointError: The backbone is of no known family, or the shapes of the head contradict each other.
    """
    box, logit, coefficient = (
        _width(shapes, f"{_HEAD}.{layer}.weight", source) for layer in ("bbox_layer", "conf_layer", "mask_layer")
    )
    priors = box // 4
    if priors == 0 or box % 4 or logit % priors or coefficient % priors:
        raise CheckpointError(
            f"{source}: the prediction head has {box} box, {logit} class and {coefficient} coefficient channels; "
            f"with A priors per cell they are A * 4, A * classes and A * prototypes for one A. The tensors do not "
            f"belong together"
        )
    structure = Structure(
        backbone=_infer_backbone(shapes, source),
        num_classes=logit // priors,
        num_prototypes=coefficient // priors,
        priors_per_cell=priors,
        fpn_channels=_width(shapes, "fpn.lat_layers.0.weight", source),
        mask_rescoring=any(key.startswith("maskiou_net.") for key in shapes),
    )
    _check_counts(structure, shapes, source)
    return structure


def _width(shapes: Shapes, key: str, source: str) -> int:
    """Output channels of a convolution."""
    shape = shapes[key]
    if len(shape) != 4 or 0 in shape:
        raise CheckpointError(
            f"{source}: {key} has the shape {shape}; a convolution's weight has four dimensions, none empty"
        )
    return shape[0]


def _check_counts(structure: Structure, shapes: Shapes, source: str) -> None:
    prototypes = _width(shapes, "proto_net.10.weight", source)
    if prototypes != structure.num_prototypes:
        raise CheckpointError(
            f"{source}: the head gives {structure.num_prototypes} coefficients per prior and the prototype network "
            f"{prototypes} prototypes; they must be as many"
        )
    semantic = structure.num_classes - 1
    if "semantic_seg_conv.weight" in shapes:
        semantic = _width(shapes, "semantic_seg_conv.weight", source)
    if structure.num_classes < 2 or semantic != structure.num_classes - 1:
        raise CheckpointError(
            f"{source}: the head has {structure.num_classes} classes with the background and semantic_seg_conv "
            f"{semantic} without it; one less is expected"
        )


def _infer_backbone(shapes: Shapes, source: str) -> BackboneConfig:
    if "backbone._preconv.0.weight" in shapes:
        # The first element of a stage is its stride-2 unit, not a residual block.
        counts = _blocks_per_stage(shapes, _DARKNET_STAGES)
        return DarkNetConfig(tuple(max(count - 1, 0) for count in counts))
    if "backbone.conv_stem.weight" in shapes:
        return EfficientNetLite0Config()
    if len(shapes.get("backbone.layers.0.0.weight", ())) == 4:
        return MobileNetV2Config()
    if "backbone.conv1.weight" in shapes:
        blocks = _blocks_per_stage(shapes, _RESNET_STAGES)
        if "backbone.layers.0.0.conv3.weight" in shapes:
            return ResNetConfig(blocks, _deformable_blocks(shapes, blocks))
        return SmallResNetConfig(_width(shapes, "backbone.conv1.weight", source), blocks)
    found = sorted({".".join(key.split(".")[:3]) for key in shapes if key.startswith("backbone.")})
    raise CheckpointError(
        f"{source}: the backbone is none of ResNet, DarkNet-53, MobileNetV2, EfficientNet-Lite0; its keys begin with "
        f"{', '.join(found[:5]) or 'nothing: there is no backbone in the file'}"
    )


def _blocks_per_stage(shapes: Shapes, num_stages: int) -> tuple[int, ...]:
    counts = [0] * num_stages
    for key in shapes:
        parts = key.split(".")
        if parts[:2] == ["backbone", "layers"] and "".join(parts[2:4]).isdecimal() and len(parts) > 4:
            stage = int(parts[2])
            if stage < num_stages:
                counts[stage] = max(counts[stage], int(parts[3]) + 1)
    return tuple(counts)


def _deformable_blocks(shapes: Shapes, blocks: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(
            block
            for block in range(count)
            if f"backbone.layers.{stage}.{block}.conv2.conv_offset_mask.weight" in shapes
        )
        for stage, count in enumerate(blocks)
    )
