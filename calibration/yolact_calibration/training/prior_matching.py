"""Matching of priors to objects by overlap, and the resulting training targets.

Source: the matching of SSD as YOLACT uses it (positive from IoU 0.5, background below 0.4, neutral between; every
object keeps at least one prior; priors mostly inside a crowd region are neutral).
"""

from __future__ import annotations

import dataclasses

import torch

from yolact_calibration.data.batch import Truth
from yolact_calibration.training import boxes
from yolact_runtime.option_numbers import keep_between

__all__ = ["Matches", "MatchingOptions", "match_priors"]


@dataclasses.dataclass(frozen=True)
class MatchingOptions:
    """Thresholds of the published training.

    Attributes:
        positive_iou: Minimum overlap of a positive prior; below it, a prior is positive only for an object without a
            better one.
        negative_iou: Overlap below which a prior is background; between the two it is neutral.
        ignored_cover: Fraction of a background prior inside an ignored region above which the prior is neutral.
        variances: Factors of the centre and of the size regression.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    ignored_cover: float = 0.7
    variances: tuple[float, float] = (0.1, 0.2)

    def __post_init__(self) -> None:
        keep_between(self, real=dict.fromkeys(("positive_iou", "negative_iou", "ignored_cover"), (0, 1)))


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """Targets of the P priors of one image.

    Attributes:
        class_target: ``(P,)`` int64 targets: 0 for background, ``class_id + 1`` for positives, -1 for neutral priors.
        truth_index: ``(P,)`` int64 index of the best object of each prior; meaningful for positives.
        box_target: ``(P, 4)`` float32 regressions to that object.
    """

    class_target: torch.Tensor
    truth_index: torch.Tensor
    box_target: torch.Tensor

    @property
    def positive(self) -> torch.Tensor:
        """``(P,)`` bool mask of the positive priors."""
        return self.class_target > 0


def match_priors(truth: Truth, priors: torch.Tensor, options: MatchingOptions) -> Matches:
    """Match the priors of one image.

    Args:
        truth: Objects of the image, possibly none.
        priors: ``(P, 4)`` float32 priors, centre-size, relative to the input.
        options: Thresholds of the matching.
    """
    if len(truth.xyxy) == 0:
        index = torch.zeros(len(priors), dtype=torch.int64, device=priors.device)
        target = _neutral_in_ignored(index.clone(), truth, priors, options)
        return Matches(target, index, torch.zeros_like(priors))
    overlap = boxes.pairwise_iou(truth.xyxy, boxes.to_corners(priors))
    best, index = overlap.max(dim=0)
    _give_each_object_a_prior(overlap, best, index)
    target = truth.class_id[index] + 1
    target = torch.where(best < options.positive_iou, torch.full_like(target, -1), target)
    target = torch.where(best < options.negative_iou, torch.zeros_like(target), target)
    target = _neutral_in_ignored(target, truth, priors, options)
    return Matches(target, index, boxes.encode(truth.xyxy[index], priors, options.variances))


def _give_each_object_a_prior(overlap: torch.Tensor, best: torch.Tensor, index: torch.Tensor) -> None:
    """Change `best` and `index` in place, so that every object is the best one of at least one prior.

    Pairs are taken by descending overlap; the prior and the object of a pair are then excluded from matching.
    """
    remaining = overlap.clone()
    for _ in range(min(remaining.shape)):
        place = int(remaining.argmax())
        truth, prior = divmod(place, remaining.shape[1])
        remaining[truth], remaining[:, prior] = -1.0, -1.0
        best[prior], index[prior] = 2.0, truth


def _neutral_in_ignored(
    target: torch.Tensor, truth: Truth, priors: torch.Tensor, options: MatchingOptions
) -> torch.Tensor:
    if len(truth.ignored_xyxy) == 0:
        return target
    corners = boxes.to_corners(priors)
    cover = (boxes.intersection(corners, truth.ignored_xyxy) / boxes.area(corners)[:, None]).amax(dim=1)
    return torch.where((target <= 0) & (cover > options.ignored_cover), torch.full_like(target, -1), target)
