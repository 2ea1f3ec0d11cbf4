"""Whether a series of latencies is one thing that can be measured, or several: spread, drift, and steps.

A machine that gets hot clocks down at once: the series has a step. It is looked for with cumulated ranks (the CUSUM of
Pettitt 1979): ranks, so that single long frames do not count as steps; and against what correlated noise does by
itself, so that a machine that breathes is not called a machine that throttles.
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
"""Of Kuiper's distribution: exceeded by noise once in a thousand series."""
_MIN_SEGMENT = 8
_MAX_SHIFTS = 6
_SEARCH, _SEARCH_SHARE, _MAX_SEARCH = 32, 4, 128
"""Frames before and after a rough edge where a better one is looked for: so many, in a longer series a quarter of it,
and no more than the last; again from there, so many times."""
_MAX_MOVES = 8
_DRIFT_SHARE = 5
"""The first fifth is compared with the last."""
_MOVED_SHARE = 0.25
"""Of the processes of a measurement, in which a step or a drift is let pass: how far they differ from the others is in
the interval of the median."""


@dataclasses.dataclass(frozen=True)
class StabilityLimits:
    """What still counts as stable.

    Attributes:
        max_cov: Standard deviation over mean.
        max_shift: Of a step or a drift, as a fraction.
        max_half_width: Of the median's interval, as a fraction of the median.
        min_frames: Fewer say nothing about stability.
        max_other_load: Of the machine's cores, busy with something else (or taken by the hypervisor).
        max_clock_change: Of the clock, or of a fixed piece of work, between the fastest and the slowest tenth.
        max_parallel_change: Likewise of that work on all cores at once, where the library's threads come to rest first.

    Raises:
        UsageError: A field is no number of its kind, or out of its range; the message names it.
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
        index: First frame after it.
        before_ms: Median of the stretch that it ends.
        after_ms: Median of the stretch that it begins.
    """

    index: int
    before_ms: float
    after_ms: float

    @property
    def change(self) -> float:
        """0.25: a quarter slower."""
        return self.after_ms / self.before_ms - 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of a measurement.

    Attributes:
        reasons: Why it is unstable, for people; none where it is stable.
    """

    reasons: tuple[str, ...] = ()

    @property
    def is_stable(self) -> bool:
        return not self.reasons

    def document(self) -> dict[str, Any]:
        """JSON object."""
        return {"stable": self.is_stable, "reasons": list(self.reasons)}


def find_shifts(samples_ms: npt.ArrayLike, least: float = StabilityLimits.max_shift) -> tuple[Shift, ...]:
    """Steps of a series, in its order.

    Args:
        samples_ms: ``(n,)`` in the order they were taken.
        least: Smaller steps, as a fraction, are left out.
    """
    series = np.asarray(samples_ms, np.float64)
    edges = _split(series, 0, len(series))
    bounds = [0, *sorted(edges), len(series)]
    medians = [float(np.median(series[a:b])) for a, b in itertools.pairwise(bounds) if b > a]
    shifts = [Shift(bounds[i + 1], medians[i], medians[i + 1]) for i in range(len(medians) - 1)]
    return tuple(shift for shift in shifts if abs(shift.change) > least)


def _split(series: Float, first: int, last: int) -> list[int]:
    """Where the series changes: at the clearest places, then inside the parts."""
    edges: list[int] = []
    todo = [(first, last)]
    while todo and len(edges) < _MAX_SHIFTS:
        begin, end = todo.pop(0)
        found = [begin + edge for edge in _clearest_edges(series[begin:end])]
        edges += found
        todo += itertools.pairwise([begin, *found, end]) if found else []
    return edges


def _clearest_edges(series: Float) -> list[int]:
    """First frames after the one or two clearest steps; none where noise would do the same.

    Two, because a throttle that ends has a way back: the path of the cumulated ranks then has a peak and a trough, and
    their distance is Kuiper's statistic.
    """
    count = len(series)
    if count < 2 * _MIN_SEGMENT:
        return []
    ranks = np.argsort(np.argsort(series, kind="stable"), kind="stable").astype(np.float64)
    path = np.concatenate([[0.0], np.cumsum(ranks - ranks.mean())])
    edges = sorted({int(path.argmax()), int(path.argmin())})
    edges = [edge for edge in edges if _MIN_SEGMENT <= edge <= count - _MIN_SEGMENT]
    edges = _sharpened(series, edges)
    # What the noise remembers shows once the steps are taken out.
    rest = np.concatenate([part - np.median(part) for part in np.split(series, edges)])
    spread = ranks.std() * np.sqrt(count * correlation_length(rest))
    return edges if spread > 0 and (path.max() - path.min()) / spread > _CRITICAL else []


def _sharpened(series: Float, edges: list[int]) -> list[int]:
    """The edges, moved to where the stretches on both sides are most alike; cumulated ranks find them roughly."""
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
    """How much slower the last fifth is than the first, as a fraction; None where that is within its interval."""
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
    """Verdict on a series alone; what the machine did meanwhile is judged elsewhere.

    Args:
        samples_ms: In the order they were taken.
        summary: Of them.
        limits: What still counts as stable.
        counts: Samples of each process, one after the other; None: all are of one.
    """
    reasons = []
    if summary.count < limits.min_frames:
        reasons.append(
            f"only {counted(summary.count, 'frame')}, {limits.min_frames} are the least; give it more --duration"
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
    """Steps and drift of one process."""
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
