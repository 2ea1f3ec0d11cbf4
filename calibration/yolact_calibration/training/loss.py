"""The training loss of YOLACT: boxes, classes, masks, and a semantic term that only training uses.

Source: the YOLACT paper, section 4.1, the YOLACT++ paper, section 6, for the mask-IoU term, and the published training
settings. Every term is normalised as in that code: boxes, classes, masks and mask IoUs by the number of positive priors
of the batch, the semantic term by the number of images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.nn import functional

from yolact_calibration.data.batch import Batch, Truth
from yolact_calibration.errors import DatasetError
from yolact_calibration.training import boxes
from yolact_calibration.training.prior_matching import Matches, MatchingOptions, match_priors
from yolact_runtime.option_numbers import MAX_INSTANCES, MAX_WEIGHT, keep_between

__all__ = ["AssembledMasks", "LossOptions", "TrainableYolact", "YolactLoss", "crop_outside"]

_INFINITY = float("inf")
# Minimum area in pixels of the prototypes: the published ``discard_mask_area``.
_MIN_MASK_AREA = 25


class TrainableYolact(Protocol):
    """Interface of a model that the loss requires."""

    training: bool

    @property
    def mask_iou(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Mask-IoU network of a YOLACT++ model, or None."""

    def features(self, image: torch.Tensor) -> Any:
        """Compute the pyramid levels."""

    def predict(self, levels: Any) -> Any:
        """Compute raw outputs with attributes ``box_regression, class_logit, mask_coefficient, prototype``."""

    def semantic_logit(self, levels: Any) -> torch.Tensor:
        """Compute ``(B, C - 1, H3, W3)`` semantic logits."""


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """Weights and limits of the published training.

    Attributes:
        box_weight: Weight of the box term.
        class_weight: Weight of the class term.
        mask_weight: Weight of the mask term.
        semantic_weight: Weight of the semantic term.
        mask_iou_weight: Weight of the mask-IoU term, which only YOLACT++ has.
        negatives_per_positive: Number of background priors for each positive one that hard-negative mining keeps.
        max_masks: Maximum number of positive priors of an image whose masks are computed; of more, a random sample
            stands for all.
        matching: Thresholds of the matching.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    box_weight: float = 1.5
    class_weight: float = 1.0
    mask_weight: float = 6.125
    semantic_weight: float = 1.0
    mask_iou_weight: float = 25.0
    negatives_per_positive: int = 3
    max_masks: int = 100
    matching: MatchingOptions = dataclasses.field(default_factory=MatchingOptions)

    def __post_init__(self) -> None:
        weights = [field.name for field in dataclasses.fields(self) if field.name.endswith("_weight")]
        keep_between(
            self,
            {"negatives_per_positive": (0, MAX_INSTANCES), "max_masks": (1, MAX_INSTANCES)},
            dict.fromkeys(weights, (0, MAX_WEIGHT)),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class AssembledMasks:
    """Masks of (a sample of) the positive priors of one image, with their truth.

    Attributes:
        logit: ``(n, Hp, Wp)`` logits, not cropped.
        target: ``(n, Hp, Wp)`` true masks, zeros and ones.
        xyxy: ``(n, 4)`` true boxes, relative.
        class_id: ``(n,)`` int64 classes from 0.
        weight: Number of positive priors that each mask stands for.
    """

    logit: torch.Tensor
    target: torch.Tensor
    xyxy: torch.Tensor
    class_id: torch.Tensor
    weight: float


class YolactLoss:
    """Objective of a training with labels.

    Args:
        priors: ``(P, 4)`` float32 priors of the trained model, centre-size, relative to the input.
        options: Weights and limits.
    """

    def __init__(self, priors: torch.Tensor, options: LossOptions | None = None) -> None:
        self.priors = priors
        self.options = options or LossOptions()

    def __call__(self, model: TrainableYolact, batch: Batch) -> dict[str, torch.Tensor]:
        """Compute the weighted terms ``box``, ``class``, ``mask``, ``semantic``: scalars whose sum is to be minimised.

        A YOLACT++ model has the term ``mask_iou``, too.

        Raises:
            DatasetError: The batch has no labels.
        """
        if len(batch.truths) != len(batch.image):
            raise DatasetError(
                f"a batch of {len(batch.image)} images with the truth of {len(batch.truths)}: this loss needs labels"
            )
        levels = model.features(batch.image)
        raw = model.predict(levels)
        semantic = model.semantic_logit(levels)
        # The terms sum over thousands of priors: in float32, whatever the precision of the network.
        with torch.autocast(batch.image.device.type, enabled=False):
            return self.terms(raw, semantic.float(), batch, model.mask_iou)

    def terms(
        self,
        raw: Any,
        semantic_logit: torch.Tensor,
        batch: Batch,
        mask_iou: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the terms from raw outputs, that of the mask IoU only with `mask_iou`; see :meth:`__call__`."""
        options = self.options
        priors = self.priors.to(batch.image.device)
        matches = [match_priors(truth, priors, options.matching) for truth in batch.truths]
        target = torch.stack([match.class_target for match in matches])
        num_positive = max(int((target > 0).sum()), 1)
        box = box_loss(raw.box_regression.float(), matches)
        classes = class_loss(raw.class_logit.float(), target, options.negatives_per_positive)
        prototype, coefficient = raw.prototype.float(), raw.mask_coefficient.float()
        assembled = assemble_masks(prototype, coefficient, matches, batch, options.max_masks)
        zero = prototype.sum() * 0.0
        masks = mask_loss(assembled, zero)
        terms = {
            "box": box * (options.box_weight / num_positive),
            "class": classes * (options.class_weight / num_positive),
            "mask": masks * (options.mask_weight / num_positive),
            "semantic": semantic_loss(semantic_logit, batch.truths) * (options.semantic_weight / len(batch.truths)),
        }
        if mask_iou is not None:
            terms["mask_iou"] = mask_iou_loss(assembled, mask_iou, zero) * (options.mask_iou_weight / num_positive)
        return terms


def box_loss(box_regression: torch.Tensor, matches: Sequence[Matches]) -> torch.Tensor:
    """Compute the smooth L1 loss of ``box_regression (B, P, 4)``, summed over the positive priors."""
    positive = torch.stack([match.positive for match in matches])
    target = torch.stack([match.box_target for match in matches])
    return functional.smooth_l1_loss(box_regression[positive], target[positive], reduction="sum")


def class_loss(class_logit: torch.Tensor, target: torch.Tensor, negatives_per_positive: int) -> torch.Tensor:
    """Compute the cross entropy over the positives and the hardest negatives, summed.

    Negatives are mined per image: the priors that look least like background, three for each positive by default. An
    image without positives contributes none, as published.

    Args:
        class_logit: ``(B, P, C)`` float32 logits.
        target: ``(B, P)`` int64 classes; -1 is neutral.
        negatives_per_positive: Number of negatives for each positive.
    """
    positive, background = target > 0, target == 0
    with torch.no_grad():
        hardness = torch.logsumexp(class_logit, dim=2) - class_logit[..., 0]
        hardness = hardness.masked_fill(~background, -_INFINITY)
        rank = hardness.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        num_negative = (positive.sum(dim=1, keepdim=True) * negatives_per_positive).clamp(max=target.shape[1] - 1)
        chosen = positive | (background & (rank < num_negative))
    return functional.cross_entropy(class_logit[chosen], target[chosen], reduction="sum")


def assemble_masks(
    prototype: torch.Tensor,
    mask_coefficient: torch.Tensor,
    matches: Sequence[Matches],
    batch: Batch,
    max_masks: int,
) -> list[AssembledMasks]:
    """Assemble the masks of the positive priors of every image that has some.

    Args:
        prototype: ``(B, K, Hp, Wp)`` float32 prototypes.
        mask_coefficient: ``(B, P, K)`` float32 coefficients.
        matches: Matches of each image.
        batch: Batch whose truths contain the masks, and whose step seeds the sample of masks.
        max_masks: Maximum number of masks of an image; see :class:`LossOptions`.
    """
    height, width = prototype.shape[2:]
    assembled = []
    for image, (match, truth) in enumerate(zip(matches, batch.truths, strict=True)):
        chosen = match.positive.nonzero()[:, 0]
        num_positive = len(chosen)
        if num_positive == 0:
            continue
        if num_positive > max_masks:
            generator = torch.Generator().manual_seed(batch.step * 1009 + image)
            chosen = chosen[torch.randperm(num_positive, generator=generator)[:max_masks].to(chosen.device)]
        truth_of = match.truth_index[chosen]
        assembled.append(
            AssembledMasks(
                logit=(mask_coefficient[image, chosen] @ prototype[image].flatten(1)).reshape(-1, height, width),
                target=shrink_masks(truth.mask, height, width)[truth_of].to(prototype.dtype),
                xyxy=truth.xyxy[truth_of],
                class_id=truth.class_id[truth_of],
                weight=num_positive / len(chosen),
            )
        )
    return assembled


def mask_loss(assembled: Sequence[AssembledMasks], zero: torch.Tensor) -> torch.Tensor:
    """Compute the binary cross entropy inside the true boxes, divided by each box's area in pixels, summed over masks.

    Args:
        assembled: Masks of each image with positives.
        zero: Scalar 0 connected to the network, so that a batch without positives has a gradient, too.
    """
    total = zero
    for masks in assembled:
        height, width = masks.logit.shape[1:]
        pixel = functional.binary_cross_entropy_with_logits(masks.logit, masks.target, reduction="none")
        pixel = crop_outside(pixel, masks.xyxy)
        size = ((masks.xyxy[:, 2:] - masks.xyxy[:, :2]) * masks.xyxy.new_tensor([width, height])).clamp(min=1e-3)
        total = total + (pixel.sum(dim=(1, 2)) / size.prod(dim=1)).sum() * masks.weight
    return total


def mask_iou_loss(
    assembled: Sequence[AssembledMasks], network: Callable[[torch.Tensor], torch.Tensor], zero: torch.Tensor
) -> torch.Tensor:
    """Compute smooth L1 between the mask IoU that YOLACT++ predicts and the actual one, summed over masks.

    The network rates masks and does not change them: they reach it without a gradient. Masks that are too small at the
    resolution of the prototypes, or whose objects are, do not count, because their IoU is mostly noise.

    Args:
        assembled: Masks of each image with positives.
        network: Function from cropped soft masks ``(n, 1, Hp, Wp)`` to IoUs ``(n, C - 1)``.
        zero: Scalar 0 connected to the network; see :func:`mask_loss`.
    """
    total = zero
    for masks in assembled:
        with torch.no_grad():
            soft = crop_outside(masks.logit.sigmoid(), masks.xyxy)
            found, true = soft > 0.5, masks.target > 0.5
            counted = torch.minimum(found.sum(dim=(1, 2)), true.sum(dim=(1, 2))) > _MIN_MASK_AREA
            if not counted.any():
                continue
            soft, found, true = soft[counted], found[counted], true[counted]
            iou = (found & true).sum(dim=(1, 2)) / (found | true).sum(dim=(1, 2))
        predicted = network(soft[:, None]).gather(1, masks.class_id[counted, None])[:, 0]
        total = total + functional.smooth_l1_loss(predicted, iou.to(predicted.dtype), reduction="sum") * masks.weight
    return total


def semantic_loss(semantic_logit: torch.Tensor, truths: Sequence[Truth]) -> torch.Tensor:
    """Compute the binary cross entropy of class maps, averaged over pixels, summed over classes and images."""
    height, width = semantic_logit.shape[2:]
    target = torch.zeros_like(semantic_logit)
    for image, truth in enumerate(truths):
        for class_id, mask in zip(truth.class_id.tolist(), shrink_masks(truth.mask, height, width), strict=True):
            target[image, class_id] = torch.maximum(target[image, class_id], mask)
    loss = functional.binary_cross_entropy_with_logits(semantic_logit, target, reduction="sum")
    return loss / (height * width)


def shrink_masks(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize ``(n, H, W)`` bool masks: bilinear, then ``> 0.5``, as float32 zeros and ones."""
    if len(mask) == 0:
        return mask.new_zeros((0, height, width), dtype=torch.float32)
    resized = functional.interpolate(mask[:, None].float(), (height, width), mode="bilinear", align_corners=False)
    return (resized[:, 0] > 0.5).float()


def crop_outside(values: torch.Tensor, xyxy: torch.Tensor) -> torch.Tensor:
    """Set ``values (n, H, W)`` to zero outside relative boxes ``(n, 4)``, widened by one pixel as published."""
    rows, columns = boxes.cell_mask(xyxy, *values.shape[1:])
    return values * (rows[:, :, None] & columns[:, None, :])
