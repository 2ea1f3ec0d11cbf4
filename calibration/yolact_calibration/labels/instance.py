"""One annotation: an instance with its box, and its outline where it has one."""

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
    """An annotated instance; a file has hundreds of thousands of them.

    Attributes:
        annotation_id: The annotation's ``id``; None where it has none.
        category_id: Its category.
        bbox: Left, top, width and height, pixels; finite, width and height 0 or more.
        is_crowd: A group that is not annotated one by one.
        area: Pixels as the file has them, finite and 0 or more; None where it does not say.
        segmentation: The outline; None where there is a box only.
    """

    annotation_id: Id | None
    category_id: Id
    bbox: tuple[float, float, float, float]
    is_crowd: bool
    area: float | None
    segmentation: Segmentation | None


def read_instance(record: Mapping[str, Any], height: int, width: int) -> tuple[CocoInstance, int]:
    """Check an annotation of an image of that size.

    Returns:
        The instance, and how many stray pieces of its segmentation were left out.

    Raises:
        FieldError: A field is missing, of the wrong kind or out of bounds.
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
        raise FieldError(f"bbox {found}; bbox has four numbers, x, y, width and height")
    left, top, width, height = box
    low, high = -MAX_COORDINATE_PX, MAX_COORDINATE_PX
    if not (low <= left <= high and low <= top <= high and 0 <= width <= high and 0 <= height <= high):
        raise FieldError(
            f"bbox is {shown(box)}; x and y are pixels of the image, width and height are 0 or more, and all are finite"
        )
    return float(left), float(top), float(width), float(height)


def boxes_xyxy(instances: Sequence[CocoInstance]) -> npt.NDArray[np.float32]:
    """``(n, 4)`` float32 corners of instances, pixels of the image."""
    xywh = np.array([item.bbox for item in instances], np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
