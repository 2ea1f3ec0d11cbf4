"""Stability of a series of latencies: spread, drift, and steps.

A machine that overheats lowers its clock at once: the series has a step. Steps are found with cumulated ranks (the
CUSUM of Pettitt 1979). Ranks keep single long frames from counting as steps. The statistic is compared with what
correlated noise does by itself, so that periodic noise is not mistaken for throttling.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.statistics.between_processes import split_series
from yolact_benchmarks.statistics.block_bootstrap import correlation_length, ratio_interval
from yolact_benchmarks.statistics.statistics import LatencySummary
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_plugins.files import counted
from yolact_runtime.option_numbers import MAX_COUNT, keep_between

__all__ = ["DEFAULT_LIMITS", "Shift", "StabilityLimits", "Verdict", "find_drift", "find_shifts", "judge_series"]

Float = npt.NDArray[np.float64]
_CRITICAL = 2.303
"""Critical value of Kuiper's distribution: noise exceeds it once in a thousand series."""
_MIN_SEGMENT = 8
_MAX_SHIFTS = 6
_SEARCH, _SEARCH_SHARE, _MAX_SEARCH = 32, 4, 128
"""Frames before and after a rough edge that are searched for a better one: at least `_SEARCH`, in a longer series one
part in `_SEARCH_SHARE`, at most `_MAX_SEARCH`. The search is repeated from there at most `_MAX_MOVES` times."""
_MAX_MOVES = 8
_DRIFT_SHARE = 5
"""The first of this many parts is compared with the last."""
_MOVED_SHARE = 0.25
"""Share of a measurement's processes in which a step or a drift is tolerated: the interval of the median covers how far
they differ from the others."""


@dataclasses.dataclass(frozen=True)
class StabilityLimits:
    """Limits of a stable measurement.

    Attributes:
        max_cov: Coefficient of variation: standard deviation over mean.
        max_shift: Size of a step or a drift, as a fraction.
        max_half_width: Half-width of the median's interval, as a fraction of the median.
        min_frames: Minimum number of frames to judge the stability.
        max_other_load: Share of the machine's cores that other processes and the hypervisor may take.
        max_clock_change: Change of the clock, or of a fixed piece of work, from the fastest to the slowest tenth.
        max_parallel_change: Change of that work on all cores at once, which are still slowed by the library's threads.

    Raises:
        UsageError: A field is not a number of its type, or out of range; the message names it.
    """

    max_cov: float = 0.10
    max_shift: float = 0.05
    max_half_width: float = 0.05
    min_frames: int = 20
    max_other_load: float = 0.10
    max_clock_change: float = 0.10
    max_parallel_change: float = 0.25

    def __post_init__(self) -> None:
        shares = [field.name for field in dataclasses.fields(self) if field.name != "min_frames"]
        keep_between(self, {"min_frames": (1, MAX_COUNT)}, dict.fromkeys(shares, (0, 1)))


DEFAULT_LIMITS = StabilityLimits()


@dataclasses.dataclass(frozen=True)
class Shift:
    """A step in a series.

    Attributes:
        index: Index of the first frame after the step.
        before_ms: Latency before the step, the median of that segment, milliseconds.
        after_ms: Latency after the step, the median of that segment, milliseconds.
    """

    index: int
    before_ms: float
    after_ms: float

    @property
    def change(self) -> float:
        """Relative change: 0.25 means a quarter slower."""
        return self.after_ms / self.before_ms - 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Verdict on the stability of a measurement.

    Attributes:
        reasons: Reasons why the measurement is unstable, as text; empty if it is stable.
    """

    reasons: tuple[str, ...] = ()

    @property
    def is_stable(self) -> bool:
        return not self.reasons

    def document(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {"stable": self.is_stable, "reasons": list(self.reasons)}


def find_shifts(samples_ms: npt.ArrayLike, least: float = StabilityLimits.max_shift) -> tuple[Shift, ...]:
    """Find the steps of a series, in order.

    Args:
        samples_ms: ``(n,)`` samples in the order they were taken.
        least: Smallest step to report, as a fraction.
    """
    series = np.asarray(samples_ms, np.float64)
    edges = _split(series, 0, len(series))
    bounds = [0, *sorted(edges), len(series)]
    medians = [float(np.median(series[a:b])) for a, b in itertools.pairwise(bounds) if b > a]
    shifts = [Shift(bounds[i + 1], medians[i], medians[i + 1]) for i in range(len(medians) - 1)]
    return tuple(shift for shift in shifts if abs(shift.change) > least)


def _split(series: Float, first: int, last: int) -> list[int]:
    """Find the indices at which the series changes: the clearest ones, then those inside the parts."""
    edges: list[int] = []
    todo = [(first, last)]
    while todo and len(edges) < _MAX_SHIFTS:
        begin, end = todo.pop(0)
        found = [begin + edge for edge in _clearest_edges(series[begin:end])]
        edges += found
        todo += itertools.pairwise([begin, *found, end]) if found else []
    return edges


def _clearest_edges(series: Float) -> list[int]:
    """Return the first frames after the one or two clearest steps; none if noise would produce the same.

    There may be two, because a throttle that ends has a step back: the path of the cumulated ranks then has a peak and
    a trough, and their distance is Kuiper's statistic.
    """
    count = len(series)
    if count < 2 * _MIN_SEGMENT:
        return []
    ranks = np.argsort(np.argsort(series, kind="stable"), kind="stable").astype(np.float64)
    path = np.concatenate([[0.0], np.cumsum(ranks - ranks.mean())])
    edges = sorted({int(path.argmax()), int(path.argmin())})
    edges = [edge for edge in edges if _MIN_SEGMENT <= edge <= count - _MIN_SEGMENT]
    edges = _sharpened(series, edges)
    # The correlation of the noise is estimated once the steps are removed.
    rest = np.concatenate([part - np.median(part) for part in np.split(series, edges)])
    spread = ranks.std() * np.sqrt(count * correlation_length(rest))
    return edges if spread > 0 and (path.max() - path.min()) / spread > _CRITICAL else []


def _sharpened(series: Float, edges: list[int]) -> list[int]:
    """Move the edges to where the segments on both sides scatter least; cumulated ranks only locate them roughly."""
    search = min(max(_SEARCH, len(series) // _SEARCH_SHARE), _MAX_SEARCH)
    for _ in range(_MAX_MOVES):
        moved: list[int] = []
        bounds = [0, *edges, len(series)]
        for begin, edge, end in zip(bounds, bounds[1:], bounds[2:], strict=False):
            first, last = max(begin + 1, edge - search), min(end - 1, edge + search)
            costs = [_scatter(series[begin:place]) + _scatter(series[place:end]) for place in range(first, last + 1)]
            moved.append(first + int(np.argmin(costs)))
        if moved == edges:
            break
        edges = sorted(set(moved))
    return edges


def _scatter(part: Float) -> float:
    return float(np.abs(part - np.median(part)).sum())


def find_drift(samples_ms: npt.ArrayLike) -> float | None:
    """Return how much slower the last fifth is than the first, as a fraction; None if that is within its interval."""
    series = np.asarray(samples_ms, np.float64)
    part = len(series) // _DRIFT_SHARE
    if part < _MIN_SEGMENT:
        return None
    ratio = ratio_interval(series[-part:], series[:part], BootstrapSettings(num_resamples=400, confidence_level=0.99))
    if ratio.estimate is None or ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return None
    return ratio.estimate - 1


def judge_series(
    samples_ms: Sequence[float],
    summary: LatencySummary,
    limits: StabilityLimits = DEFAULT_LIMITS,
    counts: Sequence[int] | None = None,
) -> Verdict:
    """Judge a series alone; the state of the machine during the measurement is judged elsewhere.

    Args:
        samples_ms: Samples in the order they were taken, milliseconds.
        summary: Summary of the samples.
        limits: Limits of a stable measurement.
        counts: Number of samples of each process, one after the other; None stands for one process.
    """
    reasons = []
    if summary.count < limits.min_frames:
        reasons.append(
            f"only {counted(summary.count, 'frame')}, at least {limits.min_frames} are needed; increase --duration"
        )
    if summary.cov > limits.max_cov:
        reasons.append(f"the latencies scatter by {summary.cov:.1%} (CoV), {limits.max_cov:.0%} is the limit")
    if summary.relative_half_width > limits.max_half_width:
        reasons.append(
            f"the median is known to {summary.relative_half_width:.1%} only, {limits.max_half_width:.0%} is the limit"
        )
    parts = split_series(samples_ms, counts)
    moved = {i: told for i, part in enumerate(parts, 1) if (told := _moves(part, limits))}
    if len(parts) == 1:
        reasons += moved.get(1, [])
    elif len(moved) > _MOVED_SHARE * len(parts):
        reasons += [f"process {i} of {len(parts)}: {line}" for i, told in moved.items() for line in told]
    return Verdict(tuple(reasons))


def _moves(series: Float, limits: StabilityLimits) -> list[str]:
    """Describe the steps and the drift of one process."""
    shifts = find_shifts(series, limits.max_shift)
    drift = find_drift(series)
    if not shifts and drift is not None and abs(drift) > limits.max_shift:
        return [f"the last fifth is {abs(drift):.1%} {'slower' if drift > 0 else 'faster'} than the first"]
    return [_told(shift) for shift in shifts]


def _told(shift: Shift) -> str:
    word = "slower" if shift.change > 0 else "faster"
    return (
        f"{abs(shift.change):.1%} {word} from frame {shift.index + 1} on "
        f"({shift.before_ms:.2f} to {shift.after_ms:.2f} ms)"
    )
