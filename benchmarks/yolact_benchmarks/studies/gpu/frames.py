"""Stage ``frames``: kernels, stages and whole frames on the GPU, beside dense PyTorch; a row for each scene.

GPU times are those of replayed CUDA graphs, so that they do not include Python; the host's share is timed separately.
Post-processing, ours and PyTorch's, is timed interleaved on the same GPU in the same run, from the network's outputs on
the GPU: ours to instances on the host, PyTorch's to dense masks that stay on the GPU. The outputs are replayed and may
stay in the GPU's cache: a kernel may take less than ``floor_us``, which assumes the bandwidth of the GPU's memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.gpu_stages import (
    copy_gigabytes_per_second,
    frame_parts,
    moved_bytes,
    time_replays,
    time_work,
    upload_gigabytes_per_second,
)
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import make_mask_iou_network, make_outputs, yolact_manifest
from yolact_benchmarks.measure.stages import MASK_IOU
from yolact_benchmarks.studies.gpu.stage_options import NOT_MEASURED, Scale, open_device, stage_parser
from yolact_benchmarks.studies.timing import time_interleaved
from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.driver import Device, Stream
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.cuda.frame_slot import FrameSlot
from yolact_runtime.mask_rescoring import MaskRescoring
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["MIN_CONFIDENCE", "SIZES", "Scene", "frame_options", "main", "measure_scene", "scaled_manifest"]

MIN_CONFIDENCE = 0.3
SIZES = ((1080, 1920), (720, 1280), (2160, 3840))
OBJECTS = ((100, 0.025), (1, 0.45), (10, 0.025), (1, 0.025), (20, 0.3))
"""Number of objects, and the mean area of their boxes as a fraction of the frame."""
# No network runs: stored outputs are copied to where it would leave them.
_REPLAYED = "copy of stored outputs"
_POSTPROCESSING = ("candidates", "nms", "masks", MASK_IOU.name, "download")
Outputs = dict[str, npt.NDArray[Any]]
Peer = Callable[[Outputs, Manifest, int, int], "Callable[[], int] | None"]


@dataclass(frozen=True)
class Scene:
    """A scene to measure.

    Attributes:
        count: Number of objects.
        area: Mean area of their boxes, as a fraction of the frame.
        height: Height of the frame, pixels.
        width: Width of the frame, pixels.
        dtype: Dtype of the network's input and outputs.
        rescored: Whether to use the mask-IoU network of YOLACT++.
    """

    count: int
    area: float
    height: int
    width: int
    dtype: str = "float32"
    rescored: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Measure the scenes, the most important ones first, none after ``--seconds``, and return the exit status."""
    parser = stage_parser("frames", __doc__)
    parser.add_argument(
        "--seconds", type=float, default=45.0, help="time after which no scene is started (default: 45)"
    )
    options = parser.parse_args(arguments)
    started, scale, measured = time.monotonic(), options.scale, 0
    with open_device() as device:
        bus = upload_gigabytes_per_second(device, scale.of(20), scale.of(64 << 20, 1024))
        copies = copy_gigabytes_per_second(device, scale.of(20), scale.of(256 << 20, 1024))
        options.rows.write(copy_gb_per_s=copies, upload_gb_per_s=bus)
        for scene in _scenes(scale):
            if time.monotonic() - started > options.seconds:
                options.rows.write(**vars(scene), not_measured="out of time")
                continue
            row = measure_scene(device, scaled_manifest(scale, scene.rescored), scene, scale)
            options.rows.write(**row, floor_us=_floor(row.pop("bytes"), copies, bus))
            measured += 1
    return 0 if measured else NOT_MEASURED


def frame_options(scale: Scale, **more: Any) -> SegmenterOptions:
    """Return options for one frame at a time, with at most the published hundred instances."""
    return SegmenterOptions(min_confidence=MIN_CONFIDENCE, max_instances=scale.of(100, 4), frames_in_flight=1, **more)


def scaled_manifest(scale: Scale, rescored: bool = False) -> Manifest:
    """Return the manifest of YOLACT at 550 with COCO's eighty classes, scaled down.

    With `rescored`, the prototypes stay large enough for mask re-scoring.
    """
    return yolact_manifest(scale.of(550, 256 if rescored else 32), scale.of(80, 3))


def measure_scene(
    device: Device, manifest: Manifest, scene: Scene, scale: Scale, peer: Peer | None = None
) -> dict[str, Any]:
    """Measure a scene and return its row, with median times in microseconds.

    Args:
        device: GPU to measure on.
        manifest: Manifest of the model whose outputs are replayed.
        scene: Scene to measure.
        scale: Scale of the number of repetitions.
        peer: Function that makes the peer's post-processing; None takes PyTorch, if it is installed with CUDA.
    """
    made = make_outputs(scene.count, scene.area, scene.count, manifest)
    outputs = {name: array.astype(scene.dtype) for name, array in made.items()}
    frame = np.random.default_rng(0).integers(0, 256, (scene.height, scene.width, 3), np.uint8)
    work = (peer or dense_torch)(outputs, manifest, scene.height, scene.width)
    with _finished_frame(device, manifest, outputs, scene, frame, scale) as (segmenter, path, slot, found):
        row: dict[str, Any] = {**vars(scene), "found": found, "runs": int(slot.memory.results["run_offset"][found])}
        row |= {"bytes": moved_bytes(slot, found), "gpu_us": _gpu_times(slot, scale)}
        row["postprocess_us"] = sum(row["gpu_us"].get(name, 0.0) for name in _POSTPROCESSING)
        row["kernels_us"] = _kernel_times(slot, scale)
        row["host_us"] = _host_times(segmenter, path, slot, found, frame, scale)
        row["postprocess_call_us"], row["dense"] = _beside(path, slot, found, work, scale)
        return row


@contextmanager
def _finished_frame(
    device: Device, manifest: Manifest, outputs: Outputs, scene: Scene, frame: npt.NDArray[np.uint8], scale: Scale
) -> Iterator[tuple[Segmenter, DevicePath, FrameSlot, int]]:
    """Yield a segmenter and a slot in which the frame is finished, so that its stages can be repeated."""
    options = frame_options(scale, frame_size=(scene.height, scene.width))
    rescoring = None
    if scene.rescored:
        rescoring = MaskRescoring.of_network(make_mask_iou_network(len(manifest.class_names)), manifest)
    with Segmenter(manifest, ReplayNetwork(device, manifest, outputs, scene.dtype), rescoring, options) as segmenter:
        path = segmenter.frame_path
        assert isinstance(path, DevicePath)
        slot = path.start(frame)
        try:
            yield segmenter, path, slot, slot.finish()
        finally:
            path.give_back(slot)


def _gpu_times(slot: FrameSlot, scale: Scale) -> dict[str, float]:
    inner, repeats = scale.of(20), scale.of(30)
    parts = frame_parts(slot)
    parts[_REPLAYED] = parts.pop("network")
    times = {name: time_replays(slot.stream, work, repeats, inner) for name, work in parts.items()}
    times["whole"] = time_replays(slot.stream, slot.enqueue_all, repeats)
    times["whole, launched piece by piece"] = float(np.median(time_work(slot.stream, slot.enqueue_all, scale.of(20))))
    return times


def _kernel_times(slot: FrameSlot, scale: Scale) -> dict[str, float]:
    made = slot.launches
    launches = [made.preprocess, *made.detect, *made.masks, *made.rescoring, made.download]
    inner, repeats = scale.of(20), scale.of(20)
    return {launch.name: time_replays(slot.stream, launch.enqueue, repeats, inner) for launch in launches}


def _host_times(
    segmenter: Segmenter, path: DevicePath, slot: FrameSlot, found: int, frame: npt.NDArray[np.uint8], scale: Scale
) -> dict[str, float]:
    """Time a whole call by the wall clock, and its two parts on the host: copying the frame, making instances."""
    staging = slot.memory.staging[: frame.size].reshape(frame.shape)
    with segmenter.frame_buffer(*frame.shape[:2]) as buffer:
        np.copyto(buffer.pixels, frame)
        times = time_interleaved(
            {
                "call": lambda: segmenter(frame),
                "call with a frame buffer": lambda: segmenter(buffer),
                "copy of the frame to pinned memory": lambda: np.copyto(staging, frame),
                "instances from runs": lambda: path.read(slot, found),
            },
            scale.of(100),
        )
    return {name: timing.median_ms * 1e3 for name, timing in times.items()}


def _beside(
    path: DevicePath, slot: FrameSlot, found: int, dense: Callable[[], int] | None, scale: Scale
) -> tuple[float, dict[str, Any]]:
    """Time both post-processings by the wall clock, interleaved.

    Ours is timed up to instances on the host, the peer's up to its own result.
    """
    parts = frame_parts(slot)

    def enqueue(stream: Stream) -> None:
        for name in _POSTPROCESSING:
            if name in parts:
                parts[name](stream)

    with Graph(slot.stream, enqueue) as graph:

        def ours() -> None:
            graph.launch(slot.stream)
            slot.stream.synchronize()
            path.read(slot, found)

        if dense is None:
            times = time_interleaved({"ours": ours}, scale.of(50))
            return times["ours"].median_ms * 1e3, {"not_measured": "there is no PyTorch with CUDA here"}
        times = time_interleaved({"ours": ours, "dense": dense}, scale.of(30))
        return times["ours"].median_ms * 1e3, {"us": times["dense"].median_ms * 1e3, "found": dense()}


def dense_torch(outputs: Outputs, manifest: Manifest, height: int, width: int) -> Callable[[], int] | None:
    """Make PyTorch's dense post-processing, on the same GPU.

    The function returns the number of instances that it finds. The result is None without PyTorch with CUDA.
    """
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from yolact_benchmarks.peers.dense_postprocess import dense_postprocess
    from yolact_runtime.cpu.priors import make_priors

    names = ("box_regression", "class_logit", "mask_coefficient", "prototype")
    boxes, logits, coefficients, prototypes = (torch.from_numpy(outputs[name][0]).cuda() for name in names)
    sides = manifest.input.height, manifest.input.width
    priors = torch.from_numpy(make_priors(manifest.priors, *sides)).cuda()

    def work() -> int:
        with torch.device("cuda"), torch.inference_mode():
            found = dense_postprocess(boxes, logits, coefficients, prototypes, priors, height, width, MIN_CONFIDENCE)
        torch.cuda.synchronize()
        return len(found.confidence)

    return work


def _scenes(scale: Scale) -> list[Scene]:
    """Return the scenes, in order of importance.

    All sizes are measured in float32; YOLACT++, and float16 as in FP16 and INT8 engines, with the first size.
    """
    turns = [(SIZES[0], "float32", False), (SIZES[0], "float32", True)]
    turns += [*((size, "float32", False) for size in SIZES[1:]), (SIZES[0], "float16", False)]
    scenes = [
        Scene(scale.of(count), area, scale.of(height, 24), scale.of(width, 32), dtype, rescored)
        for (height, width), dtype, rescored in turns
        for count, area in OBJECTS
    ]
    return scenes[: scale.of(len(scenes), 2)]


def _floor(least: dict[str, int], copies: float, bus: float) -> dict[str, float]:
    """Return the microseconds for moving the bytes alone, at the bandwidth of plain copies in this run."""
    return {
        name: num_bytes / (bus if name in {"upload", "runs"} else copies) / 1e3 for name, num_bytes in least.items()
    }


if __name__ == "__main__":
    sys.exit(main())
