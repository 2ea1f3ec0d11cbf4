"""Everything that only a GPU can tell: ``python -m yolact_benchmarks.gpu``, or ``make gpu``.

Stages and whole frames for 1, 10 and 100 instances at 720p and 1080p, beside plain PyTorch with dense masks on the same
GPU in the same run; the bandwidth that bounds them; and ten thousand frames without growth. The network is the engine
of a bundle, where one is named; otherwise its outputs are replayed, which measures everything around it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.gpu_stages import copy_gigabytes_per_second, moved_bytes, time_calls, time_stages
from yolact_benchmarks.record import write_record
from yolact_benchmarks.replay_network import ReplayNetwork
from yolact_benchmarks.scenes import COCO_550, make_outputs
from yolact_plugins.driver import Device
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.errors import YolactError
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["main", "measure"]

_BOX_AREA = 0.025
_SIZES = "1280x720,1920x1080"
_GROWTH_BYTES = 8 << 20


def main(arguments: list[str] | None = None) -> int:
    """Entry point; prints what it measures and writes a record. Exit status 5 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.gpu", description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle with an engine for this GPU; default: replayed outputs")
    parser.add_argument("--instances", default="1,10,100")
    parser.add_argument("--sizes", default=_SIZES, help="frames, width x height")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--frames", type=int, default=10_000, help="of the search for growth")
    parser.add_argument("--check-only", action="store_true", help="only say whether there is a GPU to measure")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    try:
        with Device() as device:
            if options.check_only:
                print(f"{device.name}, {device.arch}, driver for CUDA {device.driver.gpu.cuda_version}")
                return 0
            results = measure(device, options)
    except YolactError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if options.results:
        words = f"--instances {options.instances} --sizes {options.sizes} --repeats {options.repeats}"
        write_record(options.results, "gpu", results, f"python -m yolact_benchmarks.gpu {words}")
    return 0


def measure(device: Device, options: argparse.Namespace, peer: Callable[..., Any] | None = None) -> dict[str, Any]:
    """All measurements on one GPU.

    Args:
        device: Where.
        options: Of the command line.
        peer: Makes the work of the peer of a scene; None takes PyTorch, where it is installed with CUDA.
    """
    bandwidth = copy_gigabytes_per_second(device)
    print(f"{device.name} ({device.arch}): copies {bandwidth:.0f} GB/s")
    rows = []
    for size in options.sizes.split(","):
        width, height = map(int, size.split("x"))
        for count in map(int, options.instances.split(",")):
            row = _measure_scene(device, count, height, width, options.repeats, bandwidth, peer)
            rows.append(row)
            print(_line(row))
    results: dict[str, Any] = {"device": device.name, "arch": device.arch, "copy_gb_per_s": bandwidth, "scenes": rows}
    if options.bundle is not None:
        results["bundle"] = _measure_bundle(options.bundle, options.sizes, options.repeats)
    results["growth"] = _search_growth(device, options.frames)
    return results


def _measure_scene(
    device: Device, count: int, height: int, width: int, repeats: int, bandwidth: float, peer: Callable[..., Any] | None
) -> dict[str, Any]:
    outputs = make_outputs(count, _BOX_AREA, seed=count)
    options = SegmenterOptions(min_confidence=0.3, frames_in_flight=1, frame_size=(height, width))
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    with Segmenter(COCO_550, ReplayNetwork(device, COCO_550, outputs), None, options) as segmenter:
        found = segmenter(frame)
        ours = time_calls(lambda: segmenter(frame), repeats)
        path = segmenter.frame_path
        assert isinstance(path, DevicePath)
        ticket = path.start(frame)
        ticket.finish()
        times, least = time_stages(ticket, repeats), moved_bytes(ticket, len(found))
        path.give_back(ticket)
    after = sum(times.stages[name] for name in ("candidates", "nms", "masks", "download"))
    row: dict[str, Any] = {
        "instances": count,
        "found": len(found),
        "frame": [height, width],
        "stages_us": times.stages,
        "whole_us": times.whole,
        "call_us": float(np.median(ours)),
        "postprocess_us": after,
        "floor_us": {name: num_bytes / bandwidth / 1e3 for name, num_bytes in least.items()},
    }
    dense = (peer or _dense_torch)(outputs, height, width)
    row["dense_torch_us"] = "not measured: no PyTorch with CUDA" if dense is None else float(np.median(dense(repeats)))
    return row


def _dense_torch(outputs: dict[str, Any], height: int, width: int) -> Callable[[int], list[float]] | None:
    """The plain way on the same GPU: outputs there, dense masks there."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from yolact_benchmarks.dense_postprocess import dense_postprocess
    from yolact_runtime.priors import make_priors

    names = ("box_regression", "class_logit", "mask_coefficient", "prototype")
    boxes, logits, coefficients, prototypes = (torch.from_numpy(outputs[name][0]).cuda() for name in names)
    priors = torch.from_numpy(make_priors(COCO_550.priors, 550, 550)).cuda()

    def work() -> None:
        with torch.device("cuda"), torch.inference_mode():
            dense_postprocess(boxes, logits, coefficients, prototypes, priors, height, width)
        torch.cuda.synchronize()

    return lambda repeats: time_calls(work, repeats)


def _measure_bundle(bundle: Path, sizes: str, repeats: int) -> list[dict[str, Any]]:
    """Whole frames through a real engine, beside the engine alone."""
    rows = []
    for size in sizes.split(","):
        width, height = map(int, size.split("x"))
        frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        options = SegmenterOptions(min_confidence=0.3, frames_in_flight=1, frame_size=(height, width))
        with Segmenter.open(bundle, options=options) as segmenter:
            path = segmenter.frame_path
            if not isinstance(path, DevicePath):
                raise YolactError(f"{bundle} runs on {segmenter.backend_name} here, not on an engine")
            calls = time_calls(lambda: segmenter(frame), repeats)  # noqa: B023  # called before the next turn
            ticket = path.start(frame)
            ticket.finish()
            times = time_stages(ticket, repeats)
            path.give_back(ticket)
            row = {"backend": segmenter.backend_name, "graph": path.uses_graphs, "frame": [height, width]}
        ratio = times.whole / times.stages["network"]
        rows.append({**row, "call_us": float(np.median(calls)), "stages_us": times.stages, "over_network": ratio})
    return rows


def _search_growth(device: Device, frames: int) -> dict[str, Any]:
    """Free memory of the GPU, and the host's peak, before and after many frames.

    Raises:
        YolactError: The GPU has less than before.
    """
    from yolact_benchmarks.memory import resident_bytes

    outputs = make_outputs(20, _BOX_AREA, seed=1)
    frame = np.zeros((720, 1280, 3), np.uint8)
    with Segmenter(COCO_550, ReplayNetwork(device, COCO_550, outputs), None, SegmenterOptions()) as segmenter:
        for _ in range(min(frames, 20)):
            segmenter(frame)
        before = device.memory_bytes()[0], resident_bytes()
        for _ in segmenter.stream(frame for _ in range(frames)):
            pass
        after = device.memory_bytes()[0], resident_bytes()
    lost, grown = before[0] - after[0], after[1] - before[1]
    print(f"{frames} frames: the GPU has {lost} bytes less, the process {grown} bytes more")
    if lost > _GROWTH_BYTES or grown > 4 * _GROWTH_BYTES:
        raise YolactError(f"memory grew over {frames} frames: {lost} bytes on the GPU, {grown} bytes on the host")
    return {"frames": frames, "gpu_bytes_lost": lost, "host_bytes_grown": grown}


def _line(row: dict[str, Any]) -> str:
    dense = row["dense_torch_us"]
    ratio = f", dense PyTorch {dense:.0f} us" if isinstance(dense, float) else ""
    return (
        f"{row['instances']:4} instances at {row['frame'][1]} x {row['frame'][0]}: a call {row['call_us']:.0f} us, "
        f"preprocess {row['stages_us']['preprocess']:.0f}, post-processing {row['postprocess_us']:.0f} us{ratio}"
    )


if __name__ == "__main__":
    sys.exit(main())
