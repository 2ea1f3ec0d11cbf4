"""Interleaved timing of functions in one process, so that changes of the machine's state affect all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Timing", "time_interleaved"]


@dataclass(frozen=True)
class Timing:
    """Wall-clock times of one contender, milliseconds."""

    median_ms: float
    min_ms: float
    p90_ms: float
    repeats: int


def time_interleaved(
    contenders: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 2
) -> dict[str, Timing]:
    """Time each contender `repeats` times, interleaved.

    Args:
        contenders: Functions to time, by name.
        repeats: Number of timed runs of each.
        warm_up: Number of untimed rounds before.
    """
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, repeats):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if turn >= 0:
                samples[name].append((time.perf_counter() - started) * 1e3)
    return {name: _summarise(times) for name, times in samples.items()}


def _summarise(times: list[float]) -> Timing:
    median, least, p90 = (round(float(value), 3) for value in np.percentile(times, [50, 0, 90]))
    return Timing(median, least, p90, len(times))
