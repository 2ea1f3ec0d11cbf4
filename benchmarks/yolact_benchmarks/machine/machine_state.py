"""What the machine was doing while it was measured: load of others, clocks, heat, throttling.

A sample is taken between frames, never inside one: a thread of its own would disturb what it watches. What a machine
does not tell is None in a sample and "not measured" in a record.
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
"""Of the samples, in which others may be busy: what starts now and then is part of every system."""


@dataclasses.dataclass(frozen=True)
class MachineSample:
    """Of a moment, or of the time since the sample before.

    Attributes:
        seconds: Since the watch began.
        other_load: Share of all cores that something else kept busy, the hypervisor included; 0 to 1.
        stolen: Share that the hypervisor took; in `other_load` too.
        clock_mhz: Mean over cores, as the kernel tells it; a virtual machine's does not change whatever happens.
        yardstick_ms: Time of a fixed piece of work, the best of three: shows what `clock_mhz` hides.
        parallel_yardstick_ms: The same on all cores at once, of the slowest of them. A virtual machine whose cores have
            to share one of the host's has this slower and the other as ever.
        temperature_c: Of the hottest zone.
        throttle_events: Of all cores since boot (Intel).
        quota_events: How often a container's quota of processor time was used up.
        gpu: Of the GPU, where there is one.
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
        """JSON object; None is "not measured"."""
        return dataclasses.asdict(self)


class MachineWatch:
    """Takes samples when it is asked, at most two a second.

    Args:
        gpu: Open, or None.
        root: Of the file system.
        own_seconds: Processor time of this process so far, and of the processes that it has waited for.
        clock: Seconds.
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
        """What is to be watched begins now: seconds count from here, and so does the load of others."""
        self._begun = self._due = self._clock()
        self._last = (_processor_ticks(self._root), self._own_seconds())

    def sample(self, force: bool = False) -> MachineSample | None:
        """A sample, kept in :attr:`samples`, if it is time for one."""
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
        """Since the last call: of others, and of the hypervisor."""
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
    """Milliseconds of a fixed piece of work on one core, the best of three."""
    times = []
    for _ in range(_YARDSTICK_RUNS):
        started = time.perf_counter()
        np.sort(_YARDSTICK)
        times.append(time.perf_counter() - started)
    return round(min(times) * 1e3, 4)


def run_parallel_yardstick_ms() -> float | None:
    """The same on all cores that this process may use (at most eight), by the slowest; None where there is one."""
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
    """Why what was measured meanwhile is not to be trusted; nothing where nothing speaks against it."""
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
            "the same on all cores took between {} and {} ms",
            limits.max_parallel_change,
        ),
        *_changes(
            [sample.clock_mhz for sample in gpu], "the GPU's clock moved between {} and {} MHz", limits.max_clock_change
        ),
    )


def find_disturbances(samples: Sequence[MachineSample], limits: StabilityLimits = DEFAULT_LIMITS) -> tuple[str, ...]:
    """Of these reasons, those that may have made a whole measurement slower, so that nothing in it shows them."""
    reasons = []
    load = np.array([sample.other_load for sample in samples if sample.other_load is not None])
    loaded = float(np.mean(load > limits.max_other_load)) if len(load) else 0.0
    if loaded > _LOADED_SHARE:
        stolen = [sample.stolen for sample in samples if sample.stolen is not None]
        reasons.append(
            f"others kept more than {limits.max_other_load:.0%} of the cores busy {loaded:.0%} of the time "
            f"({load.mean():.0%} on average, {np.mean(stolen):.0%} the hypervisor)"
        )
    for field, told in (
        ("throttle_events", "the processor throttled itself {}: it is too hot"),
        ("quota_events", "the container ran out of its quota of processor time {}"),
    ):
        counts = [value for sample in samples if (value := getattr(sample, field)) is not None]
        if counts and counts[-1] > counts[0]:
            reasons.append(told.format(counted(counts[-1] - counts[0], "time")))
    throttles = sorted({reason for sample in samples if sample.gpu for reason in sample.gpu.throttle or ()})
    reasons += [f"the GPU slowed itself down: {', '.join(throttles)}"] if throttles else []
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
    """user, nice, system, idle, iowait, irq, softirq, steal of all cores."""
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
    # Sensors of parts that are off read far below any weather.
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
