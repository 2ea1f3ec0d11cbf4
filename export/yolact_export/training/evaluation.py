"""Accuracy of a PyTorch model, with the runtime's own preprocessing and postprocessing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.evaluation.accuracy import Accuracy, measure_accuracy
from yolact_calibration.evaluation.agreement import Agreement, measure_agreement
from yolact_calibration.training.torch_backend import torch_segmenter
from yolact_export.model.yolact import Yolact
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import Segmenter

__all__ = ["evaluate_model", "find_instances", "make_segmenter", "measure_model_agreement"]


def make_segmenter(model: Yolact, class_names: Sequence[str]) -> Segmenter:
    """Create a segmenter around a model in eval mode; it uses the model's weights as they change."""
    config = model.config
    manifest = Manifest(
        config.name,
        tuple(class_names),
        config.input_spec(),
        config.prior_spec(),
        mask_rescoring=model.mask_iou is not None,
    )
    return torch_segmenter(model, manifest, model.mask_iou)


def evaluate_model(model: Yolact, data: AnnotatedImages, class_names: Sequence[str] | None = None) -> Accuracy:
    """Measure the COCO accuracy of a model in eval mode.

    Args:
        model: Model in eval mode, on any device.
        data: Annotated images.
        class_names: Class names of the model; None uses the data set's, in its order.
    """
    names = data.annotations.category_names if class_names is None else tuple(class_names)
    segmenter = make_segmenter(model, names)
    predictions = {image.image_id: segmenter(data.reader.read(data.path(image))) for image in data.annotations.images}
    return measure_accuracy(data.annotations, predictions, names)


def find_instances(
    model: Yolact, class_names: Sequence[str], paths: Iterable[Path], reader: ImageReader
) -> dict[str, Instances]:
    """Return all instances that a model in eval mode finds, by file."""
    segmenter = make_segmenter(model, class_names)
    return {str(path): segmenter(reader.read(path)) for path in paths}


def measure_model_agreement(
    reference: dict[str, Instances], model: Yolact, class_names: Sequence[str], reader: ImageReader
) -> Agreement:
    """Measure the agreement of a model in eval mode with another's results of :func:`find_instances`."""
    return measure_agreement(reference, find_instances(model, class_names, map(Path, reference), reader), class_names)
