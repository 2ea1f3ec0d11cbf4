"""Timing of the host's part of a call in one process of one checkout; run by :mod:`…studies.host_part`, by its path.

The frames before the measurement are real: the kernels run as host C++ on the simulated GPU and leave their results
where the host reads them. The driver is then replaced by one that returns at once and does nothing, so that every later
call finds the same results. What remains is the host's part: Python, NumPy, and copies. The time of a real driver's
launches and of the GPU's work is not included. Frames alternate between several, so that they are not in the cache.

The process prints a description of what it can measure, and then a line of JSON for each line that it reads. It only
uses functions of the project that earlier versions have as well; what they lack is left out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

from support.host_gpu import HostDriver  # type: ignore[import-not-found, unused-ignore]
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.measure.scenes import COCO_550, make_outputs
from yolact_plugins.driver.driver import Device
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["main"]

HEIGHT, WIDTH = 1080, 1920
SCENES = {"100 instances": (100, 0.025), "1 instance": (1, 0.45)}
_FRAMES = 4
_MIN_CONFIDENCE = 0.3
_ANSWERED = (
    *("cuCtxSetCurrent", "cuEventRecord", "cuEventSynchronize", "cuGraphLaunch", "cuLaunchKernel"),
    *("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemsetD8Async", "cuStreamSynchronize"),
)
Clock = list[tuple[str, int]]


class AnsweringLibrary:
    """Functions of the driver, of which those that a frame calls do nothing but record the time of the call.

    Args:
        library: Library with the other functions.
        calls: List that receives the name and the time in nanoseconds of each call.
    """

    def __init__(self, library: Any, calls: Clock) -> None:
        self._library = library
        for name in _ANSWERED:
            setattr(self, name, self._answer(name, calls))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    @staticmethod
    def _answer(name: str, calls: Clock) -> Callable[..., tuple[int]]:
        def answer(*_arguments: Any) -> tuple[int]:
            calls.append((name, time.perf_counter_ns()))
            return (0,)

        return answer


def main(arguments: list[str]) -> int:
    """Serve rounds on stdin until it ends; `arguments` are the name of a scene, and ``"quick"`` for a small frame."""
    count, area = SCENES[arguments[0]]
    height, width = (72, 128) if "quick" in arguments else (HEIGHT, WIDTH)
    outputs = make_outputs(count, area, count)
    options = SegmenterOptions(min_confidence=_MIN_CONFIDENCE, frames_in_flight=1, frame_size=(height, width))
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(_FRAMES)]
    with (
        Device(driver=HostDriver()) as device,
        Segmenter(COCO_550, ReplayNetwork(device, COCO_550, outputs), None, options) as segmenter,
    ):
        _serve(segmenter, device, frames)
    return 0


def _serve(segmenter: Segmenter, device: Device, frames: list[Any]) -> None:
    sources: dict[str, list[Any]] = {"array": frames}
    buffers = []
    if hasattr(segmenter, "frame_buffer"):
        buffers = [segmenter.frame_buffer(*frames[0].shape[:2]) for _ in range(2)]
        for buffer, frame in zip(buffers, frames, strict=False):
            buffer.pixels[:] = frame
        sources["frame_buffer"] = buffers
    for source in sources.values():
        # The first frame is launched piece by piece; the second one is captured into a graph.
        for frame in source[:2]:
            found = segmenter(frame)
    runs = len(found.mask.start)
    calls: Clock = []
    library = device.driver._module
    device.driver._module = AnsweringLibrary(library, calls)
    try:
        print(json.dumps({"found": len(found), "runs": runs, "sources": list(sources)}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_round(segmenter, sources, calls, int(line))), flush=True)
    finally:
        device.driver._module = library
        for buffer in buffers:
            buffer.close()


def _round(segmenter: Segmenter, sources: dict[str, list[Any]], calls: Clock, repeats: int) -> dict[str, Any]:
    """Return the medians of a round in microseconds: by source and stage, and of first uses of masks."""
    times: dict[str, Any] = {}
    for name, source in sources.items():
        samples = [_stages(segmenter, frame, calls) for _, frame in zip(range(repeats), cycle(source))]
        times[name] = {stage: _median(sample[stage] for sample in samples) for stage in samples[0]}
    times["masks"] = {
        what: _median(_first_use(segmenter, sources["array"][0], use) for _ in range(max(repeats // 4, 1)))
        for what, use in _USES.items()
    }
    return times


def _stages(segmenter: Segmenter, frame: Any, calls: Clock) -> dict[str, float]:
    calls.clear()
    begun = time.perf_counter_ns()
    found = segmenter(frame)
    ended = time.perf_counter_ns()
    del found
    names = [name for name, _ in calls]
    uploads = [i for i, name in enumerate(names) if name == "cuMemcpyHtoDAsync"]
    given = uploads[-1] if uploads else names.index("cuGraphLaunch")
    recorded, waited = names.index("cuEventRecord"), names.index("cuEventSynchronize")
    marks = [begun, *(calls[i][1] for i in (given, recorded, waited)), ended]
    return {
        "take": (marks[1] - marks[0]) / 1e3,
        "enqueue": (marks[2] - marks[1]) / 1e3,
        "wait": (marks[3] - marks[2]) / 1e3,
        "results": (marks[4] - marks[3]) / 1e3,
        "call": (ended - begun) / 1e3,
    }


_USES: dict[str, Callable[[Any], object]] = {
    "start, end, offset": lambda masks: (masks.start, masks.end, masks.offset),
    "area": lambda masks: masks.area(),
    "rle": lambda masks: masks.rle(),
    "id_map": lambda masks: masks.id_map(),
}


def _first_use(segmenter: Segmenter, frame: Any, use: Callable[[Any], object]) -> float:
    masks = segmenter(frame).mask
    begun = time.perf_counter_ns()
    use(masks)
    return (time.perf_counter_ns() - begun) / 1e3


def _median(times: Iterator[float]) -> float:
    return round(float(np.median(list(times))), 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
