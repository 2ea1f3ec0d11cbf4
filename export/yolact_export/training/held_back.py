"""Pictures of a training's report: labels beside what the model finds, in images that it was not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.evaluation.agreement import ImageAgreement, measure_agreement
from yolact_calibration.report.contact_sheet import SheetOptions, side_by_side
from yolact_export.model.yolact import Yolact
from yolact_export.training.evaluation import make_segmenter
from yolact_runtime.masks.instances import Instances

__all__ = ["held_back_pictures", "worst_and_typical"]

_MOST_LOOKED_AT = 40
_NUM_WORST, _NUM_TYPICAL = 3, 3
_SHEET = SheetOptions(longest_px=360, max_picture_bytes=20_000)
_SIDES = ("labels", "found")


def held_back_pictures(model: Yolact, data: AnnotatedImages, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The worst and some typical ones of the images, as pictures for a page.

    Up to 40 images are looked at, evenly spread over the data set.

    Args:
        model: In eval mode.
        data: Images and labels; labels of classes that the model does not have are left out, and so are crowds.
        class_names: Those of the model.

    Returns:
        JSON objects for :func:`yolact_calibration.report.precision_evidence.draw_images`: three with the largest loss,
        the worst first, then three around the median.

    Raises:
        DatasetError: A label cannot be read.
        MediaError: An image cannot be read.
    """
    segmenter = make_segmenter(model, class_names)
    images = data.annotations.images
    chosen = images[:: -(-len(images) // _MOST_LOOKED_AT)]
    paths = {image.file_name: data.path(image) for image in chosen}
    truth = {image.file_name: _labels(data, image, class_names) for image in chosen}
    found = {name: segmenter(data.reader.read(path)) for name, path in paths.items()}
    shown = worst_and_typical(measure_agreement(truth, found, class_names).images)
    entries = []
    for one in shown:
        frame = data.reader.read(paths[one.name])
        pictures = side_by_side(frame, truth[one.name], found[one.name], class_names, _SHEET)
        entry = {**dataclasses.asdict(one), "reference": pictures[0], "candidate": pictures[1], "sides": _SIDES}
        entries.append(entry)
    return entries


def worst_and_typical(images: Sequence[ImageAgreement]) -> list[ImageAgreement]:
    """Those to show: the three with the largest loss, the worst first, then the three in the middle of the others.

    Args:
        images: All, in any order.
    """
    order = sorted(images, key=lambda image: (-image.loss, image.name))
    worst, others = order[:_NUM_WORST], order[_NUM_WORST:]
    first = max(0, (len(others) - _NUM_TYPICAL) // 2)
    return worst + others[first : first + _NUM_TYPICAL]


def _labels(data: AnnotatedImages, image: Any, class_names: Sequence[str]) -> Instances:
    """The labels of an image as instances that are certain, the largest first."""
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
