"""Times of a frame's stages on the GPU, by CUDA events, and the lower bounds given by the bytes that they move."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np

from yolact_benchmarks.measure.stages import MASK_IOU
from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.driver.memory import DeviceBuffer, PinnedBuffer
from yolact_plugins.driver.module import Launch
from yolact_runtime.cuda.frame_slot import FrameSlot
from yolact_runtime.model.network_outputs import RawOutputs

__all__ = [
    "copy_gigabytes_per_second",
    "frame_parts",
    "moved_bytes",
    "time_calls",
    "time_replays",
    "time_work",
    "upload_gigabytes_per_second",
]

_COPY_BYTES = 256 << 20


def time_work(stream: Stream, work: Callable[[Stream], None], repeats: int) -> list[float]:
    """Return the time on the GPU of each repetition, in microseconds by CUDA events, after two that are not counted.

    Work that is enqueued in several calls waits for the host between them: for kernels of a few microseconds, the
    result is then the time that Python needs to launch them. Time those with :func:`time_replays`.
    """
    device, times = stream.device, []
    with Event(device, timing=True) as start, Event(device, timing=True) as end:
        for turn in range(-2, repeats):
            start.record(stream)
            work(stream)
            end.record(stream)
            end.synchronize()
            if turn >= 0:
                times.append(end.milliseconds_since(start) * 1e3)
    return times


def time_replays(stream: Stream, work: Callable[[Stream], None], repeats: int, inner: int = 1) -> float:
    """Return the median time on the GPU of one run of `work`, in microseconds, from replays of a CUDA graph.

    The graph holds `inner` runs of `work` and is launched by one call of the host, so that the time is the GPU's own.
    Several runs in one graph make the total longer than the resolution of an event.
    """

    def several(on: Stream) -> None:
        for _ in range(inner):
            work(on)

    with Graph(stream, several) as graph:
        graph.upload(stream)
        return float(np.median(time_work(stream, graph.launch, repeats))) / inner


def frame_parts(slot: FrameSlot) -> dict[str, Callable[[Stream], None]]:
    """Return functions that enqueue the stages of the slot's finished frame again, by name and in order."""
    launches = slot.launches
    rescoring = {MASK_IOU.name: partial(_enqueue, launches.rescoring)} if launches.rescoring else {}
    return {
        "upload": slot.enqueue_upload,
        "preprocess": launches.preprocess.enqueue,
        "network": slot.enqueue_inference,
        "candidates": partial(_enqueue, launches.detect[:2]),
        "nms": partial(_enqueue, launches.detect[2:]),
        "masks": partial(_enqueue, launches.masks),
        **rescoring,
        "download": slot.enqueue_download,
    }


def _enqueue(launches: Sequence[Launch], stream: Stream) -> None:
    for launch in launches:
        launch.enqueue(stream)


def moved_bytes(slot: FrameSlot, count: int) -> dict[str, int]:
    """Return the bytes that each stage must read and write at least, once, whatever its kernels do.

    Args:
        slot: Slot with the results of a frame.
        count: Number of detections in that frame.
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
        "upload": layout.num_bytes,
        "preprocess": layout.num_bytes + image.num_bytes,
        "candidates": sum(arrays[name].num_bytes for name in RawOutputs._fields),
        "masks": prototypes.num_bytes + 2 * 4 * pixels + 2 * bits,
        # Copied into the host's memory: they cross the bus.
        "runs": runs,
    }


def copy_gigabytes_per_second(device: Device, repeats: int = 20, num_bytes: int | None = None) -> float:
    """Measure the bandwidth of the GPU's memory with a large copy on the device; bytes read and written both count."""
    num_bytes = num_bytes or _COPY_BYTES
    with ExitStack() as stack:
        stream = stack.enter_context(Stream(device))
        source, target = (stack.enter_context(DeviceBuffer(device, num_bytes)) for _ in range(2))
        source.fill(1, stream)

        def copy(on: Stream) -> None:
            device.driver.call("cuMemcpyDtoDAsync", target.pointer, source.pointer, num_bytes, on.handle)

        microseconds = float(np.median(time_work(stream, copy, repeats)))
    return 2 * num_bytes / microseconds / 1e3


def upload_gigabytes_per_second(device: Device, repeats: int = 20, num_bytes: int = 64 << 20) -> float:
    """Measure the bandwidth of the bus with a large copy from pinned memory to the GPU, in GB/s."""
    with (
        Stream(device) as stream,
        PinnedBuffer(device, num_bytes) as source,
        DeviceBuffer(device, num_bytes) as target,
    ):
        host, there = source.host_array((num_bytes,), np.uint8), target.array((num_bytes,), np.uint8)
        host[:] = 1
        microseconds = float(np.median(time_work(stream, lambda on: there.upload(host, on), repeats)))
    return num_bytes / microseconds / 1e3


def time_calls(work: Callable[[], object], repeats: int) -> list[float]:
    """Return the time of each call, in microseconds by the wall clock, after three that are not counted."""
    times = []
    for turn in range(-3, repeats):
        started = time.perf_counter()
        work()
        if turn >= 0:
            times.append((time.perf_counter() - started) * 1e6)
    return times
