"""Accuracy with labels: COCO's average precision of boxes and masks.

Deliberate difference to the published evaluation: boxes keep their fractions of a pixel. The original truncates them to
whole pixels before it writes them down, which moves box AP a little and mask AP not at all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.categories import match_categories
from yolact_calibration.evaluation.coco import CocoAnnotations, CocoImage
from yolact_calibration.evaluation.coco_evaluator import KINDS, CocoObjects, Figures, evaluate, require_evaluator
from yolact_calibration.evaluation.matches import Matches, Overlap, match_classes
from yolact_runtime.masks.instances import Instances

__all__ = ["Accuracy", "AccuracyMeter", "detection_objects", "mask_score", "measure_accuracy"]


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """How well detections agree with labels.

    Attributes:
        bbox: Figures of boxes: ``AP``, ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``, ``AR1``,
            ``AR10``, ``AR100``, ``AR_small``, ``AR_medium``, ``AR_large``. Values in [0, 1]; None where the data set
            has no instance of that kind.
        segm: The same for masks.
        num_images: Images looked at, with or without instances.
        by_class: ``"bbox"`` and ``"segm"`` -> category name -> the same figures.
        num_instances: Category name -> instances of the data set, crowds left out.
        findings: Sentences about classes and annotations that do not fit.
        overlaps: ``"bbox"`` and ``"segm"`` -> what :meth:`matches` is made of.
    """

    bbox: Figures
    segm: Figures
    num_images: int
    by_class: Mapping[str, Mapping[str, Figures]]
    num_instances: Mapping[str, int]
    findings: tuple[str, ...] = ()
    overlaps: Mapping[str, Sequence[Sequence[Overlap]]] = dataclasses.field(default_factory=dict, repr=False)

    def matches(self, kind: str) -> Matches:
        """What :mod:`~yolact_calibration.evaluation.bootstrap` takes of ``"bbox"`` or ``"segm"``. Made at each call."""
        return match_classes(self.overlaps[kind], self.num_images)

    def document(self) -> dict[str, Any]:
        """JSON object ``{"bbox": {figure: value or None, "by_class": {name: ...}}, "segm": {...}, "images": n}``."""
        return {
            "bbox": {**self.bbox, "by_class": {name: dict(f) for name, f in self.by_class["bbox"].items()}},
            "segm": {**self.segm, "by_class": {name: dict(f) for name, f in self.by_class["segm"].items()}},
            "images": self.num_images,
            "instances": dict(self.num_instances),
        }


class AccuracyMeter:
    """Collects detections image by image and then measures; masks are held as COCO's strings, a few bytes each.

    Args:
        annotations: The labels.
        class_names: Of the model, by class id; matched to the categories by name.

    Raises:
        DatasetError: The model and the data set have no class in common, or an ambiguous one; or a mask of the labels
            cannot be read.
        MissingDependencyError: faster-coco-eval is not installed.
    """

    def __init__(self, annotations: CocoAnnotations, class_names: Sequence[str]) -> None:
        require_evaluator()
        self._annotations = annotations
        self._num_classes = len(class_names)
        self._match = match_categories(class_names, annotations)
        self._images = {image.image_id: image for image in annotations.images}
        # Now and not in measure(): an annotation that cannot be read ends an evaluation before it has cost an hour.
        self._truth, self._findings = _truth_objects(annotations)
        self._detections: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self._done: set[int] = set()

    @property
    def findings(self) -> tuple[str, ...]:
        """Sentences about classes and annotations that do not fit."""
        return self._match.findings + self._findings

    def add(self, image_id: int, instances: Instances) -> None:
        """Take the detections of one image, in its pixels; the order of images does not matter.

        Raises:
            DatasetError: The data set has no such image, or of another size; the image was added before; or the
                instances are not of this model.
        """
        image = self._images.get(image_id)
        source = self._annotations.source
        if image is None:
            raise DatasetError(f"detections for the image {image_id}, which {source} does not have")
        if image_id in self._done:
            raise DatasetError(f"detections for the image {image_id} ({image.file_name}) were given twice")
        _check(instances, image, self._num_classes, source)
        self._done.add(image_id)
        for kind in KINDS:
            self._detections[kind] += detection_objects(kind, image_id, instances, self._match.category_ids)

    def measure(self) -> Accuracy:
        """Figures of what was added; an image that was not added has no detections."""
        annotations = self._annotations
        images = {image.image_id: (image.height, image.width) for image in annotations.images}
        truth = self._truth
        evaluations = {}
        for kind in KINDS:
            evaluations[kind] = evaluate(
                CocoObjects(kind, images, annotations.category_ids, truth[kind], self._detections[kind])
            )
        names = dict(zip(annotations.category_ids, annotations.category_names, strict=True))
        counts = Counter(names[item["category_id"]] for item in truth["bbox"] if not item["iscrowd"])
        return Accuracy(
            bbox=evaluations["bbox"].figures,
            segm=evaluations["segm"].figures,
            num_images=len(images),
            by_class={
                kind: {names[category_id]: figures for category_id, figures in evaluation.by_category.items()}
                for kind, evaluation in evaluations.items()
            },
            num_instances={name: counts[name] for name in annotations.category_names},
            findings=self.findings,
            overlaps={kind: evaluation.overlaps for kind, evaluation in evaluations.items()},
        )


def measure_accuracy(
    annotations: CocoAnnotations, predictions: Mapping[int, Instances], class_names: Sequence[str]
) -> Accuracy:
    """COCO's figures of a model's detections.

    Args:
        annotations: The labels.
        predictions: By image id, in pixels of that image; an image without an entry has no detections.
        class_names: Of the model, by class id; matched to the categories by name.

    Raises:
        DatasetError: Detections and labels do not belong together; the message says how.
        MissingDependencyError: faster-coco-eval is not installed.
    """
    meter = AccuracyMeter(annotations, class_names)
    for image_id, instances in predictions.items():
        meter.add(image_id, instances)
    return meter.measure()


def _check(instances: Instances, image: CocoImage, num_classes: int, source: str) -> None:
    if (instances.height, instances.width) != (image.height, image.width):
        raise DatasetError(
            f"{image.file_name} has {instances.width} x {instances.height} pixels where {source} says "
            f"{image.width} x {image.height}: is it another file, or turned by its EXIF orientation?"
        )
    if len(instances) and not 0 <= instances.class_id.min() <= instances.class_id.max() < num_classes:
        raise DatasetError(
            f"{image.file_name}: a detection of class {instances.class_id.max()}, and the model has {num_classes} "
            f"class names"
        )
    if not (np.isfinite(instances.confidence).all() and np.isfinite(instances.xyxy).all()):
        raise DatasetError(f"{image.file_name}: a detection with a score or box that is not a finite number")


def mask_score(instances: Instances) -> npt.NDArray[np.float32]:
    """``(n,)`` by which masks are ranked: the re-scored one of YOLACT++, else the box's."""
    return instances.confidence if instances.mask_confidence is None else instances.mask_confidence


def detection_objects(
    kind: str, image_id: int, instances: Instances, category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """COCO result objects of one image.

    As in the published evaluation, a detection whose box has no area is left out, boxes are ranked by confidence and
    masks by mask confidence where the model has one, and the area of a mask is its pixels.

    Args:
        kind: ``"bbox"`` or ``"segm"``.
        image_id: To write into the objects.
        instances: Of that image.
        category_ids: By class id; classes with None are left out.
    """
    xyxy = instances.xyxy.astype(np.float64)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    known = np.array([category_id is not None for category_id in category_ids], bool)[instances.class_id]
    kept = np.flatnonzero((xywh[:, 2:] > 0).all(axis=1) & known)
    score = instances.confidence if kind == "bbox" else mask_score(instances)
    shared: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": category_ids[class_id], "score": value, "iscrowd": 0}
        for class_id, value in zip(instances.class_id[kept].tolist(), score[kept].tolist(), strict=True)
    ]
    if kind == "bbox":
        boxes = xywh[kept]
        pairs = zip(boxes.tolist(), (boxes[:, 2] * boxes[:, 3]).tolist(), strict=True)
        return [{**item, "bbox": box, "area": area} for item, (box, area) in zip(shared, pairs, strict=True)]
    masks = instances.mask[kept]
    parts = zip(masks.rle(), masks.area().tolist(), strict=True)
    return [{**item, "segmentation": rle, "area": area} for item, (rle, area) in zip(shared, parts, strict=True)]


def _truth_objects(annotations: CocoAnnotations) -> tuple[dict[str, list[dict[str, Any]]], tuple[str, ...]]:
    """The labels as objects for the evaluator, by kind, and findings about them.

    COCO sorts truth into small, medium and large by the ``area`` of the annotation, for boxes too. Where it is missing,
    the mask's pixels take its place, and a finding says so.

    Raises:
        DatasetError: A segmentation is neither polygons nor RLE of the image's size.
    """
    truth: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    num_without_area = 0
    for image in annotations.images:
        entries = annotations.instances.get(image.image_id, ())
        masks = annotations.masks(image)
        for entry, rle, pixels in zip(entries, masks.rle(), masks.area().tolist(), strict=True):
            num_without_area += entry.get("area") is None
            shared = {
                "image_id": image.image_id,
                "category_id": int(entry["category_id"]),
                "iscrowd": int(entry.get("iscrowd", 0)),
                "area": float(pixels if entry.get("area") is None else entry["area"]),
            }
            truth["bbox"].append({**shared, "bbox": [float(value) for value in entry["bbox"]]})
            truth["segm"].append({**shared, "segmentation": rle})
    if not num_without_area:
        return truth, ()
    return truth, (f"{num_without_area} annotations state no area; the pixels of their masks are taken for it",)
