"""Instances as detections of the package supervision. The one module that imports it, when it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import MissingDependencyError
from yolact_runtime.masks.masks import Masks

if TYPE_CHECKING:
    import supervision

__all__ = ["to_detections"]


def to_detections(
    xyxy: npt.NDArray[np.float32],
    masks: Masks,
    confidence: npt.NDArray[np.float32],
    class_id: npt.NDArray[np.int32],
    data: dict[str, npt.NDArray[Any]],
) -> supervision.Detections:
    """Return detections with compact masks, and with boxes that are tight to the masks.

    Args:
        xyxy: Boxes of the network, ``(n, 4)``, for instances whose masks are empty.
        masks: Masks of the instances.
        confidence: Scores of the classes, ``(n,)``.
        class_id: Classes, counted from 0, ``(n,)``.
        data: Arrays ``(n, …)`` for the field ``data``; kept, not copied.

    Raises:
        MissingDependencyError: supervision is not installed.
    """
    sv = _supervision()
    bounds = masks.bounds()
    # The last column and row are inclusive in supervision.
    tight = (bounds - np.array([0, 0, 1, 1])).astype(np.float32)
    empty = bounds[:, 2] == 0
    tight[empty] = xyxy[empty]
    compact: Any = getattr(sv, "CompactMask", None)
    detections: supervision.Detections = sv.Detections(
        xyxy=tight,
        mask=masks.dense() if compact is None else _compact_masks(compact, masks),
        confidence=confidence,
        class_id=class_id,
        data=dict(data),
    )
    return detections


def _compact_masks(compact: Any, masks: Masks) -> Any:
    """Return the masks as a ``CompactMask``, each cut out at its own bounds.

    Only public methods are used, each on one small window: how the class holds runs differs between releases.
    """
    frame = (masks.height, masks.width)
    if not len(masks):
        return compact.from_dense(np.zeros((0, *frame), bool), np.zeros((0, 4), np.float32), frame)
    parts = []
    for mask in masks:
        left, top, window = mask.window()
        if not window.size:
            window = np.zeros((1, 1), bool)
        rows, columns = window.shape
        box = np.array([[0, 0, columns - 1, rows - 1]], np.float32)
        parts.append(compact.from_dense(window[None], box, (rows, columns)).with_offset(left, top, frame))
    return compact.merge(parts)


def _supervision() -> Any:
    try:
        import supervision
    except ModuleNotFoundError as error:
        if error.name != "supervision":
            raise
        raise MissingDependencyError("supervision", "Instances.to_supervision()", "supervision") from error
    return supervision
