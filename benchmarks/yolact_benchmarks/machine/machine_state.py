"""State of the machine during a measurement: load of other processes, clocks, temperature, throttling.

Samples are taken between frames, never during one: a sampling thread would disturb the measurement. A figure that the
machine does not provide is None in a sample and "not measured" in a record.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.machine.nvml import GpuSample, Nvml
from yolact_benchmarks.statistics.stability import DEFAULT_LIMITS, StabilityLimits
from yolact_plugins.files import counted

__all__ = [
    "MachineSample",
    "MachineWatch",
    "find_disturbances",
    "judge_machine",
    "run_parallel_yardstick_ms",
    "run_yardstick_ms",
]

_PERIOD_S = 0.5
_YARDSTICK = np.random.default_rng(0).random(60_000, np.float32)
_YARDSTICK_RUNS = 3
_MAX_PARALLEL = 8
_LEAST_SAMPLES = 5
_LOADED_SHARE = 0.1
"""Share of the samples with load of other processes that is tolerated: every system starts something now and then."""


@dataclasses.dataclass(frozen=True)
class MachineSample:
    """State of the machine at one moment, or over the time since the previous sample.

    Attributes:
        seconds: Time since the watch began, seconds.
        other_load: Share of all cores that other processes and the hypervisor kept busy; 0 to 1.
        stolen: Share of all cores that the hypervisor took; included in `other_load`.
        clock_mhz: Mean clock of the cores as reported by the kernel, MHz; constant on most virtual machines.
        yardstick_ms: Time of a fixed piece of work, the best of three, milliseconds; it reveals what `clock_mhz` hides.
        parallel_yardstick_ms: Time of the same work on all cores at once, of the slowest core, milliseconds. On a
            virtual machine whose cores share one core of the host, only this figure rises.
        temperature_c: Temperature of the hottest thermal zone, degrees Celsius.
        throttle_events: Number of throttle events of all cores since boot (Intel only).
        quota_events: Number of times that the container exhausted its CPU quota.
        gpu: State of the GPU; None without one.
    """

    seconds: float
    other_load: float | None = None
    stolen: float | None = None
    clock_mhz: float | None = None
    yardstick_ms: float | None = None
    temperature_c: float | None = None
    throttle_events: int | None = None
    quota_events: int | None = None
    gpu: GpuSample | None = None
    parallel_yardstick_ms: float | None = None

    def document(self) -> dict[str, Any]:
        """Return the sample as a JSON object, in which null stands for "not measured"."""
        return dataclasses.asdict(self)


class MachineWatch:
    """Sampler of the machine's state, at most twice a second.

    Args:
        gpu: Open GPU to sample, or None.
        root: Root of the file system that ``/proc`` and ``/sys`` are read from.
        own_seconds: Function that returns the CPU time so far of this process and of the children it has waited for,
            seconds.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self,
        gpu: Nvml | None = None,
        root: Path = Path("/"),
        own_seconds: Callable[[], float] = lambda: sum(os.times()[:4]),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpu = gpu
        self._root = root
        self._own_seconds = own_seconds
        self._clock = clock
        self._begun = clock()
        self._last = (_processor_ticks(root), own_seconds())
        self._due = self._begun
        self.samples: list[MachineSample] = []

    def begin(self) -> None:
        """Restart the watch: set the time origin, and start to accumulate the load of other processes."""
        self._begun = self._due = self._clock()
        self._last = (_processor_ticks(self._root), self._own_seconds())

    def sample(self, force: bool = False) -> MachineSample | None:
        """Take a sample and append it to :attr:`samples`; return None if the previous one is too recent."""
        now = self._clock()
        if not force and now < self._due:
            return None
        self._due = now + _PERIOD_S
        other_load, stolen = self._loads()
        taken = MachineSample(
            seconds=round(now - self._begun, 3),
            other_load=other_load,
            stolen=stolen,
            clock_mhz=_clock_mhz(self._root),
            yardstick_ms=run_yardstick_ms(),
            temperature_c=_hottest_c(self._root),
            throttle_events=_sum_of(self._root, "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"),
            quota_events=_quota_events(self._root),
            gpu=self._gpu.sample() if self._gpu is not None else None,
            parallel_yardstick_ms=run_parallel_yardstick_ms(),
        )
        self.samples.append(taken)
        return taken

    def _loads(self) -> tuple[float | None, float | None]:
        """Return the loads since the last call: of others including the hypervisor, and of the hypervisor alone."""
        before, own_before = self._last
        ticks, own = _processor_ticks(self._root), self._own_seconds()
        self._last = (ticks, own)
        if before is None or ticks is None or sum(ticks) <= sum(before):
            return None, None
        passed = [now - then for now, then in zip(ticks, before, strict=True)]
        total = sum(passed)
        # user, nice, system, idle, iowait, irq, softirq, steal
        busy = total - passed[3] - passed[4]
        ours = (own - own_before) * os.sysconf("SC_CLK_TCK")
        return round(min(1.0, max(0.0, busy - ours) / total), 4), round(passed[7] / total, 4)


def run_yardstick_ms() -> float:
    """Return the time of a fixed piece of work on one core, the best of three, in milliseconds."""
    times = []
    for _ in range(_YARDSTICK_RUNS):
        started = time.perf_counter()
        np.sort(_YARDSTICK)
        times.append(time.perf_counter() - started)
    return round(min(times) * 1e3, 4)


def run_parallel_yardstick_ms() -> float | None:
    """Return the time of the fixed piece of work on all usable cores at once, at most eight.

    The result is that of the slowest core, in milliseconds; None if there is only one core.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num = min(usable, _MAX_PARALLEL)
    if num < 2:
        return None
    together, times = threading.Barrier(num), list[float]()

    def run() -> None:
        together.wait()
        times.append(run_yardstick_ms())

    threads = [threading.Thread(target=run) for _ in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(times)


def judge_machine(samples: Sequence[MachineSample], limits: StabilityLimits = DEFAULT_LIMITS) -> tuple[str, ...]:
    """Return the reasons to distrust what was measured during these samples; empty if there are none."""
    gpu = [sample.gpu for sample in samples if sample.gpu is not None]
    return (
        *find_disturbances(samples, limits),
        *_changes(
            [sample.clock_mhz for sample in samples], "the clock moved between {} and {} MHz", limits.max_clock_change
        ),
        *_changes(
            [s.yardstick_ms for s in samples],
            "a fixed piece of work took between {} and {} ms",
            limits.max_clock_change,
        ),
        *_changes(
            [s.parallel_yardstick_ms for s in samples],
            "a fixed piece of work on all cores took between {} and {} ms",
            limits.max_parallel_change,
        ),
        *_changes(
            [sample.clock_mhz for sample in gpu], "the GPU's clock moved between {} and {} MHz", limits.max_clock_change
        ),
    )


def find_disturbances(samples: Sequence[MachineSample], limits: StabilityLimits = DEFAULT_LIMITS) -> tuple[str, ...]:
    """Return those reasons that may have slowed a whole measurement down, so that its figures do not show it."""
    reasons = []
    load = np.array([sample.other_load for sample in samples if sample.other_load is not None])
    loaded = float(np.mean(load > limits.max_other_load)) if len(load) else 0.0
    if loaded > _LOADED_SHARE:
        stolen = [sample.stolen for sample in samples if sample.stolen is not None]
        reasons.append(
            f"other processes kept more than {limits.max_other_load:.0%} of the cores busy {loaded:.0%} of the time "
            f"({load.mean():.0%} on average, {np.mean(stolen):.0%} the hypervisor)"
        )
    for field, told in (
        ("throttle_events", "the CPU throttled {}: it is too hot"),
        ("quota_events", "the container ran out of its quota of processor time {}"),
    ):
        counts = [value for sample in samples if (value := getattr(sample, field)) is not None]
        if counts and counts[-1] > counts[0]:
            reasons.append(told.format(counted(counts[-1] - counts[0], "time")))
    throttles = sorted({reason for sample in samples if sample.gpu for reason in sample.gpu.throttle or ()})
    reasons += [f"the GPU throttled: {', '.join(throttles)}"] if throttles else []
    return tuple(reasons)


def _changes(values: Sequence[float | None], told: str, limit: float) -> list[str]:
    known = [value for value in values if value]
    if len(known) < _LEAST_SAMPLES:
        return []
    low, high = np.percentile(known, [10, 90])
    if high / low - 1 <= limit:
        return []
    return [f"{told.format(f'{low:.4g}', f'{high:.4g}')}, {limit:.0%} is the limit"]


def _processor_ticks(root: Path) -> list[int] | None:
    """Return user, nice, system, idle, iowait, irq, softirq and steal ticks, summed over all cores."""
    words = _read(root / "proc/stat").split("\n", 1)[0].split()
    return [int(word) for word in words[1:9]] if len(words) >= 9 and words[0] == "cpu" else None


def _clock_mhz(root: Path) -> float | None:
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    kilohertz = [float(word) for path in paths if (word := _read(path).strip()).isdigit()]
    if kilohertz:
        return round(float(np.mean(kilohertz)) / 1e3, 1)
    lines = _read(root / "proc/cpuinfo").splitlines()
    megahertz = [float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz")]
    return round(float(np.mean(megahertz)), 1) if megahertz else None


def _hottest_c(root: Path) -> float | None:
    words = [_read(path).strip() for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    # Sensors of components that are powered down read far below any plausible temperature.
    known = [int(word) / 1e3 for word in words if word.lstrip("-").isdigit() and int(word) > -50_000]
    return max(known, default=None)


def _sum_of(root: Path, pattern: str) -> int | None:
    words = [_read(path).strip() for path in root.glob(pattern)]
    known = [int(word) for word in words if word.isdigit()]
    return sum(known) if known else None


def _quota_events(root: Path) -> int | None:
    for line in _read(root / "sys/fs/cgroup/cpu.stat").splitlines():
        if line.startswith("nr_throttled "):
            return int(line.split()[1])
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
