"""Cost of calibration: ``python -m yolact_benchmarks.studies.calibration MODEL.onnx --calib DIR``.

The study answers two questions. Does memory grow with the number of images? Fresh processes calibrate on few and on
many. How much longer does calibration take than the forward passes alone? One process alternates blocks of both over
the same images.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from yolact_benchmarks.machine.memory import peak_resident_bytes
from yolact_benchmarks.report.record import write_record
from yolact_calibration.quantisation.calibration_cache import calibrate
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.observer import load_model
from yolact_calibration.quantisation.qdq_placement import quantisable_tensors
from yolact_calibration.quantisation.trial import GraphBackend
from yolact_plugins.staging import scratch_folder
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.bundle import open_bundle

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print its figures, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.calibration", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="float network of a bundle")
    parser.add_argument("--calib", nargs="+", required=True, metavar="DIR")
    parser.add_argument("--few", type=int, default=12)
    parser.add_argument("--many", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3, help="blocks of calibration and of passes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    few, many = (
        _in_fresh_process(_peak, options.model, options.calib, count, options.threads)
        for count in (options.few, options.many)
    )
    cost = _in_fresh_process(_cost, options.model, options.calib, options.few, options.threads, options.repeats)
    result = {"model": options.model.parent.stem, "threads": options.threads, "memory": [few, many], **cost}
    result["memory_ratio"] = round(many["peak_mb"] / few["peak_mb"], 3)
    print(
        f"{result['model']}: peak {few['peak_mb']} MB with {few['images']} images, {many['peak_mb']} MB with "
        f"{many['images']} ({result['memory_ratio']} x); calibration {cost['calibration_s']} s, forward passes alone "
        f"{cost['forward_s']} s ({cost['ratio']} x)"
    )
    if options.results:
        command = f"python -m yolact_benchmarks.studies.calibration {options.model.name} --calib PHOTOS"
        write_record(options.results, f"calibration-{result['model']}", result, command)
    return 0


def _in_fresh_process(function: Any, *arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result: dict[str, Any] = pool.submit(function, *arguments).result()
        return result


def _images(words: list[str], count: int) -> CalibrationImages:
    found = find_calibration_images(words)
    if len(found) < count:
        raise SystemExit(f"{' '.join(words)}: {len(found)} usable images, {count} are needed")
    return dataclasses.replace(found, images=found.images[:count])


def _calibrate(model: Path, images: CalibrationImages, num_threads: int) -> float:
    spec = open_bundle(model).manifest.input
    tensors = quantisable_tensors(NetworkGraph(load_model(model)))
    with scratch_folder("calibration") as folder:
        started = time.perf_counter()
        calibrate(model, tensors, images, spec, num_threads=num_threads, cache=Path(folder))
        return time.perf_counter() - started


def _peak(model: Path, words: list[str], count: int, num_threads: int) -> dict[str, Any]:
    _calibrate(model, _images(words, count), num_threads)
    return {"images": count, "peak_mb": round(peak_resident_bytes() / 1e6)}


def _cost(model: Path, words: list[str], count: int, num_threads: int, repeats: int) -> dict[str, Any]:
    images = _images(words, count)
    spec = open_bundle(model).manifest.input
    backend = GraphBackend(model.read_bytes(), num_threads)
    calibration, forward = [], []
    for _ in range(repeats):
        calibration.append(_calibrate(model, images, num_threads))
        tensors = [preprocess(frame, spec) for _, frame in images]
        backend.infer(tensors[0])
        started = time.perf_counter()
        for tensor in tensors:
            backend.infer(tensor)
        forward.append(time.perf_counter() - started)
    return {
        "images": count,
        "calibration_s": round(statistics.median(calibration), 2),
        "forward_s": round(statistics.median(forward), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(calibration, forward, strict=True)), 2),
    }


if __name__ == "__main__":
    raise SystemExit(main())
