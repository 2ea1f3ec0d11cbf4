"""Pictures of a training's report: what a model finds in images that it was not trained on, beside what is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.evaluation.agreement import ImageAgreement, measure_agreement
from yolact_calibration.report.contact_sheet import SheetOptions, side_by_side
from yolact_export.model.yolact import Yolact
from yolact_export.training.evaluation import make_segmenter
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.image_reader import ImageReader

__all__ = ["choose_images", "compare_held_back", "held_back_labels"]

_MOST_LOOKED_AT = 40
_NUM_OF_EACH = 2
_SHEET = SheetOptions(longest_px=360, max_picture_bytes=20_000)


def held_back_labels(model: Yolact, data: AnnotatedImages, class_names: Sequence[str]) -> dict[str, Any]:
    """Compare what a model finds with the labels of images that it was not trained on.

    Up to 40 images are examined, evenly spread over the data set.

    Args:
        model: Model in eval mode.
        data: Images and labels; labels of classes that the model does not have are left out, and so are crowds.
        class_names: Names of the model's classes.

    Returns:
        Object for :func:`yolact_calibration.report.image_pairs.draw_held_back`, ready for JSON.

    Raises:
        DatasetError: A label cannot be read.
        MediaError: An image cannot be read.
    """
    images = data.annotations.images
    chosen = {image.file_name: image for image in _spread(images)}
    truth = {name: _labels(data, image, class_names) for name, image in chosen.items()}
    paths = {name: data.path(image) for name, image in chosen.items()}
    return _compare(model, truth, paths, data.reader, class_names, ("labels", "found"))


def compare_held_back(
    model: Yolact, reference: Mapping[str, Instances], reader: ImageReader, class_names: Sequence[str]
) -> dict[str, Any]:
    """Compare what a pruned model finds with what the dense one found in images that it was not trained on.

    Args:
        model: The pruned model in eval mode.
        reference: All detections of the dense model, by the path of the image.
        reader: Reader of the images.
        class_names: Names of the classes of both models.

    Returns:
        Object for :func:`yolact_calibration.report.image_pairs.draw_held_back`, ready for JSON.

    Raises:
        MediaError: An image cannot be read.
    """
    chosen = _spread(list(reference))
    truth = {path: reference[path] for path in chosen}
    return _compare(model, truth, {path: Path(path) for path in chosen}, reader, class_names, ("dense model", "pruned"))


def _compare(
    model: Yolact,
    truth: Mapping[str, Instances],
    paths: Mapping[str, Path],
    reader: ImageReader,
    class_names: Sequence[str],
    sides: tuple[str, str],
) -> dict[str, Any]:
    segmenter = make_segmenter(model, class_names)
    found = {name: segmenter(reader.read(path)) for name, path in paths.items()}
    options = dataclasses.replace(_SHEET, is_truth=sides[0] == "labels")
    ranked = [one for one in measure_agreement(truth, found, class_names).images if one.num_reference or one.num_extra]
    entries = []
    for rank, one in choose_images(ranked):
        frame = reader.read(paths[one.name])
        pictures = side_by_side(frame, truth[one.name], found[one.name], class_names, options)
        shown = {"name": paths[one.name].name, "reference": pictures[0], "candidate": pictures[1]}
        entries.append({**dataclasses.asdict(one), **shown, "rank": rank, "sides": sides})
    return {"num_images": len(paths), "num_empty": len(paths) - len(ranked), "truth": sides[0], "pictures": entries}


def choose_images(images: Sequence[ImageAgreement]) -> list[tuple[str, ImageAgreement]]:
    """Return the images to show, with their ranks: two of the smallest loss, two in the middle, two of the largest.

    Of few images the worst are shown first of all, then the best. No image is shown twice.

    Args:
        images: All images, in any order.
    """
    order = sorted(images, key=lambda image: (image.loss, image.name))
    worst = order[max(0, len(order) - _NUM_OF_EACH) :]
    rest = order[: len(order) - len(worst)]
    best, between = rest[:_NUM_OF_EACH], rest[_NUM_OF_EACH:]
    first = max(0, (len(between) - _NUM_OF_EACH + 1) // 2)
    groups = {"best": best, "median": between[first : first + _NUM_OF_EACH], "worst": worst[::-1]}
    return [(rank, image) for rank, some in groups.items() for image in some]


def _spread(images: Sequence[Any]) -> Sequence[Any]:
    """Return an evenly spread selection of limited size."""
    return images[:: max(1, -(-len(images) // _MOST_LOOKED_AT))]


def _labels(data: AnnotatedImages, image: Any, class_names: Sequence[str]) -> Instances:
    """Return the labels of an image as instances with full confidence, the largest first."""
    annotations = data.annotations
    name_of = dict(zip(annotations.category_ids, annotations.category_names, strict=True))
    names = [name_of[item.category_id] for item in annotations.instances.get(image.image_id, ())]
    crowds = [item.is_crowd for item in annotations.instances.get(image.image_id, ())]
    masks = annotations.masks(image)
    known = [i for i, name in enumerate(names) if name in class_names and not crowds[i]]
    known.sort(key=masks.area().tolist().__getitem__, reverse=True)
    masks = masks[known]
    class_id = np.array([class_names.index(names[i]) for i in known], np.int32)
    return Instances(masks.bounds().astype(np.float32), masks, np.ones(len(known), np.float32), class_id)
