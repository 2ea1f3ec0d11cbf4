"""COCO's matching of detections to truth, kept for each image, so that images can be reweighted.

The evaluator itself returns only curves over the whole data set, but resampling images needs the matches behind them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "IOU_THRESHOLDS",
    "RECALL_THRESHOLDS",
    "ClassMatches",
    "Matches",
    "Overlap",
    "match_classes",
    "match_overlap",
]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

IOU_THRESHOLDS: Float = np.linspace(0.5, 0.95, 10)
"""``(10,)`` float64 IoU thresholds at which a detection finds an instance."""
RECALL_THRESHOLDS: Float = np.linspace(0.0, 1.0, 101)
"""``(101,)`` float64 recalls at which COCO samples the precision."""


@dataclasses.dataclass(frozen=True, eq=False)
class Overlap:
    """Detections and truth of one class in one image.

    Attributes:
        image: Index of the image.
        score: ``(D,)`` float64 scores, best first.
        iou: ``(D, G)`` float64 IoU; for a crowd, the intersection divided by the detection's own area.
        is_crowd: ``(G,)`` bool flags; a crowd matches any number of detections, which then count neither way.
    """

    image: int
    score: Float
    iou: Float
    is_crowd: Bool


@dataclasses.dataclass(frozen=True, eq=False)
class ClassMatches:
    """Detections of one class in all images, best first; equal scores in the order of the images.

    Attributes:
        image: ``(D,)`` int64 index of each detection's image.
        score: ``(D,)`` float64 scores.
        is_correct: ``(10, D)`` bool flags, by IoU threshold: the detection found an instance.
        is_ignored: ``(10, D)`` bool flags, by IoU threshold: the detection found a crowd, and counts neither way.
        num_truth: ``(images,)`` int64 number of instances of the class, without crowds.
    """

    image: Int
    score: Float
    is_correct: Bool
    is_ignored: Bool
    num_truth: Int


@dataclasses.dataclass(frozen=True, eq=False)
class Matches:
    """Matches of all classes, at any size and up to the evaluator's number of detections.

    Attributes:
        num_images: Number of evaluated images, with or without instances.
        classes: Matches of the classes with truth; the others have no average precision.
    """

    num_images: int
    classes: tuple[ClassMatches, ...]


def match_classes(overlaps: Sequence[Sequence[Overlap]], num_images: int) -> Matches:
    """Match the detections of each class.

    Args:
        overlaps: Overlaps of each class, in images with detections or truth of it, in the order of their indices.
        num_images: Number of images in the data set.
    """
    classes = [_match_class(of_class, num_images) for of_class in overlaps]
    return Matches(num_images, tuple(matches for matches in classes if matches.num_truth.any()))


def _match_class(overlaps: Sequence[Overlap], num_images: int) -> ClassMatches:
    num_truth = np.zeros(num_images, np.int64)
    for overlap in overlaps:
        num_truth[overlap.image] += np.count_nonzero(~overlap.is_crowd)
    found = [overlap for overlap in overlaps if len(overlap.score)]
    if not found:
        nothing = np.zeros((len(IOU_THRESHOLDS), 0), bool)
        return ClassMatches(np.zeros(0, np.int64), np.zeros(0), nothing, nothing, num_truth)
    image = np.repeat([overlap.image for overlap in found], [len(overlap.score) for overlap in found]).astype(np.int64)
    score = np.concatenate([overlap.score for overlap in found])
    pairs = [match_overlap(overlap) for overlap in found]
    correct, ignored = (np.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True))
    # Stable, like the sort of pycocotools: the order of equal scores changes the result.
    order = np.argsort(-score, kind="stable")
    return ClassMatches(image[order], score[order], correct[:, order], ignored[:, order], num_truth)


def match_overlap(overlap: Overlap) -> tuple[Bool, Bool]:
    """Match greedily, as COCO does: each detection, best first, takes the free instance with the largest IoU.

    Among equal overlaps the last instance is taken, and a crowd only if no instance matches: both as in pycocotools.

    Returns:
        ``(10, D)`` bool twice, by IoU threshold: the detections that found an instance, and those that found a crowd.
    """
    num_detections, num_truth = overlap.iou.shape
    num_thresholds = len(IOU_THRESHOLDS)
    correct = np.zeros((num_thresholds, num_detections), bool)
    ignored = np.zeros((num_thresholds, num_detections), bool)
    free = np.tile(~overlap.is_crowd, (num_thresholds, 1))
    rows = np.arange(num_thresholds)
    # In a list filled up with low scores, most detections overlap nothing.
    for d in np.flatnonzero(overlap.iou.max(axis=1, initial=0) >= IOU_THRESHOLDS[0]):
        reached = overlap.iou[d] >= IOU_THRESHOLDS[:, None]
        score = np.where(reached & free, overlap.iou[d], -1.0)
        # argmax finds the first of equal values; reversed, the last.
        best = num_truth - 1 - np.argmax(score[:, ::-1], axis=1)
        correct[:, d] = score[rows, best] >= 0
        free[rows[correct[:, d]], best[correct[:, d]]] = False
        ignored[:, d] = ~correct[:, d] & (reached & overlap.is_crowd).any(axis=1)
    return correct, ignored
