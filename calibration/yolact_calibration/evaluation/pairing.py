"""Pairing of the instances of two models in one image."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from yolact_runtime.masks.instances import Instances

__all__ = ["MIN_PAIR_IOU", "ImagePairs", "find_partners", "pair_instances"]

Float = npt.NDArray[np.float64]

MIN_PAIR_IOU = 0.5
"""Minimum mask IoU of two instances that are the same object."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePairs:
    """Confident instances of a reference, paired with those of a candidate.

    Attributes:
        iou: ``(pairs,)`` float64 mask IoU of each pair.
        shift: ``(pairs,)`` float64 confidence of the candidate minus that of the reference.
        num_reference: Number of confident instances of the reference, paired or not.
        num_extra: Number of confident instances of the candidate that the reference does not have.
    """

    iou: Float
    shift: Float
    num_reference: int
    num_extra: int


def pair_instances(reference: Instances, candidate: Instances, min_confidence: float) -> ImagePairs:
    """Pair the instances of one image.

    Each candidate, best first, takes the free confident instance of the reference that has its class and the largest
    IoU. A candidate of any confidence can be paired: one that fell from 0.31 to 0.29 was still found. For the same
    reason, an unpaired confident candidate is extra only if the reference does not have it with a low confidence
    either. An instance with an empty mask cannot be paired by its mask and is left out.

    Args:
        reference: All detections of the reference.
        candidate: All detections of the model to evaluate, in the same frame.
        min_confidence: Threshold above which an instance is confident.
    """
    reference, candidate = (side[np.flatnonzero(side.mask.area() > 0)] for side in (reference, candidate))
    is_confident = reference.confidence > min_confidence
    order = np.argsort(-candidate.confidence, kind="stable")
    candidate = candidate[order]
    sure = candidate.confidence > min_confidence
    truth, low = reference[is_confident], reference[~is_confident]
    partner, iou = find_partners(truth, candidate)
    paired = partner >= 0
    shift = candidate.confidence[paired].astype(np.float64) - truth.confidence[partner[paired]]
    rest = candidate[sure & ~paired]
    num_extra = int((find_partners(low, rest)[0] < 0).sum()) if len(rest) else 0
    return ImagePairs(iou[paired], shift, len(truth), num_extra)


def find_partners(truth: Instances, candidate: Instances) -> tuple[npt.NDArray[np.int64], Float]:
    """Return for each candidate the index of its partner in the truth or -1, and their mask IoU."""
    partner = np.full(len(candidate), -1, np.int64)
    found = np.zeros(len(candidate))
    if not len(truth) or not len(candidate):
        return partner, found
    # The time is proportional to the number of rows.
    few_rows = len(truth) <= len(candidate)
    overlap = truth.mask.iou(candidate.mask) if few_rows else candidate.mask.iou(truth.mask).T
    overlap = np.where(truth.class_id[:, None] == candidate.class_id, overlap, 0.0)
    for i in np.flatnonzero((overlap >= MIN_PAIR_IOU).any(axis=0)):
        best = int(np.argmax(overlap[:, i]))
        if overlap[best, i] >= MIN_PAIR_IOU:
            partner[i], found[i] = best, overlap[best, i]
            overlap[best] = 0.0
    return partner, found
