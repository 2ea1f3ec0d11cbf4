from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.bench_records import steady_ms
from support.recorder import Recorder
from yolact_benchmarks.machine.machine_state import MachineSample
from yolact_benchmarks.measure.measurement import Plan, Series
from yolact_benchmarks.measure.process_run import ProcessRun, join_runs
from yolact_benchmarks.measure.repeated_runs import run_processes, share_of_process
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.measure.stages import NETWORK, FrameTimes
from yolact_benchmarks.measure.time_needed import WholeRun
from yolact_runtime.reporter import SILENT, Reporter


def request(num_processes: int, plan: Plan | None = None) -> BenchRequest:
    return BenchRequest(Path("any.bundle"), plan=plan or Plan(10.0), num_processes=num_processes, streaming_s=3.0)


def a_run(begun: float, samples_ms: list[float], joules: float | None = 1.0) -> ProcessRun:
    series = Series(joules={"board": joules}, busy_s=2.0, energy_frames=len(samples_ms))
    for i, ms in enumerate(samples_ms):
        series.add(FrameTimes(ms, {"network": ms / 2}, 3), i + 1.0)
    streaming = {"fps": 10.0, "frames": 20, "seconds": 2.0}
    machine = [MachineSample(0.0), MachineSample(5.0)]
    return ProcessRun(begun, {"a": {}}, {"a": (NETWORK,)}, {"a": series}, {"a": streaming}, [{}], machine, ("none",))


class Processes:
    """Runs that take ten seconds each unless it is said, of medians that are given."""

    def __init__(self, *medians: float, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self.medians = list(medians)
        self.asked: list[BenchRequest] = []
        self.now = 0.0

    def call(self, one: BenchRequest, whole: WholeRun | None, reporter: Reporter) -> ProcessRun:
        reporter.say(f"opened {len(self.asked)}")
        self.now += 2
        if whole is not None:
            reporter.say(whole.line(6, 1, self.now))
        reporter.warn("16 bits?")
        reporter.status("measuring")
        self.asked.append(one)
        self.now += self.seconds - 2
        return a_run(self.now, steady_ms(len(self.asked), self.medians[(len(self.asked) - 1) % len(self.medians)], 30))

    def clock(self) -> float:
        return self.now


def test_processes_share_the_time() -> None:
    one = share_of_process(request(5, Plan(10.0, 0.01, 1.5)))
    assert one.plan == Plan(2.0, 0.01, 1.5, least_frames=4)
    assert (one.streaming_s, one.num_processes) == (pytest.approx(0.6), 1)
    assert share_of_process(request(2)).plan.least_frames == 5


def test_the_first_process_speaks_for_all() -> None:
    processes, told = Processes(20.0), Recorder()
    runs = run_processes(request(3), told, processes.call, processes.clock)
    assert len(runs) == 3
    assert [one.plan.duration_s for one in processes.asked] == [pytest.approx(10 / 3)] * 3
    assert told.warnings == ["16 bits?"]
    assert told.lines == [
        "3 fresh processes, one after the other; in each:",
        "opened 0",
        # 3 x (2 s to open + 6 x 1 s of warm-up), 6 x (10 + 3) s of frames, 3 cold starts.
        "about 105 s in total, with 3 processes, streaming and cold starts",
    ]
    assert told.of("status") == [f"process {i} of 3: measuring" for i in (1, 2, 3)]


def test_a_first_process_that_takes_longer_than_planned_says_how_long_the_others_take() -> None:
    told = Recorder()
    slow = Processes(20.0, seconds=50.0)
    run_processes(request(3), told, slow.call, slow.clock)
    assert "the first process took 50 s: about 100 s more for the others" in told.lines
    told.told.clear()
    quick = Processes(20.0)
    run_processes(request(3), told, quick.call, quick.clock)
    assert not any("more for the others" in line for line in told.lines)


def test_one_process_says_how_long_it_takes_too() -> None:
    told = Recorder()
    alone = Processes(20.0)
    run_processes(request(1), told, alone.call, alone.clock)
    assert told.lines[1] == "about 89 s in total, with streaming and cold starts"


def test_one_process_is_asked_for_everything() -> None:
    processes = Processes(20.0)
    (run,) = run_processes(request(1), SILENT, processes.call)
    assert processes.asked == [request(1)]
    assert join_runs([run]) is run


def test_it_goes_on_until_the_median_is_known_or_the_time_is_over() -> None:
    alike = Processes(20.0, 20.1)
    assert len(run_processes(request(3, Plan(120.0, 0.02)), SILENT, alike.call, alike.clock)) == 3
    # The first three differ by 10 %, and the more there are the better the median is known.
    settling = Processes(20.0, 22.0, 21.0)
    settled = len(run_processes(request(3, Plan(1e6, 0.02)), SILENT, settling.call, settling.clock))
    assert 5 <= settled <= 60
    never = Processes(20.0, 22.0, 21.0)
    assert len(run_processes(request(3, Plan(60.0, 0.001)), SILENT, never.call, never.clock)) == 6


def test_runs_are_joined_one_after_the_other() -> None:
    runs = [a_run(100.0, [10.0, 11.0]), a_run(130.0, [12.0], joules=2.0)]
    joined = join_runs(runs)
    series = joined.series["a"]
    assert (series.total_ms, series.counts, series.num_instances) == ([10.0, 11.0, 12.0], [2, 1], [3, 3, 3])
    assert series.stage_ms == {"network": [5.0, 5.5, 6.0]}
    assert series.seconds == [1.0, 2.0, 31.0]
    assert (series.joules, series.busy_s, series.energy_frames) == ({"board": 3.0}, 4.0, 3)
    assert [sample.seconds for sample in joined.machine] == [0.0, 5.0, 30.0, 35.0]
    assert joined.streaming["a"] == {"fps": 10.0, "frames": 40, "seconds": 4.0}


def test_what_one_process_did_not_measure_is_not_measured() -> None:
    runs = [a_run(0.0, [10.0]), a_run(9.0, [10.0], joules=None)]
    runs[1].streaming["a"] = {"not_measured": "it ended"}
    joined = join_runs(runs)
    assert joined.series["a"].joules == {"board": None}
    assert joined.streaming["a"] == {"not_measured": "it ended"}
    other: Any = a_run(0.0, [10.0])
    other.series["a"].joules = {}
    assert join_runs([a_run(0.0, [10.0]), other]).series["a"].joules == {"board": None}
