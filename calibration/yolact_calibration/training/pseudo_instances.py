"""Pseudo-instances: the objects that a model itself finds in an image, as targets for another model.

They take the place of annotated objects: a distillation compares the masks of both models on them, and pruning measures
how much the masks of these objects change.
them, and pruning asks how much the masks of these objects change.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import torch

from yolact_calibration.training import boxes
from yolact_runtime.option_numbers import MAX_INSTANCES, keep_between

__all__ = [
    "PseudoInstanceOptions",
    "PseudoInstances",
    "RawOutputs",
    "assemble_logit",
    "class_log_probability",
    "find_pseudo_instances",
]


class RawOutputs(Protocol):
    """Raw outputs of a YOLACT network for a batch of B images.

    P is the number of priors, C of classes with the background, K of prototypes.
    """

    @property
    def box_regression(self) -> torch.Tensor:
        """``(B, P, 4)`` box regressions."""

    @property
    def class_logit(self) -> torch.Tensor:
        """``(B, P, C)`` class logits."""

    @property
    def mask_coefficient(self) -> torch.Tensor:
        """``(B, P, K)`` mask coefficients."""

    @property
    def prototype(self) -> torch.Tensor:
        """``(B, K, Hp, Wp)`` prototypes."""


@dataclasses.dataclass(frozen=True)
class PseudoInstanceOptions:
    """Options that decide which objects count.

    Attributes:
        max_instances: Maximum number of objects in an image.
        min_score: Minimum probability of the best class; by default the runtime's threshold.
        max_iou: Maximum overlap of two objects, of any class: one object would otherwise count many times.
        variances: Factors of the centre and of the size regression.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    max_instances: int = 24
    min_score: float = 0.05
    max_iou: float = 0.5
    variances: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        keep_between(self, {"max_instances": (1, MAX_INSTANCES)}, {"min_score": (0, 1), "max_iou": (0, 1)})


@dataclasses.dataclass(frozen=True, eq=False)
class PseudoInstances:
    """Objects in B images, with places for N objects each.

    Attributes:
        prior: ``(B, N)`` int64 index of the prior that detects each object.
        valid: ``(B, N)`` bool flags; False fills up images with fewer objects.
        inside: ``(B, N, Hp, Wp)`` bool masks of the prototype pixels inside the box, which is one pixel wider as in
            training; all False if not valid.
        weight: ``(B, N)`` float32 weights: 1 / area of the box in these pixels, so that large objects do not count
            more; 0 if not valid.
    """

    prior: torch.Tensor
    valid: torch.Tensor
    inside: torch.Tensor
    weight: torch.Tensor


def class_log_probability(class_logit: torch.Tensor) -> torch.Tensor:
    """Compute the ``(B, C, P)`` float32 log-softmax of logits ``(B, P, C)``: classes before priors.

    This order takes an eighth of the time on a CPU, where a softmax over a short last axis is not vectorised.
    """
    return class_logit.float().transpose(1, 2).contiguous().log_softmax(dim=1)


def assemble_logit(raw: RawOutputs, prior: torch.Tensor) -> torch.Tensor:
    """Assemble the mask logits of some priors, not cropped.

    Args:
        raw: Raw outputs for B images.
        prior: ``(B, N)`` int64 indices of the priors.

    Returns:
        ``(B, N, Hp, Wp)`` float32 mask logits.
    """
    chosen = prior[..., None].expand(-1, -1, raw.mask_coefficient.shape[2])
    coefficient = raw.mask_coefficient.float().gather(1, chosen)
    return torch.einsum("bnk,bkhw->bnhw", coefficient, raw.prototype.float())


@torch.no_grad()
def find_pseudo_instances(
    raw: RawOutputs, class_probability: torch.Tensor, priors: torch.Tensor, options: PseudoInstanceOptions
) -> PseudoInstances:
    """Find the objects in which a model is most confident.

    Among the most confident priors, those are dropped that overlap a more confident one, kept or not (as in Fast NMS,
    but over all classes).

    Args:
        raw: Raw outputs of the model for B images.
        class_probability: ``(B, C, P)`` float32 softmax of its class logits.
        priors: ``(P, 4)`` float32 priors, centre-size, relative to the input, on the same device.
        options: Options that decide which objects count.
    """
    score = class_probability[:, 1:].amax(dim=1)
    num_candidates = min(4 * options.max_instances, score.shape[1])
    score, prior = score.topk(num_candidates, dim=1)
    regression = raw.box_regression.float().gather(1, prior[..., None].expand(-1, -1, 4))
    xyxy = boxes.decode(regression, priors[prior], options.variances)
    overlap = boxes.pairwise_iou(xyxy, xyxy).triu(diagonal=1).amax(dim=1)
    score = score.masked_fill((overlap > options.max_iou) | (score < options.min_score), 0.0)
    score, chosen = score.topk(min(options.max_instances, num_candidates), dim=1)
    prior = prior.gather(1, chosen)
    xyxy = xyxy.gather(1, chosen[..., None].expand(-1, -1, 4))
    height, width = raw.prototype.shape[2:]
    rows, columns = boxes.cell_mask(xyxy, height, width)
    valid = (score > 0) & rows.any(dim=2) & columns.any(dim=2)
    inside = (rows & valid[..., None])[..., :, None] & columns[..., None, :]
    size = ((xyxy[..., 2:] - xyxy[..., :2]) * xyxy.new_tensor([width, height])).clamp(min=1)
    weight = torch.where(valid, 1 / size.prod(dim=2), torch.zeros_like(score))
    return PseudoInstances(prior, valid, inside, weight)
