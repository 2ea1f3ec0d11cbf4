"""Accuracy of instances against pycocotools: ``python -m yolact_benchmarks.studies.evaluator``.

Both sides get the same labels and detections and compute the same figures, which is checked. This project's evaluator
starts from the instances that a model returns and encodes their masks; pycocotools gets finished result objects.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.timing import time_interleaved
from yolact_calibration.evaluation.accuracy import Accuracy, measure_accuracy
from yolact_calibration.evaluation.coco_evaluator import KINDS
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_plugins.files import counted
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

__all__ = ["main", "make_data_set"]

_HEIGHT, _WIDTH = 256, 320
_NUM_CLASSES = (80, 1)
"""Number of classes of each comparison: that of COCO, and the dense case of one class."""
_NUM_SCENES = 8
_TOLERANCE = 1e-6


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a line for each number of classes, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.evaluator", description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    rows = [_compare(options.images, options.detections, classes, options.repeats) for classes in _NUM_CLASSES]
    for row in rows:
        print(
            f"{row['images']} images, {counted(row['classes'], 'class', 'classes')}, "
            f"{row['instances']} instances, {row['detections']} "
            f"detections: ours {row['ours']['median_ms'] / 1e3:.2f} s, pycocotools "
            f"{row['pycocotools']['median_ms'] / 1e3:.2f} s, ratio {row['ratio']:.1f}; largest difference "
            f"{row['max_difference']:.0e}"
        )
    if options.results:
        command = (
            f"python -m yolact_benchmarks.studies.evaluator --images {options.images} --detections {options.detections}"
        )
        write_record(options.results, "evaluator", rows, f"{command} --repeats {options.repeats}")
    return 0


def _compare(num_images: int, num_detections: int, num_classes: int, repeats: int) -> dict[str, Any]:
    document, predictions, names = make_data_set(num_images, num_detections, num_classes, seed=1)
    results = {kind: _results(kind, predictions) for kind in KINDS}

    def ours() -> Accuracy:
        return measure_accuracy(CocoAnnotations.from_document(document, "benchmark"), predictions, names)

    def theirs() -> dict[str, npt.NDArray[np.float64]]:
        return {kind: _pycocotools(document, results[kind], kind) for kind in KINDS}

    difference = _require_equal(ours(), theirs())
    times = time_interleaved({"ours": ours, "pycocotools": theirs}, repeats, warm_up=0)
    return {
        "images": num_images,
        "classes": num_classes,
        "instances": len(document["annotations"]),
        "detections": sum(map(len, predictions.values())),
        "ours": dataclasses.asdict(times["ours"]),
        "pycocotools": dataclasses.asdict(times["pycocotools"]),
        "ratio": round(times["pycocotools"].median_ms / times["ours"].median_ms, 1),
        "max_difference": difference,
    }


def _require_equal(ours: Accuracy, theirs: dict[str, npt.NDArray[np.float64]]) -> float:
    """Return the largest difference of the twelve figures; fail if the two sides did not compute the same."""
    largest = 0.0
    for kind, figures in (("bbox", ours.bbox), ("segm", ours.segm)):
        mine = np.array([-1.0 if value is None else value for value in figures.values()])
        largest = max(largest, float(np.abs(mine - theirs[kind]).max()))
    if largest > _TOLERANCE:
        raise RuntimeError(f"the two evaluators differ by {largest}")
    return largest


def _pycocotools(document: dict[str, Any], results: list[dict[str, Any]], kind: str) -> npt.NDArray[np.float64]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools modifies its arguments. The copies are shallow, to cost as little as possible.
    document = {**document, "annotations": [copy.copy(entry) for entry in document["annotations"]]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = document
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes([copy.copy(entry) for entry in results]), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return np.asarray(judge.stats, np.float64)


def make_data_set(
    num_images: int, num_detections: int, num_classes: int, seed: int
) -> tuple[dict[str, Any], dict[int, Instances], tuple[str, ...]]:
    """Make labels and detections of random blobs on a plain background.

    The detections are the labels with shifted boxes and masks, among false positives.

    Returns:
        Labels as a COCO document, detections as instances by image id, and class names.
    """
    random = np.random.default_rng(seed)
    names = tuple(f"class_{i}" for i in range(1, num_classes + 1))
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    # Making masks takes longer than evaluating them: a few scenes serve all images.
    scenes = [_cells(random, num_detections) for _ in range(min(num_images, _NUM_SCENES))]
    predictions = {}
    for image_id in range(1, num_images + 1):
        masks, xyxy = scenes[image_id % len(scenes)]
        class_id = random.integers(0, num_classes, num_detections)
        size = {"height": _HEIGHT, "width": _WIDTH}
        document["images"].append({"id": image_id, "file_name": f"{image_id}.png", **size})
        num_truth = int(random.integers(0, min(40, num_detections) + 1))
        labels = masks[:num_truth]
        areas = labels.area().tolist()
        for i, rle in enumerate(labels.rle()):
            left, top, right, bottom = xyxy[i].tolist()
            entry: dict[str, Any] = {"id": len(document["annotations"]) + 1, "image_id": image_id, "iscrowd": 0}
            entry |= {"category_id": int(class_id[i]) + 1, "area": float(areas[i]), "segmentation": rle}
            document["annotations"].append(entry | {"bbox": [left, top, right - left, bottom - top]})
        score = random.beta(np.where(np.arange(num_detections) < num_truth, 4, 1), 2)
        order = np.argsort(-score, kind="stable")
        moved = xyxy + random.normal(0, 1.5, xyxy.shape)
        moved_masks = _shifted(masks, int(random.integers(0, 3)))
        predictions[image_id] = Instances(
            moved[order].astype(np.float32),
            moved_masks[order],
            score[order].astype(np.float32),
            class_id[order].astype(np.int32),
        )
    return document, predictions, names


def _cells(random: np.random.Generator, count: int) -> tuple[Masks, npt.NDArray[np.float64]]:
    """Return wavy ellipses, 10 to 140 pixels across, and their boxes."""
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    dense, xyxy = np.zeros((count, _HEIGHT, _WIDTH), bool), np.zeros((count, 4))
    for i in range(count):
        radius = random.choice([6, 12, 24, 60], p=[0.4, 0.3, 0.2, 0.1]) * random.uniform(0.8, 1.2, 2)
        row, column = random.uniform(radius, [_HEIGHT - radius[0], _WIDTH - radius[1]])
        angle = np.arctan2(rows - row, columns - column)
        edge = 1 + 0.12 * np.sin(random.integers(2, 7) * angle + random.uniform(0, 6))
        dense[i] = ((rows - row) / radius[0]) ** 2 + ((columns - column) / radius[1]) ** 2 < edge**2
        xyxy[i] = column - radius[1], row - radius[0], column + radius[1], row + radius[0]
    return Masks.from_dense(dense), xyxy


def _shifted(masks: Masks, rows: int) -> Masks:
    """Shift the masks down by `rows`; pixels that leave a column at the bottom enter the next one at the top."""
    size = masks.height * masks.width
    start, end = (np.minimum(edge + rows, size) for edge in (masks.start, masks.end))
    owner = np.repeat(np.arange(len(masks)), np.diff(masks.offset))
    return Masks.from_runs(owner, start, end, len(masks), masks.height, masks.width)


def _results(kind: str, predictions: dict[int, Instances]) -> list[dict[str, Any]]:
    results = []
    for image_id, instances in predictions.items():
        for i, rle in enumerate(instances.mask.rle()):
            left, top, right, bottom = (float(value) for value in instances.xyxy[i])
            if right <= left or bottom <= top:
                continue
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": int(instances.class_id[i]) + 1,
                "score": float(instances.confidence[i]),
            }
            what: dict[str, Any] = {"segmentation": rle}
            results.append(entry | ({"bbox": [left, top, right - left, bottom - top]} if kind == "bbox" else what))
    return results


if __name__ == "__main__":
    sys.exit(main())
