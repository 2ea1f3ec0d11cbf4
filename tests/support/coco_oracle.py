"""pycocotools as the reference of the evaluation, and random data sets to compare on."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

__all__ = ["CLASS_NAMES", "pycocotools_figures", "random_data_set", "repeated", "results_of"]

Document = dict[str, Any]
Figures = dict[str, float | None]

# "ghost" is never in the truth, "void" neither in the truth nor found, "unseen" never found.
CLASS_NAMES = ("apple", "pear", "ghost", "void", "unseen")
_STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_STATS += ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def results_of(kind: str, predictions: Mapping[int, Instances], category_ids: Sequence[int]) -> list[Document]:
    """Return result objects as the published evaluation writes them, but with float boxes, by class id of the model."""
    results = []
    for image_id, instances in predictions.items():
        scores = instances.confidence
        if kind == "segm" and instances.mask_confidence is not None:
            scores = instances.mask_confidence
        for i, rle in enumerate(instances.mask.rle()):
            left, top, right, bottom = (float(value) for value in instances.xyxy[i])
            if right <= left or bottom <= top:
                continue
            entry: Document = {
                "image_id": image_id,
                "category_id": category_ids[instances.class_id[i]],
                "score": float(scores[i]),
            }
            entry |= {"bbox": [left, top, right - left, bottom - top]} if kind == "bbox" else {"segmentation": rle}
            results.append(entry)
    return results


def pycocotools_figures(document: Document, results: list[Document], kind: str) -> tuple[Figures, dict[int, Figures]]:
    """Return the twelve figures, and those of each category id, with None for -1."""
    document, results = copy.deepcopy(document), copy.deepcopy(results)
    for number, annotation in enumerate(document["annotations"], start=1):
        # Zero means "not matched" to pycocotools.
        annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = document
        truth.createIndex()
        if results:
            found = truth.loadRes(results)
        else:
            # loadRes looks at the first result.
            found = COCO()
            found.dataset = {**document, "annotations": []}
            found.createIndex()
        judge = COCOeval(truth, found, kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    whole = dict(zip(_STATS, (_defined(value) for value in judge.stats), strict=True))
    precision, recall = judge.eval["precision"], judge.eval["recall"]
    by_category = {}
    for k, category_id in enumerate(judge.params.catIds):
        p, r = precision[:, :, k], recall[:, k]
        values = [p[..., 0, 2], p[0, :, 0, 2], p[5, :, 0, 2], p[..., 1, 2], p[..., 2, 2], p[..., 3, 2]]
        values += [r[:, 0, 0], r[:, 0, 1], r[:, 0, 2], r[:, 1, 2], r[:, 2, 2], r[:, 3, 2]]
        means = [float(value[value > -1].mean()) if (value > -1).any() else -1.0 for value in values]
        by_category[int(category_id)] = dict(zip(_STATS, map(_defined, means), strict=True))
    return whole, by_category


def _defined(value: float) -> float | None:
    return None if value == -1 else float(value)


def repeated(
    document: Document, predictions: Mapping[int, Instances], times: Mapping[int, int]
) -> tuple[Document, dict[int, Instances]]:
    """Repeat each image of a data set as often as `times` states, copies beside each other."""
    images, annotations, copies = [], [], {}
    for image in sorted(document["images"], key=lambda image: image["id"]):
        for _ in range(times[image["id"]]):
            new_id = len(images) + 1
            images.append({**image, "id": new_id})
            of_image = [entry for entry in document["annotations"] if entry["image_id"] == image["id"]]
            annotations += [{**entry, "image_id": new_id} for entry in of_image]
            if image["id"] in predictions:
                copies[new_id] = predictions[image["id"]]
    return {**document, "images": images, "annotations": annotations}, copies


def random_data_set(
    seed: int, num_images: int = 5, *, ties: bool = True, rescored: bool = False, max_found: int = 14
) -> tuple[Document, dict[int, Instances], tuple[str, ...]]:
    """Make labels, detections by image id, and class names, with all special cases of COCO's protocol.

    These are crowds (as uncompressed and compressed RLE), polygons, areas at the edges of the ranges and different from
    the mask's, images without truth, without detections and without an entry, classes without either, boxes without
    area, empty masks, and with `ties` many equal scores.
    """
    random = np.random.default_rng(seed)
    ids = random.permutation(100)[:num_images] + 1
    document: Document = {
        "images": [],
        "annotations": [],
        # Neither sorted nor without gaps.
        "categories": [{"id": i, "name": name} for i, name in zip((7, 3, 12, 1, 5), CLASS_NAMES, strict=True)],
    }
    predictions = {}
    for position, image_id in enumerate(ids.tolist()):
        height, width = int(random.integers(100, 140)), int(random.integers(100, 180))
        document["images"].append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width})
        num_truth = 0 if position == 1 else int(random.integers(1, 7))
        shapes = [_shape(random, height, width) for _ in range(num_truth)]
        class_ids = random.choice([0, 1, 4], num_truth, p=[0.5, 0.35, 0.15])
        for shape, class_id in zip(shapes, class_ids.tolist(), strict=True):
            entry = _truth(random, shape) | {"image_id": image_id, "category_id": (7, 3, 12, 1, 5)[class_id]}
            document["annotations"].append({**entry, "id": len(document["annotations"])})
        if position != 2:
            frame = _Frame(height, width, shapes, class_ids.tolist())
            predictions[image_id] = _found(random, frame, max_found, ties=ties, rescored=rescored)
    return document, predictions, CLASS_NAMES


def _shape(random: np.random.Generator, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return an ellipse with a corner cut off."""
    rows, columns = np.mgrid[:height, :width]
    centre, radius = (
        random.uniform([0, 0], [height, width]),
        random.choice([6, 14, 40, 60], 2) * random.uniform(0.7, 1.2),
    )
    inside = ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 < 1
    inside &= rows + columns < centre.sum() + 0.8 * radius.sum()
    inside[int(np.clip(centre[0], 0, height - 1)), int(np.clip(centre[1], 0, width - 1))] = True
    return np.asarray(inside)


def _box(shape: npt.NDArray[np.bool_]) -> list[float]:
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def _truth(random: np.random.Generator, shape: npt.NDArray[np.bool_]) -> Document:
    left, top, right, bottom = _box(shape)
    segmentation: Any = Masks.from_dense(shape[None]).rle()[0]
    is_crowd = bool(random.random() < 0.25)
    if is_crowd and random.random() < 0.5:
        flat = np.concatenate([[0], shape.T.ravel(), [0]])
        edges = np.flatnonzero(np.diff(flat))
        segmentation = {
            "size": list(shape.shape),
            "counts": np.diff(np.concatenate([[0], edges, [shape.size]])).tolist(),
        }
    elif not is_crowd and random.random() < 0.3:
        segmentation = [[left, top, right, top, right, bottom - 0.5, left + 0.3, bottom]]
    return {
        "segmentation": segmentation,
        "bbox": [left, top, right - left, bottom - top],
        "area": float(random.choice([shape.sum(), shape.sum() * 0.9, 1024, 9216])),
        "iscrowd": int(is_crowd),
    }


@dataclasses.dataclass(frozen=True)
class _Frame:
    height: int
    width: int
    shapes: list[npt.NDArray[np.bool_]]
    class_ids: list[int]


def _found(random: np.random.Generator, frame: _Frame, max_found: int, *, ties: bool, rescored: bool) -> Instances:
    """Return instances of the frame, slightly moved and some with another class, among false positives."""
    count = int(random.integers(0, max_found + 1))
    masks, boxes = np.zeros((count, frame.height, frame.width), bool), np.zeros((count, 4), np.float32)
    class_ids = random.choice([0, 1, 2], count, p=[0.5, 0.35, 0.15])
    for i in range(count):
        shape = _shape(random, frame.height, frame.width)
        if frame.shapes and random.random() < 0.8:
            known = random.integers(len(frame.shapes))
            shape = frame.shapes[known]
            if random.random() < 0.9 and frame.class_ids[known] != 4:
                class_ids[i] = frame.class_ids[known]
        masks[i] = np.roll(shape, random.integers(-2, 3, 2), axis=(0, 1))
        boxes[i] = np.array(_box(shape)) + random.normal(0, 1, 4)
        if random.random() < 0.05:
            masks[i] = False
        if random.random() < 0.05:
            boxes[i, 2] = boxes[i, 0] - random.integers(0, 2)
    scores = [random.integers(1, 9, count) / 8 if ties else random.permutation(1000)[:count] / 1000 for _ in range(2)]
    if not ties:
        scores = [score + random.random(count) * 1e-3 for score in scores]
    order = np.argsort(-scores[0], kind="stable")
    return Instances(
        boxes[order],
        Masks.from_dense(masks[order]),
        scores[0][order].astype(np.float32),
        class_ids[order].astype(np.int32),
        (scores[0] * scores[1])[order].astype(np.float32) if rescored else None,
    )
