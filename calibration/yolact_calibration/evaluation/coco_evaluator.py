"""COCO's evaluation protocol for boxes or masks, with faster-coco-eval.

The figures are those of pycocotools; tests compare them to 1e-6. Two quirks of COCO's evaluators are hidden from
callers here: they write into the objects that they are given, and treat an object with the id 0 as "not matched".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import MissingDependencyError
from yolact_calibration.evaluation.matches import IOU_THRESHOLDS, Overlap

__all__ = [
    "KINDS",
    "MAX_DETECTIONS",
    "PRECISION_NAMES",
    "CocoObjects",
    "Evaluation",
    "Figures",
    "evaluate",
    "require_evaluator",
]

Float = npt.NDArray[np.float64]
Figures = Mapping[str, float | None]
"""Figures in [0, 1] by name; None if there is no truth of that kind."""

KINDS = ("bbox", "segm")
"""COCO's names of the evaluations of boxes and of masks."""
MAX_DETECTIONS = 100
"""Maximum number of detections of a class in an image that COCO evaluates."""
PRECISION_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_AREAS = ("", "_small", "_medium", "_large")
"""Suffixes of the area ranges in the evaluator's order: all, below 32 x 32 pixels, up to 96 x 96, above."""


@dataclasses.dataclass(frozen=True)
class CocoObjects:
    """Truth and detections of one kind, as the objects of COCO's files.

    Attributes:
        kind: Either ``"bbox"`` or ``"segm"``.
        images: Image id mapped to (height, width) in pixels, ascending by id, with or without objects.
        category_ids: Ids of all categories.
        truth: Objects ``{"image_id", "category_id", "bbox" or "segmentation", "area", "iscrowd"}``; masks as compressed
            RLE, boxes as (left, top, width, height) in pixels.
        detections: Objects with the same fields and a ``"score"``; those of an image in any order, equal scores in
            order of preference.

        The evaluator writes into the objects, with no effect on a second evaluation.
    """

    kind: str
    images: Mapping[int, tuple[int, int]]
    category_ids: tuple[int, ...]
    truth: list[dict[str, Any]]
    detections: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        figures: COCO's figures: those of :data:`PRECISION_NAMES`, and the recalls ``AR1``, ``AR10``, ``AR100``,
            ``AR_small``, ``AR_medium``, ``AR_large``.
        by_category: Figures with the same names, by category id.
        overlaps: Overlaps of each category, ascending by id, for
            :func:`yolact_calibration.evaluation.matches.match_classes`.
    """

    figures: Figures
    by_category: Mapping[int, Figures]
    overlaps: tuple[tuple[Overlap, ...], ...]


def require_evaluator() -> None:
    """Check that the evaluator is installed, in order to fail early.

    Raises:
        MissingDependencyError: The evaluator is not installed.
    """
    try:
        import faster_coco_eval  # noqa: F401 - only tests that it is installed
    except ImportError as error:
        raise MissingDependencyError("faster-coco-eval", "Measuring accuracy", "eval") from error


def evaluate(objects: CocoObjects, max_detections: int = MAX_DETECTIONS) -> Evaluation:
    """Evaluate detections by COCO's protocol.

    Args:
        objects: Truth and detections of one kind.
        max_detections: Maximum number of detections of a class in an image that count, best first; 100 is COCO's.

    Raises:
        MissingDependencyError: faster-coco-eval is not installed.
    """
    require_evaluator()
    from faster_coco_eval.core.coco import COCO
    from faster_coco_eval.core.faster_eval_api import COCOeval_faster

    category_ids = tuple(sorted(objects.category_ids))
    images = [{"id": key, "height": height, "width": width} for key, (height, width) in objects.images.items()]
    categories = [{"id": category_id, "name": str(category_id)} for category_id in category_ids]
    sides = []
    for side in (objects.truth, objects.detections):
        for number, annotation in enumerate(side, start=1):
            annotation["id"] = number
        content = {"images": images, "categories": categories, "annotations": side}
        sides.append(COCO(content, print_function=_silent))
    # More threads gained nothing when measured: the work around the overlaps holds the interpreter's lock.
    evaluator = COCOeval_faster(*sides, iouType=objects.kind, print_function=_silent, rle_iou_max_workers=1)
    evaluator.params.maxDets = [1, 10, max_detections]
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    by_category = {
        category_id: _figures(precision[:, :, [k]], recall[:, [k]]) for k, category_id in enumerate(category_ids)
    }
    overlaps = _overlaps(objects, evaluator.ious, max_detections)
    ordered = tuple(overlaps.get(category_id, ()) for category_id in category_ids)
    return Evaluation(_figures(precision, recall), by_category, ordered)


def _silent(*_: object) -> None:
    """Discard the evaluator's output, which would go to the log of a command."""


def _figures(precision: Float, recall: Float) -> dict[str, float | None]:
    """Return figures of ``(T, R, K, A, M)`` precisions and ``(T, K, A, M)`` recalls, in which -1 means undefined."""
    at_50, at_75 = (int(np.argmin(np.abs(IOU_THRESHOLDS - threshold))) for threshold in (0.5, 0.75))
    figures = {
        "AP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[at_50, ..., 0, -1]),
        "AP75": _mean(precision[at_75, ..., 0, -1]),
    }
    for a, area in enumerate(_AREAS[1:], start=1):
        figures[f"AP{area}"] = _mean(precision[..., a, -1])
    for m, count in enumerate((1, 10, 100)):
        figures[f"AR{count}"] = _mean(recall[..., 0, m])
    for a, area in enumerate(_AREAS[1:], start=1):
        figures[f"AR{area}"] = _mean(recall[..., a, -1])
    return figures


def _mean(values: Float) -> float | None:
    defined = values[values > -1]
    # COCO's guard against division by zero turns a perfect 1 into 1 - 2e-16.
    return round(float(defined.mean()), 12) if len(defined) else None


def _overlaps(
    objects: CocoObjects, ious: Mapping[tuple[int, int], Any], max_detections: int
) -> dict[int, tuple[Overlap, ...]]:
    """Return the overlaps that the evaluator compared, by category and then image."""
    index = {image_id: i for i, image_id in enumerate(objects.images)}
    truth, detections = _grouped(objects.truth, "iscrowd"), _grouped(objects.detections, "score")
    nothing = np.zeros(0)
    result: dict[int, list[Overlap]] = {}
    for category_id, image_id in sorted(truth.keys() | detections.keys()):
        key = category_id, image_id
        score = -np.sort(-detections.get(key, nothing))[:max_detections]
        is_crowd = truth.get(key, nothing) != 0
        shape = len(score), len(is_crowd)
        iou = np.asarray(ious[image_id, category_id], np.float64).reshape(shape) if all(shape) else np.zeros(shape)
        result.setdefault(category_id, []).append(Overlap(index[image_id], score, iou, is_crowd))
    return {category_id: tuple(overlaps) for category_id, overlaps in result.items()}


def _grouped(annotations: Sequence[Mapping[str, Any]], field: str) -> dict[tuple[int, int], Float]:
    """Return the values of a field by (category id, image id), in their order."""
    columns = ("category_id", "image_id")
    keys = np.array([[annotation[name] for annotation in annotations] for name in columns], np.int64)
    values = np.array([annotation[field] for annotation in annotations], np.float64)
    order = np.lexsort(keys[::-1])
    keys, values = keys[:, order], values[order]
    first = np.flatnonzero((np.diff(keys, axis=1) != 0).any(axis=0)) + 1
    starts = np.concatenate([[0], first]) if len(values) else first
    owners = zip(*keys[:, starts].tolist(), strict=True)
    return dict(zip(owners, np.split(values, first), strict=False))
