"""Frames a second when a segmenter may work on several at once: through its ``stream``, where it has one."""

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
"""Frames before the clock starts: a pipeline has to fill."""


def measure_streaming(
    segmenter: Segmenter, frames: FrameSet, seconds: float, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Throughput of a stream.

    Args:
        segmenter: Open.
        frames: That it gets, over and over.
        seconds: To go on for.
        clock: Seconds.

    Returns:
        JSON object ``{"fps", "frames", "seconds"}``, or ``{"not_measured": why}``.
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
            # What comes after the last frame was fed is the pipeline running empty; it does not count.
            count, passed = number - _FILL + 1, now - begun
            ends[0] = passed >= seconds
    if not count:
        return {"not_measured": f"the stream ended after fewer than {_FILL + 1} frames"}
    return {"fps": round(count / passed, 3), "frames": count, "seconds": round(passed, 3)}


def join_streaming(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One JSON object of those of several processes; where one did not measure, its reason."""
    for part in parts:
        if "fps" not in part:
            return part
    frames, seconds = sum(part["frames"] for part in parts), sum(part["seconds"] for part in parts)
    return {"fps": round(frames / seconds, 3), "frames": frames, "seconds": round(seconds, 3)}
