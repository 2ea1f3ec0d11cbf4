"""Two records of ``yolact-bench``, one older: is the newer one slower?

Medians are compared, process by process: their scatter makes the interval of the ratio. A configuration is called
slower when its ratio is beyond what is allowed *and* the interval leaves no doubt that it is slower at all; beyond what
is allowed, with such doubt, it is doubtful. Where the machine itself became slower, which a fixed piece of work tells,
the ratio is divided by that before it is judged.

What was measured while others used the machine, or while it throttled, is doubtful: that may have slowed down a whole
measurement evenly. Other unsteadiness is in the scatter of the processes; of a single process it is doubtful too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.between_processes import PROCESS_SPREAD, ratio_interval, split_series
from yolact_runtime.errors import YolactError

__all__ = ["CaseComparison", "Comparison", "MachineMismatchError", "compare_records", "compare_series"]

Outcome = Literal["slower", "doubtful", "faster", "same"]
_SAME_MACHINE = ("cpu", "cores", "architecture")
_SAME_SETTINGS = ("threads", "min_confidence")


class MachineMismatchError(YolactError):
    """Two records are from different machines, so that a ratio of their times says nothing about a model."""

    exit_status: ClassVar[int] = 5


@dataclasses.dataclass(frozen=True)
class CaseComparison:
    """One configuration in two records.

    Attributes:
        name: Of it.
        old_ms: Median; of several processes, the geometric mean of theirs.
        new_ms: Likewise.
        ratio: New over old.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        machine: By how much the machine alone was slower, 1 where it was not; the ratio is judged without it.
        outcome: ``"slower"`` is a regression, beyond what is allowed; ``"doubtful"`` is a change in either direction
            that is beyond it, with an interval that has 1 in it or a measurement that is not to be trusted.
        is_stable: Both measurements were.
        is_trusted: Their medians may be compared.
        processes: Of each measurement.
    """

    name: str
    old_ms: float
    new_ms: float
    ratio: float
    low: float
    high: float
    machine: float
    outcome: Outcome
    is_stable: bool = True
    is_trusted: bool = True
    processes: tuple[int, int] = (1, 1)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of two records.

    Attributes:
        cases: Configurations that both have.
        missing: Names that only one of them has.
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
        return tuple(case for case in self.cases if case.outcome == "doubtful" and case.ratio > 1)

    def document(self) -> dict[str, Any]:
        """JSON object."""
        return {**dataclasses.asdict(self), "regressions": [case.name for case in self.regressions]}


def compare_series(
    name: str,
    old_ms: Sequence[npt.ArrayLike],
    new_ms: Sequence[npt.ArrayLike],
    max_regress: float,
    machine: float = 1.0,
    is_stable: bool = True,
    is_disturbed: bool = False,
) -> CaseComparison:
    """Compare two measurements of one configuration.

    Args:
        name: Of it.
        old_ms: Latencies of each process, in the order they were taken.
        new_ms: Likewise.
        max_regress: As a fraction.
        machine: Ratio of a fixed piece of work, new over old; below 1 it is not used: a faster machine does not
            excuse, and does not hide, anything.
        is_stable: Both measurements were.
        is_disturbed: One of them was, by something that shows in no scatter.
    """
    interval = ratio_interval(new_ms, old_ms)
    ratio, low, high = (float("nan") if v is None else v for v in (interval.estimate, interval.low, interval.high))
    slower_machine = max(1.0, machine)
    processes = len(old_ms), len(new_ms)
    is_trusted = not is_disturbed and (is_stable or min(processes) > 1)
    outcome: Outcome = "same"
    if ratio / slower_machine > 1 + max_regress:
        outcome = "slower" if is_trusted and low / slower_machine > 1 else "doubtful"
    elif ratio < 1 - max_regress:
        outcome = "faster" if is_trusted and high < 1 else "doubtful"
    old, new = (
        float(np.exp(np.mean([np.log(np.median(np.asarray(part))) for part in parts]))) for parts in (old_ms, new_ms)
    )
    return CaseComparison(name, old, new, ratio, low, high, slower_machine, outcome, is_stable, is_trusted, processes)


def compare_records(
    old: Mapping[str, Any], new: Mapping[str, Any], max_regress: float, any_machine: bool = False
) -> Comparison:
    """Compare all configurations that two records have in common.

    Args:
        old: Record.
        new: Record.
        max_regress: As a fraction.
        any_machine: Compare records of different machines all the same.

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
    warnings += [f"settings differ: {text}" for text in _differences(old["settings"], new["settings"], _SAME_SETTINGS)]
    before_packages, after_packages = (record["environment"].get("packages", {}) for record in (old, new))
    names = sorted({*before_packages, *after_packages})
    warnings += [f"versions differ: {text}" for text in _differences(before_packages, after_packages, names)]
    machine = _machine_ratio(old, new)
    if abs(machine - 1) > max_regress:
        warnings.append(
            f"the machine itself was {abs(machine - 1):.1%} {'slower' if machine > 1 else 'faster'} in the newer run, "
            f"by a fixed piece of work"
        )
    before = {case["name"]: case for case in old["results"]["cases"]}
    after = {case["name"]: case for case in new["results"]["cases"]}
    is_disturbed = any(record["results"]["machine"].get("disturbances") for record in (old, new))
    cases = [
        _compare(name, before[name], after[name], max_regress, machine, is_disturbed)
        for name in before
        if name in after
    ]
    warnings += [f"{case.name}: one of the measurements was unstable" for case in cases if not case.is_stable]
    if any(1 in case.processes for case in cases):
        warnings.append(
            f"a measurement of one process says nothing about the next one, which is taken to differ by "
            f"{PROCESS_SPREAD:.0%}; --processes 5 measures it"
        )
    return Comparison(tuple(cases), tuple(sorted(before.keys() ^ after.keys())), tuple(warnings))


def _compare(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], max_regress: float, machine: float, is_disturbed: bool
) -> CaseComparison:
    is_stable = all(case["verdict"]["stable"] for case in (old, new))
    before, after = (split_series(case["samples_ms"], case.get("processes")) for case in (old, new))
    return compare_series(name, before, after, max_regress, machine, is_stable, is_disturbed)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [f"{n} {old.get(n)} and {new.get(n)}" for n in names if old.get(n) != new.get(n)]


def _machine_ratio(old: Mapping[str, Any], new: Mapping[str, Any]) -> float:
    """Median time of the fixed piece of work, new over old; 1 where it is not known."""
    medians = []
    for record in (old, new):
        known = [one["yardstick_ms"] for one in record["results"]["machine"]["samples"] if one.get("yardstick_ms")]
        if not known:
            return 1.0
        medians.append(float(np.median(known)))
    return medians[1] / medians[0]
