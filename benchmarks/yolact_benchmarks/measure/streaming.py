"""Throughput of a segmenter that may process several frames at once, through its method ``stream``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.frames import FrameSet
from yolact_runtime.segmenter import Segmenter

__all__ = ["join_streaming", "measure_streaming"]

_FILL = 4
"""Frames before the clock starts: the pipeline has to fill first."""


def measure_streaming(
    segmenter: Segmenter, frames: FrameSet, seconds: float, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Measure the throughput of a stream.

    Args:
        segmenter: Open segmenter.
        frames: Frames to feed, over and over.
        seconds: Duration of the measurement, seconds.
        clock: Monotonic clock, seconds.

    Returns:
        JSON object ``{"fps", "frames", "seconds"}``, or ``{"not_measured": reason}``.
    """
    stream = getattr(segmenter, "stream", None)
    if stream is None:
        return {"not_measured": "this runtime has no Segmenter.stream"}
    ends = [False]

    def feed() -> Iterator[npt.NDArray[np.uint8]]:
        for frame in frames.cycle():
            if ends[0]:
                return
            yield frame

    count, begun = 0, clock()
    for number, _ in enumerate(stream(feed())):
        now = clock()
        if number == _FILL - 1:
            begun = now
        elif number >= _FILL and not ends[0]:
            # Frames that leave the pipeline after the last one was fed are not counted.
            count, passed = number - _FILL + 1, now - begun
            ends[0] = passed >= seconds
    if not count:
        return {"not_measured": f"the stream ended after fewer than {_FILL + 1} frames"}
    return {"fps": round(count / passed, 3), "frames": count, "seconds": round(passed, 3)}


def join_streaming(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the JSON objects of several processes into one; a process without a measurement decides the result."""
    for part in parts:
        if "fps" not in part:
            return part
    frames, seconds = sum(part["frames"] for part in parts), sum(part["seconds"] for part in parts)
    return {"fps": round(frames / seconds, 3), "frames": frames, "seconds": round(seconds, 3)}
