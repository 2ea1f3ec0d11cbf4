"""The same measurement in several fresh processes, one after the other, until enough is known.

A single process does not show how the next one will differ: memory is laid out anew, and the state of the machine
changes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TypeVar

from yolact_benchmarks.measure.fresh_process import call_in_fresh_process
from yolact_benchmarks.measure.process_run import ProcessRun, measure_request
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.measure.time_needed import WholeRun
from yolact_benchmarks.statistics.between_processes import median_interval
from yolact_plugins.files import human_estimate
from yolact_runtime.reporter import Reporter

__all__ = ["run_processes", "share_of_process"]

Item = TypeVar("Item")
_LEAST_FRAMES = 4
"""Minimum number of frames of a process: one burst."""
_SLOW, _LEAST_OPENING_S = 1.5, 10.0
"""A first process that takes 1.5 times the planned time, and 10 s for opening, is worth a message."""
Call = Callable[[BenchRequest, WholeRun | None, Reporter], ProcessRun]


def run_processes(
    request: BenchRequest,
    reporter: Reporter,
    call: Call | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[ProcessRun]:
    """Measure in as many processes as requested, or in more until the requested interval is reached.

    Args:
        request: Request whose plan is that of all processes together.
        reporter: Reporter of what is measured, and of its progress.
        call: Function that measures one run; its second argument is the whole run for the first process, else None. By
            default, :func:`~yolact_benchmarks.measure.process_run.measure_request`, in a fresh process if there are
            several.
        clock: Monotonic clock, seconds.

    Raises:
        YolactError: A process failed, as in :func:`~yolact_benchmarks.measure.process_run.measure_request`.
    """
    begun = clock()
    if request.num_processes == 1:
        return [(call or measure_request)(request, WholeRun(request, begun), reporter)]
    call = call or _in_fresh_process
    one, runs = share_of_process(request), list[ProcessRun]()
    reporter.say(f"{request.num_processes} fresh processes, one after the other; in each:")
    while True:
        whole = None if runs else WholeRun(request, begun)
        runs.append(call(one, whole, _OneOfSeveral(reporter, len(runs) + 1, request.num_processes)))
        if len(runs) == 1:
            _say_if_slow(request, runs[0], clock() - begun, reporter)
        if len(runs) < request.num_processes:
            continue
        goal, most_s = request.plan.until_ci, request.plan.duration_s * len(runs[0].series)
        if goal is None or clock() - begun >= most_s or _worst(runs) <= goal:
            return runs


def share_of_process(request: BenchRequest) -> BenchRequest:
    """Return the request of each process: its share of the time and of the frames."""
    num, plan = request.num_processes, request.plan
    frames = max(_LEAST_FRAMES, math.ceil(plan.least_frames / num))
    plan = dataclasses.replace(plan, duration_s=plan.duration_s / num, least_frames=frames)
    return dataclasses.replace(request, plan=plan, streaming_s=request.streaming_s / num, num_processes=1)


def _in_fresh_process(request: BenchRequest, whole: WholeRun | None, reporter: Reporter) -> ProcessRun:
    return call_in_fresh_process(measure_request, request, whole, reporter=reporter)


def _say_if_slow(request: BenchRequest, first: ProcessRun, took_s: float, reporter: Reporter) -> None:
    """Report the remaining time after the first process, whose frames may be longer than was planned for."""
    share = share_of_process(request)
    planned = share.plan.duration_s + share.plan.warm_up_s + share.streaming_s
    if took_s > _SLOW * (planned * len(first.series) + _LEAST_OPENING_S):
        rest = human_estimate((request.num_processes - 1) * took_s)
        reporter.say(f"the first process took {human_estimate(took_s)}: about {rest} more for the others")


class _OneOfSeveral:
    """Reporter of one process of several: only the first one's messages are passed on; the others would repeat them."""

    def __init__(self, reporter: Reporter, number: int, num_processes: int) -> None:
        self._reporter = reporter
        self._said = reporter if number == 1 else None
        self._prefix = f"process {number} of {max(number, num_processes)}: "

    def say(self, text: str = "") -> None:
        if self._said:
            self._said.say(text)

    def heading(self, text: str) -> None:
        if self._said:
            self._said.heading(text)

    def warn(self, text: str) -> None:
        if self._said:
            self._said.warn(text)

    def status(self, text: str) -> None:
        self._reporter.status(self._prefix + text)

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:
        return self._reporter.progress(items, self._prefix + label, total)


def _worst(runs: Sequence[ProcessRun]) -> float:
    """Return the largest ratio of half an interval's width to its median."""
    intervals = [median_interval([run.series[name].total_ms for run in runs]) for name in runs[0].series]
    widths = [(i.high - i.low) / 2 / i.estimate for i in intervals if i.estimate and i.low and i.high]
    return max(widths, default=math.inf)
