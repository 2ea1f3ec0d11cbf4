"""Accuracy to report next to speed: box and mask AP with labels, or agreement with another model without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.accuracy import AccuracyMeter
from yolact_calibration.evaluation.agreement import AgreementMeter
from yolact_calibration.evaluation.bootstrap import Interval, bootstrap_precision
from yolact_calibration.evaluation.coco_evaluator import KINDS
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter import Segmenter

__all__ = ["measure_accuracy_of", "measure_agreement_of"]

_NAMES = {"bbox": "box", "segm": "mask"}
_TRUTH_CONFIDENCE = 0.3


def measure_accuracy_of(
    segmenters: Mapping[str, Segmenter], data: AnnotatedImages, reporter: Reporter = SILENT
) -> dict[str, dict[str, Any]]:
    """Measure the accuracy of segmenters against labels.

    Args:
        segmenters: Segmenters by name, without a second threshold: AP includes low scores.
        data: Labels and their images.
        reporter: Reporter of the progress.

    Returns:
        JSON objects by name, ``{"measure": "AP", "images", "box": [estimate, low, high], "mask": [...]}``; the figures
        of masks are null if the labels only have boxes.

    Raises:
        DatasetError: An image cannot be read, or model and labels have no class in common.
    """
    annotations = data.annotations
    todo = [(image.image_id, data.path(image)) for image in annotations.images]
    meters = {name: AccuracyMeter(annotations, segmenter.class_names) for name, segmenter in segmenters.items()}
    for image_id, path in reporter.progress(todo, "images", len(todo)):
        frame = data.reader.read(path)
        for name, segmenter in segmenters.items():
            meters[name].add(image_id, segmenter(frame))
    results = {}
    for name, meter in meters.items():
        accuracy = meter.measure()
        intervals = {kind: bootstrap_precision(accuracy.matches(kind))["AP"] for kind in KINDS}
        results[name] = _document("AP", len(todo), intervals)
    return results


def measure_agreement_of(
    segmenters: Mapping[str, Segmenter],
    reference: Segmenter,
    paths: Iterable[Path],
    reader: ImageReader,
    reporter: Reporter = SILENT,
) -> tuple[dict[str, dict[str, Any]], dict[str, AgreementMeter], dict[str, dict[str, Instances]]]:
    """Measure the agreement of segmenters with another model, whose detections above a score of 0.3 are the truth.

    Args:
        segmenters: Segmenters by name, without a second threshold.
        reference: Segmenter of the other model.
        paths: Paths of the images.
        reader: Reader of image files.
        reporter: Reporter of the progress.

    Returns:
        JSON objects by name, like those of :func:`measure_accuracy_of` but with ``"measure": "agreement"``; the meters
        by name; and the instances of each image by name of the segmenter, with ``""`` for the reference.

    Raises:
        DatasetError: The classes of the models differ.
    """
    for name, segmenter in segmenters.items():
        if tuple(segmenter.class_names) != tuple(reference.class_names):
            raise DatasetError(f"--against: {name} and the reference have different classes, so they cannot agree")
    meters = {name: AgreementMeter(reference.class_names, _TRUTH_CONFIDENCE) for name in segmenters}
    found: dict[str, dict[str, Instances]] = {name: {} for name in ("", *segmenters)}
    todo = list(paths)
    for path in reporter.progress(todo, "pictures", len(todo)):
        frame = reader.read(path)
        found[""][str(path)] = truth = reference(frame)
        for name, segmenter in segmenters.items():
            found[name][str(path)] = instances = segmenter(frame)
            meters[name].add(str(path), truth, instances)
    results = {}
    for name, meter in meters.items():
        agreement = meter.measure()
        intervals = {kind: bootstrap_precision(agreement.matches(kind))["AP"] for kind in KINDS}
        results[name] = _document("agreement", len(todo), intervals)
    return results, meters, found


def _document(measure: str, num_images: int, intervals: Mapping[str, Interval]) -> dict[str, Any]:
    figures = {_NAMES[kind]: [one.estimate, one.low, one.high] for kind, one in intervals.items()}
    return {"measure": measure, "images": num_images, **figures}
