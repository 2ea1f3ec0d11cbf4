from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.recorder import Recorder
from yolact_benchmarks.machine.machine_state import MachineWatch
from yolact_benchmarks.machine.power import IntegratingMeter, Meters
from yolact_benchmarks.measure.frames import FrameSet
from yolact_benchmarks.measure.measurement import Case, Plan, Series, measure
from yolact_benchmarks.measure.stages import NETWORK, FrameTimes

NO_METERS = Meters((), ("none",))
FRAMES = FrameSet("6x4", "made up", (np.zeros((4, 6, 3), np.uint8), np.ones((4, 6, 3), np.uint8)))


class Machine:
    """Time passes only when a frame runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def clock(self) -> float:
        return self.now


class FakeTimer:
    """Takes the given milliseconds, over and over."""

    segmenter: Any = None
    stages = (NETWORK,)

    def __init__(self, machine: Machine, name: str, *ms: float) -> None:
        self._machine, self._name, self._ms = machine, name, list(ms)
        self.frames: list[int] = []

    def time(self, frame: npt.NDArray[np.uint8]) -> FrameTimes:
        ms = self._ms[len(self.frames) % len(self._ms)]
        self.frames.append(int(frame[0, 0, 0]))
        self._machine.now += ms / 1e3
        self._machine.ran.append(self._name)
        return FrameTimes(ms, {"network": ms}, 3)


def run(machine: Machine, plan: Plan, tmp_path: Path, meters: Meters = NO_METERS, **timers: FakeTimer) -> Any:
    cases = [Case(name, name, timer, FRAMES) for name, timer in timers.items()]
    told = Recorder()
    series = measure(cases, plan, MachineWatch(root=tmp_path), meters, told, machine.clock)
    return series, told.of("status")


def test_the_warm_up_and_the_duration_are_times(tmp_path: Path) -> None:
    machine = Machine()
    timer = FakeTimer(machine, "a", 125.0)
    series, lines = run(machine, Plan(duration_s=4.0, warm_up_s=1.0), tmp_path, a=timer)
    assert len(series["a"].total_ms) == 32
    assert len(timer.frames) == 40, "eight frames of warm-up; with one network, none is thrown away"
    assert timer.frames[:4] == [0, 1, 0, 1], "frames take turns"
    assert series["a"].seconds[-1] == 4.0
    assert series["a"].stage_ms == {"network": [125.0] * 32}
    assert series["a"].num_instances == [3] * 32
    assert lines[-1].startswith("4 of 4 s, 32 frames: a 125.00 ms ± 0.0%")


def test_networks_take_turns_and_the_first_frame_of_a_turn_does_not_count(tmp_path: Path) -> None:
    machine = Machine()
    slow, fast = FakeTimer(machine, "slow", 200.0), FakeTimer(machine, "fast", 100.0)
    series, _ = run(machine, Plan(duration_s=3.0, warm_up_s=0.0), tmp_path, slow=slow, fast=fast)
    counted = machine.ran[2:]
    assert counted[:10] == ["slow"] * 5 + ["fast"] * 5
    assert len(series["slow"].total_ms) == len(series["fast"].total_ms) == 4 * len(counted) // 10


def test_a_slow_network_gets_its_least_frames(tmp_path: Path) -> None:
    machine = Machine()
    series, _ = run(machine, Plan(duration_s=1.0), tmp_path, a=FakeTimer(machine, "a", 2000.0))
    assert len(series["a"].total_ms) == 12


def test_it_stops_when_the_median_is_known(tmp_path: Path) -> None:
    machine = Machine()
    sure, _ = run(machine, Plan(60.0, until_ci=0.01, warm_up_s=0.0), tmp_path, a=FakeTimer(machine, "a", 100.0))
    assert machine.now < 3
    machine = Machine()
    noise = np.random.default_rng(0).uniform(50, 150, 997)
    unsure, _ = run(machine, Plan(20.0, until_ci=0.01, warm_up_s=0.0), tmp_path, a=FakeTimer(machine, "a", *noise))
    assert machine.now == pytest.approx(20, abs=0.5)
    assert len(sure["a"].total_ms) < len(unsure["a"].total_ms)


def test_energy_is_that_of_the_frames(tmp_path: Path) -> None:
    machine = Machine()
    meter = IntegratingMeter("board", lambda: 10.0, machine.clock)
    meters = Meters((meter,), ())
    a, b = FakeTimer(machine, "a", 100.0), FakeTimer(machine, "b", 300.0)
    series, _ = run(machine, Plan(duration_s=2.0), tmp_path, meters, a=a, b=b)
    for name, joules in (("a", 1.0), ("b", 3.0)):
        one: Series = series[name]
        assert one.joules["board"] is not None
        assert one.joules["board"] / one.energy_frames == pytest.approx(joules)
        assert one.joules["board"] / one.busy_s == pytest.approx(10)


def test_a_meter_that_fails_once_has_not_measured(tmp_path: Path) -> None:
    machine = Machine()
    watts: list[float | None] = [10.0, 10.0, None] + [10.0] * 50
    meters = Meters((IntegratingMeter("board", lambda: watts.pop(0), machine.clock),), ())
    series, _ = run(machine, Plan(duration_s=2.0), tmp_path, meters, a=FakeTimer(machine, "a", 100.0))
    assert series["a"].joules == {"board": None}
