"""Labels as objects for the evaluator, and findings about labels that make figures doubtful."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from yolact_calibration.evaluation.coco_evaluator import KINDS
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage, CocoInstance
from yolact_calibration.labels.doubts import Doubts
from yolact_calibration.labels.fields import Id, listed
from yolact_plugins.files import counted

__all__ = ["truth_objects"]

# Tools compute the area of a polygon in different ways, but none of them differs by this much.
_MOST_AREA_RATIO = 4.0


def truth_objects(
    annotations: CocoAnnotations, image_numbers: Mapping[Id, int], category_numbers: Mapping[Id, int]
) -> tuple[dict[str, list[dict[str, Any]]], tuple[str, ...]]:
    """Convert labels to objects for the evaluator, by kind, and report findings about them.

    COCO sorts truth into small, medium and large by the ``area`` of the annotation, for boxes too. If it is missing,
    the mask's number of pixels is used, which is reported as a finding. An instance without an outline is a box; among
    instances with outlines it is a crowd for masks, so detections in its box are neither right nor wrong.

    Args:
        annotations: Labels of the images.
        image_numbers: The evaluator's number of each image, by image id.
        category_numbers: The evaluator's number of each category, by category id.
    """
    truth: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    doubts, areas = Doubts(), _Areas()
    for image in annotations.images:
        entries = annotations.instances.get(image.image_id, ())
        masks = annotations.masks(image)
        doubts.look_at(image, entries, masks.bounds(), (masks.area() > 0).tolist())
        for entry, rle, pixels in zip(entries, masks.rle(), masks.area().tolist(), strict=True):
            areas.look_at(image, entry, pixels)
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
    return truth, (*areas.findings(), *doubts.findings(), *_boxes_without_outline(annotations))


@dataclasses.dataclass
class _Areas:
    """Findings about the areas of annotations, which sort them into small, medium and large."""

    num_missing: int = 0
    other: list[str] = dataclasses.field(default_factory=list)

    def look_at(self, image: CocoImage, entry: CocoInstance, pixels: int) -> None:
        """Compare the area of an annotation with the pixels of its mask."""
        self.num_missing += entry.area is None
        if entry.area is None or entry.segmentation is None or not pixels:
            return
        if not pixels / _MOST_AREA_RATIO <= entry.area <= pixels * _MOST_AREA_RATIO:
            self.other.append(f"{entry.annotation_id} in {image.file_name}")

    def findings(self) -> Iterator[str]:
        """Yield readable sentences about the areas."""
        if self.num_missing:
            count = counted(self.num_missing, "annotation")
            yield f"{count} without an area; the number of pixels of their masks is used"
        if self.other:
            yield (
                f"{counted(len(self.other), 'annotation')} with an area that differs from that of the outline by more "
                f"than a factor of {_MOST_AREA_RATIO:g}, but is used to sort into small, medium and large: "
                f"{listed(self.other)}"
            )


def _boxes_without_outline(annotations: CocoAnnotations) -> Iterator[str]:
    num_boxes = annotations.num_instances - annotations.num_outlines
    if annotations.has_boxes_only:
        count = counted(num_boxes, "annotation")
        yield f"the labels have boxes only ({count} without a segmentation): there is no mask AP"
    elif num_boxes:
        yield (
            f"{num_boxes} of {annotations.num_instances} annotations with a box and no segmentation: they count for "
            f"box AP, and for mask AP detections in their boxes are neither right nor wrong"
        )
