"""Times of a frame's stages on the GPU, by its own events, and the least that the moved bytes would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np

from yolact_plugins.driver import Device, Event, Stream
from yolact_plugins.memory import DeviceBuffer
from yolact_plugins.module import Launch
from yolact_runtime.cuda.frame_slot import FrameSlot

__all__ = [
    "StageTimes",
    "copy_gigabytes_per_second",
    "frame_parts",
    "moved_bytes",
    "time_calls",
    "time_stages",
    "time_work",
]

_COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class StageTimes:
    """Medians in microseconds, on the GPU.

    Attributes:
        stages: Name to time of each part of a frame by itself, in order.
        whole: All of it, enqueued piece by piece.
    """

    stages: dict[str, float]
    whole: float


def time_work(stream: Stream, work: Callable[[Stream], None], repeats: int, inner: int = 1) -> list[float]:
    """Microseconds on the GPU of each repetition, of `inner` runs back to back divided by their number.

    Small works are shorter than what an event resolves and than what the host needs to enqueue them, so that several
    are put between two events.
    """
    device, times = stream.device, []
    with Event(device, timing=True) as start, Event(device, timing=True) as end:
        for turn in range(repeats + 2):
            start.record(stream)
            for _ in range(inner):
                work(stream)
            end.record(stream)
            end.synchronize()
            if turn >= 2:
                times.append(end.milliseconds_since(start) * 1e3 / inner)
    return times


def time_stages(slot: FrameSlot, repeats: int, inner: int = 10) -> StageTimes:
    """Each part of the way of a frame that the slot has just finished: same frame, same detections.

    Args:
        slot: Not in use by anybody.
        repeats: Timed repetitions of each.
        inner: See :func:`time_work`.
    """
    parts = frame_parts(slot)
    stages = {name: float(np.median(time_work(slot.stream, work, repeats, inner))) for name, work in parts.items()}
    whole = float(np.median(time_work(slot.stream, slot.enqueue_all, repeats)))
    return StageTimes(stages, whole)


def frame_parts(slot: FrameSlot) -> dict[str, Callable[[Stream], None]]:
    """The parts of the way of a frame that the slot has finished, in order; each may be enqueued again."""
    launches = slot.launches
    return {
        "upload": slot.enqueue_upload,
        "preprocess": launches.preprocess.enqueue,
        "network": slot.enqueue_inference,
        "candidates": partial(_enqueue, launches.detect[:2]),
        "nms": partial(_enqueue, launches.detect[2:]),
        "masks": partial(_enqueue, launches.masks),
        "download": slot.enqueue_download,
    }


def _enqueue(launches: Sequence[Launch], stream: Stream) -> None:
    for launch in launches:
        launch.enqueue(stream)


def moved_bytes(slot: FrameSlot, count: int) -> dict[str, int]:
    """What each stage must read and write at least, once, whatever its kernels do.

    Args:
        slot: With the results of a frame.
        count: Its detections.
    """
    memory, layout = slot.memory, slot.layout
    assert layout is not None
    arrays = memory.arrays
    window = slot.memory.first_rows(arrays["window"], max(count, 1)).numpy(slot.stream)[:count].astype(np.int64)
    pixels = int(((window[:, 1] - window[:, 0]) * (window[:, 3] - window[:, 2])).sum())
    bits = 4 * int((window[:, 5] * window[:, 7]).sum())
    runs = 8 * int(memory.results["run_offset"][count])
    prototypes = arrays["prototype"]
    image = next(array for name, array in arrays.items() if name == slot.input_name)
    return {
        "preprocess": layout.num_bytes + image.num_bytes,
        "candidates": arrays["class_logit"].num_bytes,
        "masks": prototypes.num_bytes + 2 * 4 * pixels + 2 * bits + runs,
    }


def copy_gigabytes_per_second(device: Device, repeats: int = 20) -> float:
    """Bandwidth of the GPU's memory by a large copy on the device: bytes read plus bytes written."""
    with ExitStack() as stack:
        stream = stack.enter_context(Stream(device))
        source, target = (stack.enter_context(DeviceBuffer(device, _COPY_BYTES)) for _ in range(2))
        source.fill(1, stream)

        def copy(on: Stream) -> None:
            device.driver.call("cuMemcpyDtoDAsync", target.pointer, source.pointer, _COPY_BYTES, on.handle)

        microseconds = float(np.median(time_work(stream, copy, repeats)))
    return 2 * _COPY_BYTES / microseconds / 1e3


def time_calls(work: Callable[[], object], repeats: int) -> list[float]:
    """Microseconds by the wall clock of each call, after three that are not counted."""
    times = []
    for turn in range(-3, repeats):
        started = time.perf_counter()
        work()
        if turn >= 0:
            times.append((time.perf_counter() - started) * 1e6)
    return times
