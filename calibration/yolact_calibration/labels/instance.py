"""Instances of an annotation file, with boxes and optional outlines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.labels.fields import (
    MAX_AREA_PX,
    MAX_COORDINATE_PX,
    FieldError,
    Id,
    is_number,
    read_flag,
    read_id,
    read_number,
    shown,
)
from yolact_calibration.labels.segmentation import Segmentation, read_segmentation

__all__ = ["CocoInstance", "boxes_xyxy", "read_instance"]


@dataclasses.dataclass(frozen=True, slots=True)
class CocoInstance:
    """Annotated instance; a file has hundreds of thousands of them.

    Attributes:
        annotation_id: The annotation's ``id``; None if it has none.
        category_id: Id of its category.
        bbox: Left, top, width and height in pixels; finite, width and height 0 or more.
        is_crowd: Whether it is a group that is not annotated individually.
        area: Area in pixels from the file, finite and 0 or more; None if the file has none.
        segmentation: Outline of the instance; None if there is only a box.
    """

    annotation_id: Id | None
    category_id: Id
    bbox: tuple[float, float, float, float]
    is_crowd: bool
    area: float | None
    segmentation: Segmentation | None


def read_instance(record: Mapping[str, Any], height: int, width: int) -> tuple[CocoInstance, int]:
    """Check an annotation of an image of `height` x `width` pixels.

    Returns:
        The instance, and the number of stray pieces of its segmentation that were left out.

    Raises:
        FieldError: A field is missing, has the wrong type or is out of bounds.
    """
    annotation_id = read_id(record, "id") if record.get("id") is not None else None
    category_id = read_id(record, "category_id")
    bbox = _read_box(record)
    is_crowd = read_flag(record, "iscrowd")
    area = None if record.get("area") is None else read_number(record, "area", 0, MAX_AREA_PX)
    segmentation, num_stray = read_segmentation(record.get("segmentation"), height, width)
    return CocoInstance(annotation_id, category_id, bbox, is_crowd, area, segmentation), num_stray


def _read_box(record: Mapping[str, Any]) -> tuple[float, float, float, float]:
    box = record.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        found = f"is {shown(box)}" if "bbox" in record else "is missing"
        raise FieldError(f"bbox {found}; bbox must be four numbers, x, y, width and height")
    left, top, width, height = box
    low, high = -MAX_COORDINATE_PX, MAX_COORDINATE_PX
    if not (low <= left <= high and low <= top <= high and 0 <= width <= high and 0 <= height <= high):
        raise FieldError(
            f"bbox is {shown(box)}; it must be finite, x and y pixels of the image, width and height 0 or more"
        )
    return float(left), float(top), float(width), float(height)


def boxes_xyxy(instances: Sequence[CocoInstance]) -> npt.NDArray[np.float32]:
    """Return the ``(n, 4)`` float32 xyxy boxes of instances, in pixels of the image."""
    xywh = np.array([item.bbox for item in instances], np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
