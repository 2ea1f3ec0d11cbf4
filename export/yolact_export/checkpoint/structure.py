"""The structure of a model, inferred from the keys and shapes of its tensors."""

from __future__ import annotations

import dataclasses

from yolact_export.errors import CheckpointError, ShapeError
from yolact_export.model.backbone import Shapes, convolution_width
from yolact_export.model.config import BackboneConfig
from yolact_export.model.registry import families, family_of

__all__ = ["Structure", "describe_backbone", "infer_structure"]

_HEAD = "prediction_layers.0"
_BACKBONE = "backbone."


@dataclasses.dataclass(frozen=True)
class Structure:
    """Structure of a model, as far as its tensors determine it.

    Attributes:
        backbone: Family, depth and deformable blocks of the backbone.
        num_classes: Number of classes including the background.
        num_prototypes: Number of prototypes.
        priors_per_cell: Number of priors per cell of a feature map.
        fpn_channels: Number of channels of the pyramid.
        mask_rescoring: Whether the mask-IoU network of YOLACT++ is present.
    """

    backbone: BackboneConfig
    num_classes: int
    num_prototypes: int
    priors_per_cell: int
    fpn_channels: int
    mask_rescoring: bool

    def describe(self) -> str:
        """Return a readable line that describes the structure."""
        extra = ", mask re-scoring" if self.mask_rescoring else ""
        return (
            f"{describe_backbone(self.backbone)}, pyramid of {self.fpn_channels} channels, {self.num_classes} classes "
            f"with the background, {self.num_prototypes} prototypes, {self.priors_per_cell} priors per cell{extra}"
        )


def describe_backbone(backbone: BackboneConfig) -> str:
    """Return the readable name of a backbone."""
    return family_of(backbone).describe(backbone)


def infer_structure(shapes: Shapes, source: str) -> Structure:
    """Infer the structure of a model.

    Args:
        shapes: Shape of every tensor, by its published key.
        source: Name of the file, for messages.

    Raises:
        CheckpointError: The backbone is of an unknown family, or the shapes of the head contradict each other.
    """
    box, logit, coefficient = (
        _width(shapes, f"{_HEAD}.{layer}.weight", source) for layer in ("bbox_layer", "conf_layer", "mask_layer")
    )
    priors = box // 4
    if priors == 0 or box % 4 or logit % priors or coefficient % priors:
        raise CheckpointError(
            f"{source}: the prediction head has {box} box, {logit} class and {coefficient} coefficient channels; with "
            f"A priors per cell they must be A * 4, A * classes and A * prototypes. The tensors do not fit "
            f"together"
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
    try:
        return convolution_width(shapes, key)
    except ShapeError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _check_counts(structure: Structure, shapes: Shapes, source: str) -> None:
    prototypes = _width(shapes, "proto_net.10.weight", source)
    if prototypes != structure.num_prototypes:
        raise CheckpointError(
            f"{source}: the head gives {structure.num_prototypes} coefficients per prior and the prototype network "
            f"{prototypes} prototypes; the numbers must be equal"
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
    inner = {key.removeprefix(_BACKBONE): shape for key, shape in shapes.items() if key.startswith(_BACKBONE)}
    recognised: dict[str, BackboneConfig] = {}
    for family in families():
        try:
            config: BackboneConfig | None = family.infer(inner)
        except ShapeError as error:
            raise CheckpointError(f"{source}: {_BACKBONE}{error}") from error
        if config is not None:
            recognised[family.name] = config
    if len(recognised) > 1:
        raise CheckpointError(
            f"{source}: the backbone is recognised by {' and by '.join(recognised)}; their infer() must tell each "
            f"other's tensors apart"
        )
    if recognised:
        return next(iter(recognised.values()))
    found = sorted({".".join(key.split(".")[:2]) for key in inner})
    beginnings = ", ".join(_BACKBONE + key for key in found[:5])
    raise CheckpointError(
        f"{source}: the backbone is none of {', '.join(family.name for family in families())}; its keys begin with "
        f"{beginnings or 'nothing: the file has no backbone'}"
    )
