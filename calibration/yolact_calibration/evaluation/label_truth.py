"""Labels as the evaluator takes them, and what about them makes figures doubtful."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.evaluation.coco_evaluator import KINDS
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage, CocoInstance, boxes_xyxy
from yolact_calibration.labels.fields import Id, listed
from yolact_plugins.files import counted

__all__ = ["truth_objects"]

# A box drawn by hand around an outline drawn by hand is tighter than this.
_LEAST_BOX_OVERLAP = 0.5
# Tools count the area of a polygon in different ways; none of them is off by so much.
_MOST_AREA_RATIO = 4.0


def truth_objects(
    annotations: CocoAnnotations, image_numbers: Mapping[Id, int], category_numbers: Mapping[Id, int]
) -> tuple[dict[str, list[dict[str, Any]]], tuple[str, ...]]:
    """The labels as objects for the evaluator, by kind, and findings about them.

    COCO sorts truth into small, medium and large by the ``area`` of the annotation, for boxes too. Where it is missing,
    the mask's pixels take its place, and a finding says so. An instance without an outline is a box; beside others that
    have one it is a crowd for masks, so that what is found in its box is neither right nor wrong.

    Args:
        annotations: The labels.
        image_numbers: By image id, the number that the evaluator knows it by.
        category_numbers: By category id, the same.
    """
    truth: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    doubts = _Doubts()
    for image in annotations.images:
        entries = annotations.instances.get(image.image_id, ())
        masks = annotations.masks(image)
        doubts.look_at(image, entries, masks.bounds(), masks.area())
        for entry, rle, pixels in zip(entries, masks.rle(), masks.area().tolist(), strict=True):
            shared = {
                "image_id": image_numbers[image.image_id],
                "category_id": category_numbers[entry.category_id],
                "iscrowd": int(entry.is_crowd),
                "area": float(pixels if entry.area is None else entry.area),
            }
            truth["bbox"].append({**shared, "bbox": list(entry.bbox)})
            if entry.segmentation is not None:
                truth["segm"].append({**shared, "segmentation": rle})
            elif not annotations.has_boxes_only:
                truth["segm"].append({**shared, "segmentation": rle, "iscrowd": 1})
    return truth, tuple(doubts.findings(annotations))


@dataclasses.dataclass
class _Doubts:
    """What was noticed about annotations, each by itself sound."""

    num_without_area: int = 0
    num_without_pixels: int = 0
    other_box: list[str] = dataclasses.field(default_factory=list)
    other_area: list[str] = dataclasses.field(default_factory=list)

    def look_at(
        self, image: CocoImage, entries: tuple[CocoInstance, ...], bounds: npt.NDArray[Any], pixels: npt.NDArray[Any]
    ) -> None:
        """Compare the annotations of an image with the masks that are drawn of them."""
        overlaps = _overlaps(boxes_xyxy(entries).astype(np.float64), bounds.astype(np.float64))
        for entry, overlap, count in zip(entries, overlaps.tolist(), pixels.tolist(), strict=True):
            self.num_without_area += entry.area is None
            if entry.segmentation is None:
                continue
            name = f"{entry.annotation_id} in {image.file_name}"
            if count == 0:
                self.num_without_pixels += 1
            elif overlap < _LEAST_BOX_OVERLAP:
                self.other_box.append(name)
            elif entry.area is not None and not count / _MOST_AREA_RATIO <= entry.area <= count * _MOST_AREA_RATIO:
                self.other_area.append(name)

    def findings(self, annotations: CocoAnnotations) -> Iterator[str]:
        """Sentences for people."""
        if not annotations.num_instances:
            yield "there is no annotation of these images: nothing can be found, and every figure is undefined"
        if self.num_without_area:
            count = counted(self.num_without_area, "annotation")
            yield f"{count} without an area; the pixels of their masks are taken for it"
        if self.num_without_pixels:
            count = counted(self.num_without_pixels, "annotation")
            yield f"{count} with an outline that covers no pixel of the image; none can be found"
        if self.other_box:
            yield (
                f"{counted(len(self.other_box), 'annotation')} with a box that is not around the outline (they overlap "
                f"by less than half), so that box AP and mask AP judge different things: {listed(self.other_box)}"
            )
        if self.other_area:
            yield (
                f"{counted(len(self.other_area), 'annotation')} with an area that is not that of the outline (by more "
                f"than a factor of {_MOST_AREA_RATIO:g}), and sorted into small, medium and large by it: "
                f"{listed(self.other_area)}"
            )
        yield from _boxes_without_outline(annotations)


def _overlaps(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``(n,)`` intersection over union of boxes ``(n, 4)``, pair by pair; 0 for two without area."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    union = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (first, second)) - shared
    ratio: npt.NDArray[np.float64] = np.divide(shared, union, out=np.zeros(len(first)), where=union > 0)
    return ratio


def _boxes_without_outline(annotations: CocoAnnotations) -> Iterator[str]:
    num_boxes = annotations.num_instances - annotations.num_outlines
    if annotations.has_boxes_only:
        count = counted(num_boxes, "annotation")
        yield f"the labels have boxes only ({count} without a segmentation): there is no mask AP"
    elif num_boxes:
        yield (
            f"{num_boxes} of {annotations.num_instances} annotations with a box and no segmentation: they count for "
            f"box AP, and for mask AP what is found in their boxes is neither right nor wrong"
        )
