from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from support.fake_nvml import FakeNvml
from yolact_benchmarks.machine.machine_state import (
    MachineSample,
    MachineWatch,
    judge_machine,
    run_parallel_yardstick_ms,
    run_yardstick_ms,
)
from yolact_benchmarks.machine.nvml import GpuSample, Nvml

TICKS = os.sysconf("SC_CLK_TCK")


def machine(root: Path, busy: int, idle: int, steal: int, throttled: int = 3) -> Path:
    """Two cores that have worked so many seconds."""
    for name, content in {
        "proc/stat": f"cpu  {busy * TICKS} 0 0 {idle * TICKS} 0 0 0 {steal * TICKS} 0 0\ncpu0 1 2 3\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2200000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": f"{throttled}\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "1\n",
        "sys/class/thermal/thermal_zone0/temp": "48500\n",
        "sys/class/thermal/thermal_zone1/temp": "-256000\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 1\nnr_throttled 7\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_what_a_machine_tells(tmp_path: Path) -> None:
    own = iter([5.0, 11.0])
    now = iter([0.0, 10.0])
    watch = MachineWatch(Nvml(library=FakeNvml()), machine(tmp_path, 100, 100, 0), lambda: next(own), lambda: next(now))
    machine(tmp_path, 108, 110, 2)
    sample = watch.sample()
    assert sample is not None
    # 20 core seconds passed: 6 were ours, 2 the hypervisor's and 2 somebody else's.
    assert (sample.other_load, sample.stolen) == (0.2, 0.1)
    assert (sample.seconds, sample.clock_mhz, sample.temperature_c) == (10.0, 2000.0, 48.5)
    assert (sample.throttle_events, sample.quota_events) == (4, 7)
    assert sample.gpu == GpuSample(1500, 55, 100.0, 512.0, ())
    assert sample.document()["gpu"]["clock_mhz"] == 1500
    assert watch.samples == [sample]


def test_the_same_work_on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    threads: set[int] = set()

    def work() -> float:
        threads.add(threading.get_ident())
        return float(len(threads))

    monkeypatch.setattr("yolact_benchmarks.machine.machine_state.run_yardstick_ms", work)
    assert run_parallel_yardstick_ms() == 3.0, "the slowest"
    assert len(threads) == 3
    assert threading.get_ident() not in threads
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert run_parallel_yardstick_ms() is None


def test_samples_are_taken_at_most_twice_a_second(tmp_path: Path) -> None:
    now = [0.0]
    watch = MachineWatch(root=machine(tmp_path, 1, 1, 0), clock=lambda: now[0])
    taken = []
    for moment in (0.0, 0.1, 0.4, 0.6, 0.7):
        now[0] = moment
        taken.append(watch.sample() is not None)
    assert taken == [True, False, False, True, False]
    assert watch.sample(force=True) is not None


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    sample = MachineWatch(root=tmp_path).sample()
    assert sample is not None
    known = {name for name, value in sample.document().items() if value is not None}
    assert known - {"parallel_yardstick_ms"} == {"seconds", "yardstick_ms"}, "the other needs a second core"
    assert judge_machine([sample] * 10) == ()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_tells_its_load() -> None:
    watch = MachineWatch()
    while (sample := watch.sample(force=True)) is None or sample.other_load is None:
        sum(range(100_000))
    assert 0 <= sample.other_load <= 1
    assert run_yardstick_ms() > 0


def test_reasons_against_a_measurement() -> None:
    def samples(**fields: list[float]) -> list[MachineSample]:
        names = list(fields)
        rows = zip(*fields.values(), strict=True)
        return [MachineSample(float(i), **dict(zip(names, row, strict=True))) for i, row in enumerate(rows)]  # type: ignore[arg-type]

    assert judge_machine(samples(other_load=[0.05] * 6, clock_mhz=[2000] * 6, yardstick_ms=[1.0, 1.02] * 3)) == ()
    (load,) = judge_machine(samples(other_load=[0.3] * 6, stolen=[0.1] * 6))
    assert load == (
        "other processes kept more than 10% of the cores busy 100% of the time (30% on average, 10% the hypervisor)"
    )
    (burst,) = judge_machine(samples(other_load=[0.0] * 20 + [0.3] * 4, stolen=[0.0] * 24))
    assert "17% of the time (5% on average" in burst
    assert judge_machine(samples(other_load=[0.0] * 20 + [0.9])) == ()
    (hot,) = judge_machine(samples(throttle_events=[4, 4, 6]))
    assert hot.startswith("the CPU throttled 2 times: ")
    (quota,) = judge_machine(samples(quota_events=[7, 9]))
    assert "quota of processor time 2 times" in quota
    (clock,) = judge_machine(samples(clock_mhz=[2000] * 4 + [1400] * 4))
    assert clock.startswith("the clock moved between 1400 and 2000 MHz")
    assert judge_machine(samples(parallel_yardstick_ms=[1.0] * 4 + [1.2] * 4)) == ()
    (shared,) = judge_machine(samples(parallel_yardstick_ms=[1.0] * 4 + [1.4] * 4))
    assert shared == "a fixed piece of work on all cores took between 1 and 1.4 ms, 25% is the limit"
    (work,) = judge_machine(samples(yardstick_ms=[1.0] * 4 + [1.4] * 4))
    assert "took between 1 and 1.4 ms" in work


def test_a_gpu_that_slows_down() -> None:
    watch = MachineWatch(Nvml(library=FakeNvml(reasons=[0x1, 0x4 | 0x20], clock_mhz=[1500] * 3 + [900] * 5)))
    for _ in range(8):
        watch.sample(force=True)
    gpu = [reason for reason in judge_machine(watch.samples) if "GPU" in reason]
    assert gpu[0] == "the GPU throttled: power cap, thermal slowdown"
    assert gpu[1].startswith("the GPU's clock moved between 900 and 1500 MHz")


def test_no_driver_and_no_package() -> None:
    with pytest.raises(OSError, match="no NVIDIA driver, or no GPU 0: Driver Not Loaded"):
        Nvml(library=FakeNvml(has_driver=False))
    library = FakeNvml()
    gpu = Nvml(library=library)
    assert gpu.name == "NVIDIA Test"
    gpu.close()
    assert not library.is_open


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(OSError, match="pip install nvidia-ml-py"):
        Nvml()
