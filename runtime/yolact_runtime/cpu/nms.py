"""Candidates and non-maximum suppression: Fast NMS as published, its cross-class variant, and traditional NMS.

Results equal ``yolact_plugins.reference`` at a lower cost. Candidates are found without a softmax over all priors, and
Fast NMS visits scores from the best downwards and stops when the result can no longer change: whether a box is kept
depends on better boxes only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.rle import run_positions
from yolact_runtime.model.network_outputs import require_finite

__all__ = [
    "Candidates",
    "NmsMethod",
    "NmsSettings",
    "Selection",
    "best_foreground",
    "find_candidates",
    "select",
]

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
# Pairs of boxes compared at once: a megabyte for each of the arrays involved.
_PAIRS = 1 << 18


class NmsMethod(enum.Enum):
    """Method of suppression, which determines the boxes that suppress each other."""

    FAST = "fast"
    CROSS_CLASS = "cross-class"
    TRADITIONAL = "traditional"


@dataclass(frozen=True)
class NmsSettings:
    """Settings that turn candidates into detections; the defaults are those the models are published with.

    Attributes:
        method: Fast NMS per class, Fast NMS over all classes, or greedy NMS per class.
        score_threshold: Threshold for the best foreground score: priors strictly above it are candidates.
        min_confidence: Second score threshold, which upstream omits (0): a candidate enters the list of a class only
            with a score above it. It never changes the detections above it, and saves the work on the rest.
        iou_threshold: Maximum IoU of a kept box with a better one (greedy NMS drops at equality, Fast NMS does not).
        top_k: Maximum number of boxes considered, best first: per class, or in total for the cross-class method.
        max_instances: Maximum number of detections of the per-class methods; the cross-class method has no such limit,
            as upstream.
    """

    method: NmsMethod = NmsMethod.FAST
    score_threshold: float = 0.05
    min_confidence: float = 0.0
    iou_threshold: float = 0.5
    top_k: int = 200
    max_instances: int = 100


class Candidates(NamedTuple):
    """Priors that may be objects: ascending rows of the prior axis ``(n,)``, and softmax scores ``(n, C - 1)``."""

    prior: Int
    score: Float


class Selection(NamedTuple):
    """Detections, best first.

    Ties by lower class, then lower prior. ``candidate`` contains rows of :class:`Candidates`.
    """

    candidate: Int
    class_id: Int
    confidence: Float


def find_candidates(class_logit: npt.NDArray[np.floating], score_threshold: float) -> Candidates:
    """Find the priors whose best foreground class has a softmax score strictly above the threshold.

    The score of a class is at most ``1 / (1 + exp(background - logit))``, so a prior whose background leads by more
    than the threshold allows is dismissed after one comparison; only survivors pay for exponentials.

    Args:
        class_logit: Class logits, ``(P, C)`` float32 or float16; class 0 is the background.
        score_threshold: Score threshold in ``[0, 1)``.
    """
    if class_logit.ndim != 2 or class_logit.shape[1] < 2:
        raise ShapeError(f"class logits have the shape (P, C) with C >= 2, found {class_logit.shape}")
    if not len(class_logit):
        return Candidates(np.zeros(0, np.int64), np.zeros((0, class_logit.shape[1] - 1), np.float32))
    # NumPy compares float16 one by one: conversion takes a quarter of the time for 19,248 x 81 logits.
    class_logit = class_logit.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):  # infinity less infinity: refused below, with its reason
        lead = np.subtract(best_foreground(class_logit), class_logit[:, 0], dtype=np.float32)
    # One NaN shows up here; in comparisons it would pass as "nothing found".
    require_finite(lead, "class_logit")
    # The slack covers float16 inputs and the rounding of the exact score below.
    required = np.log(score_threshold / (1 - score_threshold)) - 0.02 if score_threshold > 0 else -np.inf
    survivor = np.flatnonzero(lead > required)
    logit = class_logit[survivor].astype(np.float32)
    logit -= logit.max(axis=1, keepdims=True)
    np.exp(logit, out=logit)
    score = logit[:, 1:] / logit.sum(axis=1, keepdims=True)
    kept = score.max(axis=1) > np.float32(score_threshold)
    return Candidates(survivor[kept], score[kept])


def best_foreground(class_logit: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return the largest foreground logit of each prior, ``(P,)``; NaN if a logit is NaN."""
    if class_logit.dtype != np.float32:
        best: npt.NDArray[np.floating] = class_logit[:, 1:].max(axis=1)
        return best
    # Segments of flat memory, one for the foreground and one for the next background: twice as fast as max(axis=1).
    size, classes = class_logit.size, class_logit.shape[1]
    edges = (np.arange(0, size, classes)[:, None] + np.array([1, classes])).ravel()[:-1]
    return np.maximum.reduceat(class_logit.ravel(), edges)[::2]


def select(candidates: Candidates, xyxy: Float, settings: NmsSettings, input_size: tuple[int, int]) -> Selection:
    """Suppress overlapping candidates.

    Args:
        candidates: Candidates of one image.
        xyxy: Boxes of the candidates, ``(n, 4)``, relative to the image, not clipped.
        settings: Method and thresholds.
        input_size: Size ``(height, width)`` of the network input; only the traditional method works in its pixels.
    """
    if settings.method is NmsMethod.FAST:
        return _fast_nms(candidates.score, xyxy, settings)
    if settings.method is NmsMethod.CROSS_CLASS:
        return _cross_class_fast_nms(candidates.score, xyxy, settings)
    return _traditional_nms(candidates.score, xyxy, settings, input_size)


def _fast_nms(score: Float, xyxy: Float, settings: NmsSettings) -> Selection:
    # Class-major order: a stable sort then breaks ties by class and prior.
    by_class = np.ascontiguousarray(score.T)
    flat = by_class.ravel()
    floor = np.float32(settings.min_confidence)
    above = np.flatnonzero(flat > floor) if floor > 0 else np.arange(flat.size)
    first = considered = 4 * settings.max_instances
    while True:
        best = _best(flat, above, considered)
        class_id, candidate = np.divmod(best, len(score) or 1)
        kept = np.flatnonzero(_suppress_by_class(xyxy[candidate], class_id, settings))
        if len(kept) >= settings.max_instances or len(best) == len(above):
            kept = kept[: settings.max_instances]
            return Selection(candidate[kept], class_id[kept], flat[best[kept]])
        if considered == first:
            above = _top_of_each_class(by_class, above, settings.top_k)
        considered *= 4


def _top_of_each_class(by_class: Float, above: Int, top_k: int) -> Int:
    """Return the positions in `above` that can be among the `top_k` best of their class.

    No other affects suppression.
    """
    count = by_class.shape[1]
    if count <= top_k:
        return above
    least = np.partition(by_class, count - top_k, axis=1)[:, count - top_k]
    kept: Int = above[by_class.ravel()[above] >= least[above // count]]
    return kept


def _best(flat: Float, above: Int, count: int) -> Int:
    """Return the `count` positions in `above` with the best scores, best first, and all that tie with the last one."""
    score = flat[above]
    if count < len(above):
        worst = np.partition(score, len(above) - count)[len(above) - count]
        above = above[score >= worst]
        score = flat[above]
    return above[np.argsort(-score, kind="stable")]


def _suppress_by_class(xyxy: Float, class_id: Int, settings: NmsSettings) -> npt.NDArray[np.bool_]:
    """Apply Fast NMS inside each class; boxes are sorted best first.

    Only pairs of one class are compared, as one flat list: the better boxes of a class precede a box in its group.
    """
    grouped = np.argsort(class_id, kind="stable")
    boxes, ids = xyxy[grouped], class_id[grouped]
    start = np.searchsorted(ids, ids)
    rank = np.arange(len(ids)) - start
    kept = rank < settings.top_k
    rivals = np.flatnonzero(kept & (rank > 0))
    blocks = np.searchsorted(np.cumsum(rank[rivals]), np.arange(_PAIRS, rank[rivals].sum(), _PAIRS))
    for block in np.split(rivals, blocks):
        kept[block] = _worst_overlap(boxes, block, start[block]) <= np.float32(settings.iou_threshold)
    keep = np.empty(len(xyxy), bool)
    keep[grouped] = kept
    return keep


def _worst_overlap(boxes: Float, rivals: Int, start: Int) -> Float:
    """Return the largest IoU of each box in `rivals` with those from its `start` up to it; NaN if one is NaN."""
    count = rivals - start
    if not len(count):
        return np.zeros(0, np.float32)
    a, b = boxes[run_positions(start, rivals)].T, boxes[np.repeat(rivals, count)].T
    return np.maximum.reduceat(_iou(a, b), np.cumsum(count) - count)


def _iou(a: Float, b: Float, offset: float = 0.0) -> Float:
    """Compute the IoU of boxes ``(4, n)`` and ``(4, n)`` or ``(4, 1)``; ``offset=1`` counts both edge pixels."""
    pixel = np.float32(offset)
    # Boxes without area and boxes beyond float32 get the IoU that the arithmetic yields, usually NaN.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]) + pixel
        height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]) + pixel
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        area_a = (a[2] - a[0] + pixel) * (a[3] - a[1] + pixel)
        area_b = (b[2] - b[0] + pixel) * (b[3] - b[1] + pixel)
        result: Float = intersection / (area_a + area_b - intersection)
    return result


def _cross_class_fast_nms(score: Float, xyxy: Float, settings: NmsSettings) -> Selection:
    class_id = score.argmax(axis=1) if len(score) else np.zeros(0, np.int64)
    confidence = score[np.arange(len(score)), class_id]
    order = np.lexsort((class_id, -confidence))
    order = order[confidence[order] > np.float32(settings.min_confidence)][: settings.top_k]
    kept = order[_suppress_by_class(xyxy[order], np.zeros(len(order), np.int64), settings)]
    return Selection(kept, class_id[kept], confidence[kept])


def _traditional_nms(score: Float, xyxy: Float, settings: NmsSettings, input_size: tuple[int, int]) -> Selection:
    with np.errstate(over="ignore"):  # as in the IoU
        xyxy_px = xyxy * np.array([input_size[1], input_size[0]] * 2, np.float32)
    floor = np.float32(max(settings.min_confidence, settings.score_threshold))
    kept: list[Int] = []
    class_ids: list[Int] = []
    for class_id in np.flatnonzero((score > floor).any(axis=0)):
        members = np.flatnonzero(score[:, class_id] > floor)
        members = members[np.argsort(-score[members, class_id], kind="stable")]
        kept.append(_greedy_suppress(xyxy_px, members, settings.iou_threshold))
        class_ids.append(np.full(len(kept[-1]), class_id))
    if not kept:
        return Selection(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    candidate, classes = np.concatenate(kept), np.concatenate(class_ids)
    order = np.lexsort((candidate, classes, -score[candidate, classes]))[: settings.max_instances]
    candidate, classes = candidate[order], classes[order]
    return Selection(candidate, classes, score[candidate, classes])


def _greedy_suppress(xyxy_px: Float, members: Int, iou_threshold: float) -> Int:
    kept: list[np.int64] = []
    while len(members):
        best, members = members[0], members[1:]
        kept.append(best)
        overlap = _iou(xyxy_px[members].T, xyxy_px[[best]].T, offset=1.0)
        members = members[overlap < np.float32(iou_threshold)]
    return np.array(kept, np.int64)
