"""Packages that were considered, beside those in use: ``python -m yolact_benchmarks.studies.libraries``.

Measures what a package takes on the disk and at its import, and two evaluators of COCO's protocol. Everything runs in
fresh interpreters that take turns; processor time is counted, because other programs may be running.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.machine.memory import peak_extra_bytes
from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.evaluator import make_data_set
from yolact_calibration.evaluation.accuracy import detection_objects
from yolact_calibration.evaluation.coco_evaluator import KINDS, CocoObjects, evaluate
from yolact_calibration.evaluation.label_truth import truth_objects
from yolact_calibration.labels.coco import CocoAnnotations

__all__ = ["main"]


@dataclass(frozen=True)
class Package:
    """A package that is in use or was considered, and the distributions besides NumPy that come with it."""

    name: str
    module: str
    needs: tuple[str, ...] = ()


_ONNX = ("protobuf", "ml_dtypes", "typing_extensions")
_JSON_SCHEMA = ("jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "attrs")
_PLOTTING = (
    "contourpy",
    "cycler",
    "fonttools",
    "kiwisolver",
    "packaging",
    "pillow",
    "pyparsing",
    "python-dateutil",
    "tzdata",
)
PACKAGES = (
    Package("cuda-bindings", "cuda.bindings.driver", ("cuda-pathfinder",)),
    Package("cuda-core", "cuda.core", ("cuda-bindings", "cuda-pathfinder")),
    Package("onnx", "onnx", _ONNX),
    Package("onnx-ir", "onnx_ir", ("onnx", *_ONNX, "packaging", "sympy", "mpmath")),
    Package("faster-coco-eval", "faster_coco_eval"),
    Package("hotcoco", "hotcoco"),
    Package("Jinja2", "jinja2", ("MarkupSafe",)),
    Package("pygal", "pygal", ("importlib-metadata", "zipp")),
    Package("matplotlib", "matplotlib.pyplot", _PLOTTING),
    Package("plotly", "plotly.graph_objects", ("narwhals", "packaging")),
    Package(
        "altair",
        "altair",
        ("vl-convert-python", "Jinja2", "MarkupSafe", "narwhals", "packaging", "typing_extensions", *_JSON_SCHEMA),
    ),
)
_MEASURE = (
    "import json, time, numpy; from yolact_benchmarks.machine.memory import peak_resident_bytes as peak; "
    "before = time.process_time(); import {module}; print(json.dumps([time.process_time() - before, peak()]))"
)
_TOLERANCE = 1e-9
Figures = list[float | None]


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each package and evaluator, and write a record."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.libraries", description=__doc__)
    parser.add_argument("--repeats", type=int, default=11, help="fresh interpreters for each import")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=20, help="in each image")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    parser.add_argument("--evaluate", nargs=2, metavar=("EVALUATOR", "KIND"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.evaluate:
        name, kind = options.evaluate
        print(json.dumps(_evaluate_once(name, kind, options.images, options.detections)))
        return 0
    known = [package for package in PACKAGES if _is_installed(package)]
    missing = sorted({package.name for package in PACKAGES} - {package.name for package in known})
    print(f"not installed, and left out: {', '.join(missing) or 'none'}")
    packages = _packages(known, options.repeats)
    evaluators = [
        _compare_evaluators(kind, options.images, options.detections) for kind in KINDS if "hotcoco" not in missing
    ]
    for row in [*packages, *evaluators]:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if options.results:
        command = f"python -m yolact_benchmarks.studies.libraries --repeats {options.repeats} --images {options.images}"
        results = {"packages": packages, "evaluators": evaluators, "missing": missing}
        write_record(options.results, "libraries", results, f"{command} --detections {options.detections}")
    return 0


def _is_installed(package: Package) -> bool:
    try:
        importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _packages(packages: Sequence[Package], repeats: int) -> list[dict[str, Any]]:
    modules = ["sys", *(package.module for package in packages)]
    samples: dict[str, list[list[float]]] = {module: [] for module in modules}
    for _ in range(repeats):
        for module in modules:
            samples[module].append(_run_json("-c", _MEASURE.format(module=module)))
    _, base = np.median(samples["sys"], axis=0)
    rows = []
    for package in packages:
        seconds, peak = np.median(samples[package.module], axis=0)
        rows.append(
            {
                "name": package.name,
                "version": importlib.metadata.version(package.name),
                "installed_mb": round(sum(map(_num_bytes, (package.name, *package.needs))) / 1e6, 1),
                "import_ms": round(float(seconds) * 1e3),
                "memory_mb": round(float(peak - base) / 1e6),
            }
        )
    return rows


def _num_bytes(distribution: str) -> int:
    """Return the size of a distribution's files without compiled Python, which an installer may or may not write."""
    files = importlib.metadata.files(distribution) or ()
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file())


def _run_json(*words: str) -> Any:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True)
    # hotcoco prints its summary first.
    return json.loads(done.stdout.splitlines()[-1])


def _compare_evaluators(kind: str, num_images: int, num_detections: int, repeats: int = 3) -> dict[str, Any]:
    words = ("-m", "yolact_benchmarks.studies.libraries", "--images", str(num_images))
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in _EVALUATORS}
    for _ in range(repeats):
        for name, found in samples.items():
            found.append(_run_json(*words, "--detections", str(num_detections), "--evaluate", name, kind))
    ours, other = (samples[name][0]["figures"] for name in ("faster-coco-eval", "hotcoco"))
    row: dict[str, Any] = {"kind": kind, "images": num_images, "detections": num_detections}
    row["max_difference"] = _largest_difference(ours, other)
    for name, found in samples.items():
        row[name] = {key: round(statistics.median(one[key] for one in found), 3) for key in ("cpu_s", "added_mb")}
    row["ratio"] = round(row["faster-coco-eval"]["cpu_s"] / row["hotcoco"]["cpu_s"], 1)
    return row


def _largest_difference(ours: Figures, other: Figures) -> float:
    pairs = [(a, b) for a, b in zip(ours, other, strict=True) if a is not None and b is not None]
    if [a is None for a in ours] != [b is None for b in other]:
        raise RuntimeError(f"the evaluators define other figures: {ours} and {other}")
    largest = max(abs(a - b) for a, b in pairs)
    if largest > _TOLERANCE:
        raise RuntimeError(f"the evaluators differ by {largest:.1g}")
    return largest


def _evaluate_once(name: str, kind: str, num_images: int, num_detections: int) -> dict[str, Any]:
    objects = _objects(kind, num_images, num_detections)
    figures: Figures = []
    seconds = 0.0

    def run() -> None:
        nonlocal seconds
        begin = time.process_time()
        figures.extend(_EVALUATORS[name](objects))
        seconds = time.process_time() - begin

    added = peak_extra_bytes(run)
    return {"figures": figures, "cpu_s": seconds, "added_mb": added / 1e6}


def _objects(kind: str, num_images: int, num_detections: int) -> CocoObjects:
    document, predictions, names = make_data_set(num_images, num_detections, num_classes=80, seed=1)
    annotations = CocoAnnotations.from_document(document, "benchmark")
    category_ids = list(range(1, len(names) + 1))
    numbers: dict[int | str, int] = {key: key for key in predictions}
    truth, _ = truth_objects(annotations, numbers, dict(zip(category_ids, category_ids, strict=True)))
    detections = [item for key, one in predictions.items() for item in detection_objects(kind, key, one, category_ids)]
    images = {number: (image.height, image.width) for number, image in enumerate(annotations.images, start=1)}
    return CocoObjects(kind, images, tuple(category_ids), truth[kind], detections)


def _faster_coco_eval(objects: CocoObjects) -> Figures:
    return list(evaluate(objects).figures.values())


def _hotcoco(objects: CocoObjects) -> Figures:
    """Return its figures, and compute the overlaps of all pairs, which the bootstrap needs."""
    import hotcoco
    import hotcoco.mask

    images = [{"id": key, "height": height, "width": width} for key, (height, width) in objects.images.items()]
    categories = [{"id": key, "name": str(key)} for key in objects.category_ids]
    sides = []
    for side in (objects.truth, objects.detections):
        for number, annotation in enumerate(side, start=1):
            annotation["id"] = number
        sides.append(hotcoco.COCO({"images": images, "categories": categories, "annotations": side}))
    evaluator = hotcoco.COCOeval(*sides, objects.kind)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    field = "bbox" if objects.kind == "bbox" else "segmentation"
    pairs: dict[tuple[int, int], tuple[list[Any], list[Any]]] = {}
    for i, side in enumerate((objects.detections, objects.truth)):
        for item in side:
            pairs.setdefault((item["image_id"], item["category_id"]), ([], []))[i].append(item)
    for detections, truth in pairs.values():
        is_crowd = [bool(item["iscrowd"]) for item in truth]
        hotcoco.mask.iou([item[field] for item in detections], [item[field] for item in truth], is_crowd)
    return [None if value < 0 else float(value) for value in evaluator.stats]


_EVALUATORS: dict[str, Callable[[CocoObjects], Figures]] = {
    "faster-coco-eval": _faster_coco_eval,
    "hotcoco": _hotcoco,
}


if __name__ == "__main__":
    sys.exit(main())
