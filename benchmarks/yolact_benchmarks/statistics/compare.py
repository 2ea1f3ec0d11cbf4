"""Comparison of two records of ``yolact-bench``: is the newer one slower?

Two figures are compared process by process, and their scatter gives the intervals of the ratios. One is the median,
which is what an application experiences. The other is the fastest tenth of the frames: other load on a machine only
ever makes frames longer, so this figure still distinguishes two models if the medians cannot.

A configuration is slower if its ratio is beyond the allowed regression and its interval excludes that it is not slower
at all. It is not slower if the interval ends below the allowed regression. Anything else is doubtful; a measurement
compared with itself is the same. If the machine itself became slower, according to a fixed piece of work, ratios are
divided by that factor before they are judged. A measurement taken under other load or while the machine throttled is
doubtful if that could explain the difference, because the whole measurement may have been slowed evenly. The same holds
if all cores at once were slower.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.statistics.between_processes import PROCESS_SPREAD, ratio_interval, split_series
from yolact_runtime.errors import YolactError

__all__ = ["CaseComparison", "Comparison", "MachineMismatchError", "Ratio", "compare_records", "compare_series"]

Outcome = Literal["slower", "doubtful", "faster", "same"]
_MEDIAN, _FAST = 0.5, 0.1
_OTHER_MACHINE = 0.1
"""Change of the time on all cores at once beyond which the two runs are not comparable."""
_SAME_MACHINE = ("cpu", "cores", "architecture")
_SAME_SETTINGS = ("threads", "min_confidence")


class MachineMismatchError(YolactError):
    """Two records are from different machines, so that a ratio of their times says nothing about a model."""

    exit_status: ClassVar[int] = 5


@dataclasses.dataclass(frozen=True)
class Ratio:
    """Ratio of one figure, new over old.

    Attributes:
        ratio: Ratio of the geometric means over processes.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        machine: Slowdown of the machine alone, the same ratio for a fixed piece of work, at least 1: a faster machine
            neither excuses nor hides anything. Ratios are divided by it before they are judged.
    """

    ratio: float
    low: float
    high: float
    machine: float = 1.0

    @property
    def relative_half_width(self) -> float:
        """Half of the interval's width over the ratio: 0.01 means "known to 1 %"."""
        return (self.high - self.low) / 2 / self.ratio

    def judge(self, max_regress: float) -> Outcome:
        """Return the outcome of this figure alone.

        Args:
            max_regress: Allowed regression, as a fraction.
        """
        if self.ratio / self.machine > 1 + max_regress:
            return "slower" if self.low / self.machine > 1 else "doubtful"
        if self.ratio < 1 - max_regress and self.high < 1:
            return "faster"
        return "same" if self.high / self.machine <= 1 + max_regress else "doubtful"


@dataclasses.dataclass(frozen=True)
class CaseComparison:
    """Comparison of one configuration in two records.

    Attributes:
        name: Name of the configuration.
        old_ms: Latency of the older record, milliseconds: the geometric mean of its processes' medians.
        new_ms: Latency of the newer record, likewise.
        median: Ratio of the medians.
        fast: Ratio of the 10th percentiles, which one frame in ten is below.
        outcome: Outcome: ``"slower"`` is a regression beyond what is allowed; ``"doubtful"`` may be one.
        is_stable: Whether both measurements were stable.
        is_disturbed: Whether the older and the newer measurement were disturbed by something that their scatter does
            not show.
        processes: Number of processes of the older and the newer measurement.
    """

    name: str
    old_ms: float
    new_ms: float
    median: Ratio
    fast: Ratio
    outcome: Outcome
    is_stable: bool = True
    is_disturbed: tuple[bool, bool] = (False, False)
    processes: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of two records.

    Attributes:
        cases: Comparisons of the configurations that both records have.
        missing: Names of configurations that only one of them has.
        warnings: Sentences about what makes the comparison doubtful.
    """

    cases: tuple[CaseComparison, ...]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[CaseComparison, ...]:
        """Configurations that are slower than allowed."""
        return tuple(case for case in self.cases if case.outcome == "slower")

    @property
    def doubts(self) -> tuple[CaseComparison, ...]:
        """Configurations that may be slower and have to be measured again."""
        return tuple(case for case in self.cases if case.outcome == "doubtful")

    def document(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        return {**dataclasses.asdict(self), "regressions": [case.name for case in self.regressions]}


def compare_series(
    name: str,
    old_ms: Sequence[npt.ArrayLike],
    new_ms: Sequence[npt.ArrayLike],
    max_regress: float,
    machine: tuple[float, float] = (1.0, 1.0),
    is_stable: bool = True,
    is_disturbed: tuple[bool, bool] = (False, False),
) -> CaseComparison:
    """Compare two measurements of one configuration.

    Args:
        name: Name of the configuration.
        old_ms: Latencies of each process of the older measurement, ``(n,)`` milliseconds, in the order they were taken.
        new_ms: Latencies of the newer measurement, likewise.
        max_regress: Allowed regression, as a fraction.
        machine: Ratios of the time of a fixed piece of work, new over old: of its median and of its fastest tenth.
        is_stable: Whether both measurements were stable.
        is_disturbed: Whether the older and the newer measurement were disturbed by something that their scatter does
            not show.
    """
    old, new = (float(np.exp(np.mean([np.log(np.median(np.asarray(p))) for p in parts]))) for parts in (old_ms, new_ms))
    processes = len(old_ms), len(new_ms)
    if processes[0] == processes[1] and all(map(np.array_equal, old_ms, new_ms)):
        # One measurement under two names: nothing can have become slower, whatever it says about the machine.
        same = Ratio(1.0, 1.0, 1.0)
        return CaseComparison(name, old, new, same, same, "same", is_stable, is_disturbed, processes)
    median, fast = (_ratio(new_ms, old_ms, q, of) for q, of in zip((_MEDIAN, _FAST), machine, strict=True))
    outcome = _outcome(median.judge(max_regress), fast.judge(max_regress), is_stable)
    # A disturbance slows down: what is slower all the same, or not slower in spite of it, stands.
    if is_disturbed[0] if outcome in {"same", "faster"} else is_disturbed[1]:
        outcome = "doubtful"
    return CaseComparison(name, old, new, median, fast, outcome, is_stable, is_disturbed, processes)


def _ratio(above: Sequence[npt.ArrayLike], below: Sequence[npt.ArrayLike], q: float, machine: float) -> Ratio:
    found = ratio_interval(above, below, q)
    assert found.estimate is not None
    assert found.low is not None
    assert found.high is not None
    return Ratio(found.estimate, found.low, found.high, max(1.0, machine))


def _outcome(median: Outcome, fast: Outcome, is_stable: bool) -> Outcome:
    """Combine the outcomes: the median's if it is clear, else the fastest tenth's; stability decides conflicts."""
    if fast in {median, "doubtful"}:
        return median
    if median == "doubtful":
        return fast
    # A regression may be in the longer frames only, such as those with many instances; so may be what disturbed them.
    if is_stable:
        return median
    return "doubtful" if "slower" in {median, fast} else "same"


def compare_records(
    old: Mapping[str, Any], new: Mapping[str, Any], max_regress: float, any_machine: bool = False
) -> Comparison:
    """Compare all configurations that two records have in common.

    Args:
        old: Older record.
        new: Newer record.
        max_regress: Allowed regression, as a fraction.
        any_machine: Whether to compare records of different machines anyway.

    Raises:
        MachineMismatchError: The machines differ.
    """
    warnings = []
    differing = _differences(old["environment"], new["environment"], _SAME_MACHINE)
    if differing and not any_machine:
        raise MachineMismatchError(
            f"the two records are from different machines ({'; '.join(differing)}), and a ratio of their times would "
            f"say nothing about the model. Measure both on one machine, or give --any-machine"
        )
    warnings += [f"the machines differ: {text}" for text in differing]
    machine = _machine_ratio(old, new, _MEDIAN), _machine_ratio(old, new, _FAST)
    warnings += _warnings(old, new, machine[0], max_regress)
    before = {case["name"]: case for case in old["results"]["cases"]}
    after = {case["name"]: case for case in new["results"]["cases"]}
    disturbed, told = _disturbances(old, new)
    warnings += told
    cases = []
    for name in (name for name in before if name in after):
        both = before[name], after[name]
        old_ms, new_ms = (split_series(case["samples_ms"], case.get("processes")) for case in both)
        is_stable = all(case["verdict"]["stable"] for case in both)
        cases.append(compare_series(name, old_ms, new_ms, max_regress, machine, is_stable, disturbed))
    if old["results"] == new["results"]:
        warnings.append("both records are of one and the same run: this says nothing about a difference")
    warnings += [f"{case.name}: one of the measurements was unstable" for case in cases if not case.is_stable]
    if any(1 in case.processes for case in cases):
        warnings.append(
            f"a measurement of one process does not show how the next one differs; the assumed difference is "
            f"{PROCESS_SPREAD:.0%}; --processes 5 measures it"
        )
    return Comparison(tuple(cases), tuple(sorted(before.keys() ^ after.keys())), tuple(warnings))


def _warnings(old: Mapping[str, Any], new: Mapping[str, Any], machine: float, max_regress: float) -> list[str]:
    """Return sentences about differences other than the models."""
    told = [f"settings differ: {text}" for text in _differences(old["settings"], new["settings"], _SAME_SETTINGS)]
    before, after = (record["environment"].get("packages", {}) for record in (old, new))
    told += [f"versions differ: {text}" for text in _differences(before, after, sorted({*before, *after}))]
    if abs(machine - 1) > max_regress:
        word = "slower" if machine > 1 else "faster"
        told.append(f"the machine itself was {abs(machine - 1):.1%} {word} in the newer run, by a fixed piece of work")
    return told


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{n} {old.get(n)} and {new.get(n)}" for n in names if old.get(n) != new.get(n)]


def _disturbances(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[tuple[bool, bool], list[str]]:
    """Return which of the two runs was disturbed in a way that its scatter does not show, and sentences about it."""
    flags = [bool(record["results"]["machine"].get("disturbances")) for record in (old, new)]
    # The speed of all cores together does not affect a network that runs on one thread.
    if all(record["settings"].get("threads") == 1 for record in (old, new)):
        return (flags[0], flags[1]), []
    ratio = _machine_ratio(old, new, _MEDIAN, "parallel_yardstick_ms")
    change = max(ratio, 1 / ratio) - 1
    if change <= _OTHER_MACHINE:
        return (flags[0], flags[1]), []
    told = (
        f"all cores at once were {change:.0%} slower in the {'newer' if ratio > 1 else 'older'} run, by the same work: "
        f"cores of a virtual machine may have had to share one of the host's"
    )
    return (flags[0] or ratio < 1, flags[1] or ratio > 1), [told]


def _machine_ratio(old: Mapping[str, Any], new: Mapping[str, Any], q: float, key: str = "yardstick_ms") -> float:
    """Return the ratio of a quantile of the fixed work's time, new over old; 1 if it is unknown."""
    found = []
    for record in (old, new):
        known = [one[key] for one in record["results"]["machine"]["samples"] if one.get(key)]
        if not known:
            return 1.0
        found.append(float(np.quantile(known, q)))
    return found[1] / found[0]
