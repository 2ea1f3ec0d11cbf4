"""Accuracy with labels: COCO's average precision of boxes and masks.

Deliberate difference from the published evaluation: boxes keep their fractions of a pixel. The original truncates them
to whole pixels before it writes them, which changes box AP slightly and mask AP not at all.
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
from yolact_calibration.evaluation.coco_evaluator import KINDS, CocoObjects, Figures, evaluate, require_evaluator
from yolact_calibration.evaluation.label_truth import truth_objects
from yolact_calibration.evaluation.matches import Matches, Overlap, match_classes
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage
from yolact_calibration.labels.fields import Id
from yolact_runtime.masks.instances import Instances

__all__ = ["Accuracy", "AccuracyMeter", "detection_objects", "mask_score", "measure_accuracy"]


@dataclasses.dataclass(frozen=True, eq=False)
class Accuracy:
    """Agreement of detections with labels.

    Attributes:
        bbox: Figures of boxes: ``AP``, ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``, ``AR1``,
            ``AR10``, ``AR100``, ``AR_small``, ``AR_medium``, ``AR_large``. Values in [0, 1]; None if the data set has
            no instance of that kind.
        segm: Figures of masks, with the same names; all None if the labels have boxes only.
        num_images: Number of evaluated images, with or without instances.
        by_class: Mapping of ``"bbox"`` and ``"segm"`` to category names mapped to the same figures.
        num_instances: Number of instances in the data set by category name, without crowds.
        findings: Sentences about classes and annotations that do not fit.
        has_boxes_only: Whether the labels have no outlines, so that masks cannot be evaluated.
        overlaps: Mapping of ``"bbox"`` and ``"segm"`` to the overlaps from which :meth:`matches` computes its result.
    """

    bbox: Figures
    segm: Figures
    num_images: int
    by_class: Mapping[str, Mapping[str, Figures]]
    num_instances: Mapping[str, int]
    findings: tuple[str, ...] = ()
    has_boxes_only: bool = False
    overlaps: Mapping[str, Sequence[Sequence[Overlap]]] = dataclasses.field(default_factory=dict, repr=False)

    def matches(self, kind: str) -> Matches:
        """Match ``"bbox"`` or ``"segm"`` for :mod:`~yolact_calibration.evaluation.bootstrap`; computed at each call."""
        return match_classes(self.overlaps[kind], self.num_images)

    def document(self) -> dict[str, Any]:
        """Return ``{"bbox": {figure: value or None, "by_class": {name: ...}}, "segm": {...}, "images": n}``.

        ``"segm"`` is None if the labels have boxes only.
        """
        kinds: dict[str, Any] = {
            kind: {**figures, "by_class": {name: dict(f) for name, f in self.by_class[kind].items()}}
            for kind, figures in (("bbox", self.bbox), ("segm", self.segm))
        }
        if self.has_boxes_only:
            kinds["segm"] = None
        return {
            **kinds,
            "images": self.num_images,
            "instances": dict(self.num_instances),
        }


class AccuracyMeter:
    """Collector of detections, image by image, that then measures accuracy. It holds masks as COCO's compressed RLE.

    Args:
        annotations: Labels of the images.
        class_names: Class names of the model by class id, matched to the categories by name.

    Raises:
        DatasetError: The model and the data set have no class in common, or a name is ambiguous.
        MissingDependencyError: faster-coco-eval is not installed.
    """

    def __init__(self, annotations: CocoAnnotations, class_names: Sequence[str]) -> None:
        require_evaluator()
        self._annotations = annotations
        self._num_classes = len(class_names)
        self._match = match_categories(class_names, annotations)
        self._images = {image.image_id: image for image in annotations.images}
        # The evaluator accepts numbers only, but ids may be text.
        self._image_numbers = {image.image_id: number for number, image in enumerate(annotations.images, start=1)}
        ordered = sorted(annotations.category_ids, key=lambda key: (isinstance(key, str), key))
        self._category_numbers = {key: number for number, key in enumerate(ordered, start=1)}
        # Here and not in measure(): an error in the labels should not appear after an hour of evaluation.
        self._truth, self._findings = truth_objects(annotations, self._image_numbers, self._category_numbers)
        self._detections: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self._done: set[Id] = set()

    @property
    def findings(self) -> tuple[str, ...]:
        """Sentences about classes and annotations that do not fit."""
        return self._annotations.findings + self._match.findings + self._findings

    def add(self, image_id: Id, instances: Instances) -> None:
        """Add the detections of one image, in its pixels; the order of images does not matter.

        Raises:
            DatasetError: The data set has no such image, or it has another size; the image was added before; or the
                instances have classes that the model does not have, or values that are not finite.
        """
        image = self._images.get(image_id)
        source = self._annotations.source
        if image is None:
            raise DatasetError(f"detections for the image {image_id}, which {source} does not have")
        if image_id in self._done:
            raise DatasetError(f"detections for the image {image_id} ({image.file_name}) were given twice")
        _check(instances, image, self._num_classes, source)
        self._done.add(image_id)
        numbers = [None if key is None else self._category_numbers[key] for key in self._match.category_ids]
        for kind in KINDS:
            self._detections[kind] += detection_objects(kind, self._image_numbers[image_id], instances, numbers)

    def measure(self) -> Accuracy:
        """Compute the figures of the added images; an image that was not added counts as one without detections."""
        annotations = self._annotations
        images = {number: (image.height, image.width) for number, image in enumerate(annotations.images, start=1)}
        numbers = tuple(self._category_numbers.values())
        evaluations = {}
        for kind in KINDS:
            is_judged = kind == "bbox" or not annotations.has_boxes_only
            detections = self._detections[kind] if is_judged else []
            evaluations[kind] = evaluate(CocoObjects(kind, images, numbers, self._truth[kind], detections))
        by_id = dict(zip(annotations.category_ids, annotations.category_names, strict=True))
        names = {number: by_id[key] for key, number in self._category_numbers.items()}
        counts = Counter(names[item["category_id"]] for item in self._truth["bbox"] if not item["iscrowd"])
        return Accuracy(
            bbox=evaluations["bbox"].figures,
            segm=evaluations["segm"].figures,
            num_images=len(images),
            by_class={
                kind: {names[number]: figures for number, figures in evaluation.by_category.items()}
                for kind, evaluation in evaluations.items()
            },
            num_instances={name: counts[name] for name in annotations.category_names},
            findings=self.findings,
            has_boxes_only=annotations.has_boxes_only,
            overlaps={kind: evaluation.overlaps for kind, evaluation in evaluations.items()},
        )


def measure_accuracy(
    annotations: CocoAnnotations, predictions: Mapping[Any, Instances], class_names: Sequence[str]
) -> Accuracy:
    """Compute COCO's figures of a model's detections.

    Args:
        annotations: Labels of the images.
        predictions: Instances by image id, in pixels of that image; an image without an entry has no detections.
        class_names: Class names of the model by class id, matched to the categories by name.

    Raises:
        DatasetError: Detections and labels do not belong together; the message says why.
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
    """Return ``(n,)`` float32 scores that rank masks: the re-scored ones of YOLACT++, else those of the boxes."""
    return instances.confidence if instances.mask_confidence is None else instances.mask_confidence


def detection_objects(
    kind: str, image_id: int, instances: Instances, category_ids: Sequence[int | None]
) -> list[dict[str, Any]]:
    """Convert the instances of one image to COCO result objects.

    As in the published evaluation, a detection whose box has no area is left out, boxes are ranked by confidence and
    masks by mask confidence if the model has it, and the area of a mask is its number of pixels.

    Args:
        kind: Either ``"bbox"`` or ``"segm"``.
        image_id: Image id to write into the objects.
        instances: Instances of that image.
        category_ids: Category ids by class id; classes with None are left out.
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
