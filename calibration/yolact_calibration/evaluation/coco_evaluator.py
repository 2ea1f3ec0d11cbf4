"""COCO's evaluation protocol for boxes or masks, by faster-coco-eval: objects in, average precision out.

The figures are those of pycocotools, which the tests hold to 1e-6. Two habits of COCO's evaluators are kept away from
the callers here: they write into the objects they are given, and they take an object with the id 0 for "not matched".
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
"""Figure -> value in [0, 1], or None where there is no truth of that kind."""

KINDS = ("bbox", "segm")
"""Boxes and masks, by COCO's names."""
MAX_DETECTIONS = 100
"""COCO looks at the best hundred of a class in an image."""
PRECISION_NAMES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_AREAS = ("", "_small", "_medium", "_large")
"""The area ranges in the evaluator's order: all, below 32 x 32 pixels, up to 96 x 96, above."""


@dataclasses.dataclass(frozen=True)
class CocoObjects:
    """Truth and detections of one kind, as the objects of COCO's files.

    Attributes:
        kind: ``"bbox"`` or ``"segm"``.
        images: Image id -> (height, width) in pixels, ascending by id, with or without objects.
        category_ids: All categories.
        truth: Objects ``{"image_id", "category_id", "bbox" or "segmentation", "area", "iscrowd"}``; masks as
            compressed RLE, boxes as (left, top, width, height), pixels.
        detections: The same with a ``"score"``; those of an image in any order, equal scores in order of preference.

    The evaluator writes into the objects, with no effect on a second evaluation.
    """

    kind: str
    images: Mapping[int, tuple[int, int]]
    category_ids: tuple[int, ...]
    truth: list[dict[str, Any]]
    detections: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What came out.

    Attributes:
        figures: COCO's twelve figures, see :data:`PRECISION_NAMES`, and the recalls ``AR1``, ``AR10``, ``AR100``,
            ``AR_small``, ``AR_medium``, ``AR_large``.
        by_category: The same for each category id.
        overlaps: For each category, in their order, what :func:`yolact_calibration.evaluation.matches.match_classes`
            takes.
    """

    figures: Figures
    by_category: Mapping[int, Figures]
    overlaps: tuple[tuple[Overlap, ...], ...]


def require_evaluator() -> None:
    """Fail early where the evaluator is not installed.

    Raises:
        MissingDependencyError: It is not.
    """
    try:
        import faster_coco_eval  # noqa: F401 - only to see that it is there
    except ImportError as error:
        raise MissingDependencyError("faster-coco-eval", "Measuring accuracy", "eval") from error


def evaluate(objects: CocoObjects, max_detections: int = MAX_DETECTIONS) -> Evaluation:
    """Run the protocol.

    Args:
        objects: Of one kind.
        max_detections: Best detections of a class in an image that count; 100 is COCO's.

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
    # More threads were measured to gain nothing: the work around the overlaps holds the interpreter's lock.
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
    """The evaluator's talk: it would go to the logs of a command that has its own."""


def _figures(precision: Float, recall: Float) -> dict[str, float | None]:
    """Figures of ``(T, R, K, A, M)`` precisions and ``(T, K, A, M)`` recalls, in which -1 means undefined."""
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
    """What the evaluator compared, by category and then image."""
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
    """Values of a field by (category id, image id), in their order."""
    columns = ("category_id", "image_id")
    keys = np.array([[annotation[name] for annotation in annotations] for name in columns], np.int64)
    values = np.array([annotation[field] for annotation in annotations], np.float64)
    order = np.lexsort(keys[::-1])
    keys, values = keys[:, order], values[order]
    first = np.flatnonzero((np.diff(keys, axis=1) != 0).any(axis=0)) + 1
    starts = np.concatenate([[0], first]) if len(values) else first
    owners = zip(*keys[:, starts].tolist(), strict=True)
    return dict(zip(owners, np.split(values, first), strict=False))
