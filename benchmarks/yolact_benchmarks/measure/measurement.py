"""Interleaved measurement of several configurations, until each median is known well enough or the time is over.

Interleaving exposes all configurations to the same state of the machine, so that their ratios hold even if it changes.
A network leaves its weights in the caches and its threads on the cores, which would slow the next one down and does not
occur in production: if there are several networks, every burst begins with a frame that is not counted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.machine.machine_state import MachineWatch
from yolact_benchmarks.machine.power import Meters
from yolact_benchmarks.measure.frames import FrameSet
from yolact_benchmarks.measure.stages import FrameTimer, FrameTimes
from yolact_benchmarks.statistics.block_bootstrap import median_interval
from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval
from yolact_runtime.errors import UsageError
from yolact_runtime.option_numbers import MAX_COUNT, keep_between
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["MAX_S", "Case", "Plan", "Series", "measure"]

MAX_S = 31_536_000.0
"""Longest duration that is accepted: a year, in seconds."""
_BURST = 4
_LOOK_EVERY_S = 1.0
_QUICK = BootstrapSettings(num_resamples=300)


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration to measure.

    Attributes:
        name: Human-readable, unique name.
        network: Key of the network that it runs; cases of one network share its caches.
        timer: Timer of the model.
        frames: Frames to segment.
    """

    name: str
    network: str
    timer: FrameTimer
    frames: FrameSet


@dataclasses.dataclass(frozen=True)
class Plan:
    """Durations of a measurement, and the condition to stop earlier.

    Attributes:
        duration_s: Time for each case, seconds; with `until_ci`, the maximum.
        until_ci: Half-width of the 95 % interval, as a fraction of the median, that every case must reach to stop
            early; None measures for the whole duration.
        warm_up_s: Warm-up of each case, seconds; its frames are not counted.
        least_frames: Minimum number of frames of each case, however long they take.

    Raises:
        UsageError: A field is not a number of its type, or out of range; the message names it.
    """

    duration_s: float = 10.0
    until_ci: float | None = None
    warm_up_s: float = 1.0
    least_frames: int = 10

    def __post_init__(self) -> None:
        keep_between(
            self,
            {"least_frames": (1, MAX_COUNT)},
            {"duration_s": (0, MAX_S), "warm_up_s": (0, MAX_S), "until_ci": (0, 1)},
        )
        for name in ("duration_s", "until_ci"):
            if getattr(self, name) == 0:
                raise UsageError(f"{name} must be above 0, found 0")


@dataclasses.dataclass
class Series:
    """Measurements of one case, frame by frame.

    Attributes:
        total_ms: Time of each whole frame, milliseconds.
        stage_ms: Time of each frame's stages by the name of the stage, milliseconds.
        num_instances: Number of instances found in each frame.
        seconds: End of each frame, in seconds since the measurement began.
        joules: Energy by meter; None if a reading failed.
        busy_s: Time over which `joules` were measured, seconds.
        energy_frames: Number of frames in that time, including those that are not counted.
        counts: Number of frames of each process in a series joined from several processes; otherwise empty.
    """

    total_ms: list[float] = dataclasses.field(default_factory=list)
    stage_ms: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    num_instances: list[int] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    joules: dict[str, float | None] = dataclasses.field(default_factory=dict)
    busy_s: float = 0.0
    energy_frames: int = 0
    counts: list[int] = dataclasses.field(default_factory=list)

    def add(self, times: FrameTimes, seconds: float) -> None:
        """Append the times of one frame, which ended at `seconds`."""
        self.total_ms.append(times.total_ms)
        for name, ms in times.stage_ms.items():
            self.stage_ms.setdefault(name, []).append(ms)
        self.num_instances.append(times.num_instances)
        self.seconds.append(seconds)

    def spend(
        self, before: dict[str, float | None], after: dict[str, float | None], seconds: float, count: int
    ) -> None:
        """Add the energy of a burst of `count` frames, from the meters' readings before and after."""
        self.busy_s += seconds
        self.energy_frames += count
        for name, joules in after.items():
            begun, so_far = before.get(name), self.joules.get(name, 0.0)
            known = joules is not None and begun is not None and so_far is not None
            self.joules[name] = so_far + joules - begun if known else None  # type: ignore[operator]

    @classmethod
    def joined(cls, parts: Sequence[Series], begun: Sequence[float]) -> Series:
        """Join the series of several processes, one after the other.

        Args:
            parts: Series of one case, one for each process.
            begun: Start of each process's measurement, seconds on a clock that all of them share.
        """
        whole = cls(counts=[len(one.total_ms) for one in parts])
        for one, start in zip(parts, begun, strict=True):
            whole.total_ms += one.total_ms
            whole.num_instances += one.num_instances
            whole.seconds += [second + start - begun[0] for second in one.seconds]
            whole.busy_s += one.busy_s
            whole.energy_frames += one.energy_frames
            for name, ms in one.stage_ms.items():
                whole.stage_ms.setdefault(name, []).extend(ms)
        for name in {name for one in parts for name in one.joules}:
            known = [joules for one in parts if (joules := one.joules.get(name)) is not None]
            whole.joules[name] = sum(known) if len(known) == len(parts) else None
        return whole


def measure(
    cases: Sequence[Case],
    plan: Plan,
    watch: MachineWatch,
    meters: Meters,
    reporter: Reporter = SILENT,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Series]:
    """Measure cases side by side and return their series by the name of the case.

    Args:
        cases: Cases to interleave.
        plan: Durations, and the condition to stop.
        watch: Watch of the machine, which samples between bursts.
        meters: Energy meters, read before and after every burst.
        reporter: Reporter that receives the progress about once a second.
        clock: Monotonic clock, seconds.
    """
    frames, series = {case.name: case.frames.cycle() for case in cases}, {case.name: Series() for case in cases}
    _warm_up(cases, frames, plan, clock)
    several = len({case.network for case in cases}) > 1
    watch.begin()
    begun = looked = clock()
    while True:
        for case in cases:
            _turn(case, frames[case.name], series[case.name], meters, several, begun, clock)
            watch.sample()
        passed = clock() - begun
        enough = min(len(one.total_ms) for one in series.values()) >= plan.least_frames
        is_over = enough and passed >= plan.duration_s * len(cases)
        if is_over or clock() - looked >= _LOOK_EVERY_S:
            intervals = {name: median_interval(one.total_ms, _QUICK) for name, one in series.items()}
            looked = clock()
            reporter.status(_line(series, intervals, passed, plan, len(cases)))
            if is_over or (enough and plan.until_ci and _worst(intervals) <= plan.until_ci):
                break
    watch.sample(force=True)
    return series


def _warm_up(
    cases: Sequence[Case], frames: dict[str, Iterator[npt.NDArray[np.uint8]]], plan: Plan, clock: Callable[[], float]
) -> None:
    for case in cases:
        begun = clock()
        case.timer.time(next(frames[case.name]))
        while clock() - begun < plan.warm_up_s:
            case.timer.time(next(frames[case.name]))


def _turn(
    case: Case,
    frames: Iterator[npt.NDArray[np.uint8]],
    series: Series,
    meters: Meters,
    several: bool,
    begun: float,
    clock: Callable[[], float],
) -> None:
    joules, started = meters.read(), clock()
    if several:
        case.timer.time(next(frames))
    for _ in range(_BURST):
        times = case.timer.time(next(frames))
        series.add(times, clock() - begun)
    series.spend(joules, meters.read(), clock() - started, _BURST + several)


def _worst(intervals: dict[str, Interval]) -> float:
    """Return the largest ratio of half an interval's width to its median."""
    widths = [
        (one.high - one.low) / 2 / one.estimate
        for one in intervals.values()
        if one.low is not None and one.high is not None and one.estimate
    ]
    return max(widths, default=float("inf"))


def _line(series: dict[str, Series], intervals: dict[str, Interval], passed: float, plan: Plan, num_cases: int) -> str:
    medians = ", ".join(
        f"{name} {one.estimate:.2f} ms ± {(one.high - one.low) / 2 / one.estimate:.1%}"
        for name, one in intervals.items()
        if one.low is not None and one.high is not None and one.estimate
    )
    frames = sum(len(one.total_ms) for one in series.values())
    return f"{passed:.0f} of {plan.duration_s * num_cases:.0f} s, {frames} frames: {medians}"
