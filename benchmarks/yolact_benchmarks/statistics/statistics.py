"""Summary of a series of latencies, without the percentiles that it is too short for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.statistics import between_processes, block_bootstrap
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_runtime.errors import UsageError

__all__ = ["PERCENTILES", "LatencySummary", "summarise"]

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
_DIGITS = 4
"""Decimal places of milliseconds: a tenth of a microsecond is about the resolution of the clock."""


@dataclasses.dataclass(frozen=True)
class LatencySummary:
    """Summary of one series of latencies.

    Attributes:
        count: Number of frames.
        mean_ms: Arithmetic mean, milliseconds.
        percentiles_ms: Percentiles ``"p50"`` to ``"p99.9"``, interpolated linearly. A percentile is None if fewer than
            one frame of the series is expected beyond it: a p99.9 of 200 frames would be their maximum under another
            name.
        min_ms: Shortest latency, milliseconds.
        max_ms: Longest latency, milliseconds.
        median_low_ms: Lower end of the 95 % interval of the median: from the scatter of processes, or from a block
            bootstrap if there is one process.
        median_high_ms: Upper end of that interval.
        processes: Number of processes that the frames were measured in.
        block: Number of successive frames that the bootstrap drew together; None with several processes.
        cov: Coefficient of variation: standard deviation over mean.
        jitter_ms: Mean absolute difference between successive frames, milliseconds. Unlike the standard deviation, it
            does not include a slow drift.
        throughput_fps: Frames per second, one after the other: 1 / mean.
    """

    count: int
    mean_ms: float
    percentiles_ms: dict[str, float | None]
    min_ms: float
    max_ms: float
    median_low_ms: float
    median_high_ms: float
    processes: int
    block: int | None
    cov: float
    jitter_ms: float
    throughput_fps: float

    @property
    def median_ms(self) -> float:
        """Median latency, milliseconds; always present."""
        median = self.percentiles_ms["p50"]
        assert median is not None
        return median

    @property
    def relative_half_width(self) -> float:
        """Half of the median's interval over the median: 0.01 means "known to 1 %"."""
        return (self.median_high_ms - self.median_low_ms) / 2 / self.median_ms

    def document(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return dataclasses.asdict(self)


def summarise(
    samples_ms: npt.ArrayLike, settings: BootstrapSettings | None = None, counts: Sequence[int] | None = None
) -> LatencySummary:
    """Summarise a series.

    Args:
        samples_ms: ``(n,)`` samples above 0 in the order they were taken, n >= 1.
        settings: Settings of the bootstrap; None stands for the defaults.
        counts: Number of frames of each process, one after the other; None stands for one process.

    Raises:
        UsageError: There is no sample, or one is not a positive number.
    """
    series = np.asarray(samples_ms, np.float64)
    if series.ndim != 1 or not len(series) or not np.all(np.isfinite(series) & (series > 0)):
        raise UsageError(
            f"a latency series is a list of positive numbers, found {len(series)} of shape {series.shape}; "
            f"measure at least one frame"
        )
    parts = between_processes.split_series(series, counts)
    is_one = len(parts) == 1
    interval = block_bootstrap.median_interval(series, settings) if is_one else between_processes.median_interval(parts)
    steps = np.concatenate([np.abs(np.diff(part)) for part in parts])
    mean = float(series.mean())
    return LatencySummary(
        count=len(series),
        mean_ms=_rounded(mean),
        percentiles_ms={f"p{q:g}": _percentile(series, q) for q in PERCENTILES},
        min_ms=_rounded(series.min()),
        max_ms=_rounded(series.max()),
        median_low_ms=_rounded(interval.low if interval.low is not None else mean),
        median_high_ms=_rounded(interval.high if interval.high is not None else mean),
        processes=len(parts),
        block=block_bootstrap.block_length(series) if is_one else None,
        cov=round(float(series.std() / mean), 6),
        jitter_ms=_rounded(steps.mean()) if len(steps) else 0.0,
        throughput_fps=round(1e3 / mean, 4),
    )


def _percentile(series: npt.NDArray[np.float64], q: float) -> float | None:
    beyond = len(series) * (100 - q) / 100
    return _rounded(np.percentile(series, q)) if q <= 50 or beyond >= 1 - 1e-9 else None


def _rounded(value: float | np.floating) -> float:
    return round(float(value), _DIGITS)
