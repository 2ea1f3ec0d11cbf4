"""CPU post-processing against plain dense PyTorch: ``python -m yolact_benchmarks.studies.postprocess``.

Both sides get the same raw outputs and return the same instances, which is checked, from logits to masks in the frame.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.machine.memory import peak_allocated_bytes, peak_extra_bytes
from yolact_benchmarks.measure.scenes import COCO_550, make_outputs
from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.timing import time_interleaved
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.masks.masks import Masks

__all__ = ["main"]

_BOX_AREAS = (0.025, 0.12)


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a table, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.postprocess", description=__doc__)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--size", default="1920x1080", help="frame, width x height")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    width, height = map(int, options.size.split("x"))
    rows = []
    for box_area in _BOX_AREAS:
        # A process for each scene: peak memory is that of a process.
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            job = pool.submit(_compare, options.instances, box_area, height, width, options.repeats)
            rows.append(job.result())
    for row in rows:
        print(
            f"{row['instances']} instances, {row['box_area']:.1%} boxes, {options.size}: ours "
            f"{row['ours']['median_ms']:.1f} ms, dense PyTorch {row['dense_torch']['median_ms']:.1f} ms, "
            f"ratio {row['ratio']:.1f}; peak memory {row['ours_peak_mb']:.1f} and {row['dense_torch_peak_mb']:.0f} MB"
        )
    if options.results:
        command = (
            f"python -m yolact_benchmarks.studies.postprocess --instances {options.instances} --size {options.size}"
        )
        write_record(options.results, "postprocess", rows, f"{command} --repeats {options.repeats}")
    return 0


def _compare(instances: int, box_area: float, height: int, width: int, repeats: int) -> dict[str, Any]:
    import torch

    from yolact_benchmarks.peers.dense_postprocess import dense_postprocess

    outputs = make_outputs(instances, box_area, seed=1)
    postprocess = Postprocessor.of(COCO_550)
    tensors = {name: torch.from_numpy(array[0]) for name, array in outputs.items()}
    priors = torch.from_numpy(postprocess.priors)

    def ours() -> Any:
        return postprocess(outputs, height, width)

    @torch.inference_mode()
    def dense_torch() -> Any:
        return dense_postprocess(**tensors, priors=priors, height=height, width=width, min_confidence=0.0)

    # Measured before anything else has run: memory freed by an earlier call would be reused and not show. Ours needs so
    # little that it may fit in such memory anyway, so NumPy's allocations are counted too, and the larger is taken.
    peaks = {name: peak_extra_bytes(run) / 1e6 for name, run in (("ours", ours), ("dense_torch", dense_torch))}
    peaks["ours"] = max(peaks["ours"], peak_allocated_bytes(ours) / 1e6)
    _require_equal(ours(), dense_torch())
    times = time_interleaved({"ours": ours, "dense_torch": dense_torch}, repeats)
    found = ours()
    return {
        "instances": len(found),
        "box_area": box_area,
        "frame": [height, width],
        "mask_area": round(float(found.mask.area().mean()) / (height * width), 4),
        "ours": dataclasses.asdict(times["ours"]),
        "dense_torch": dataclasses.asdict(times["dense_torch"]),
        "ratio": round(times["dense_torch"].median_ms / times["ours"].median_ms, 1),
        "ours_peak_mb": round(peaks["ours"], 1),
        "dense_torch_peak_mb": round(peaks["dense_torch"], 1),
        "result_mb": round(found.mask.nbytes / 1e6, 2),
        "torch_threads": torch.get_num_threads(),
    }


def _require_equal(ours: Any, dense: Any) -> None:
    """Raise an error if the two sides do not return the same instances, in which case their times mean nothing."""
    same = len(ours) == len(dense.class_id) and np.array_equal(ours.class_id, dense.class_id.numpy())
    if not same:
        raise RuntimeError("the two implementations return different instances")
    theirs = Masks.from_dense(dense.mask.numpy())
    different = sum(int((a != b).sum()) for a, b in zip(ours.mask.dense(), theirs.dense(), strict=True))
    if different > 1e-6 * dense.mask.numel():
        raise RuntimeError(f"the two implementations differ in {different} mask pixels")


if __name__ == "__main__":
    sys.exit(main())
