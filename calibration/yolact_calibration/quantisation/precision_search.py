"""Search for the parts of a network that compute in INT8: as many as the accuracy limit allows.

Everything but the output layers starts in INT8. While too much accuracy is lost, the part returns to float that regains
most of it for each millisecond (or multiply-accumulate operation, if nothing can be timed). Once the limit holds,
output layers may be added to INT8 one by one, and so may parts that returned to float in vain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yolact_calibration.errors import CalibrationError
from yolact_calibration.evaluation.judge import Judgement
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["Cost", "SearchResult", "SearchStep", "search_precision"]

# Groups that start in float. Offsets are coordinates: their error moves every sample of their layer.
_START_IN_FLOAT = (*FINAL_GROUPS, "deformable offsets")
# A part that saves less than this share of the network's cost is not worth any accuracy.
_LEAST_SAVING = 0.01


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a part of a network.

    Attributes:
        in_float: Cost in float, in `unit`.
        in_int8: Cost in INT8, in `unit`.
        unit: Unit ``"ms"``, or ``"GMAC"`` if nothing can be timed; INT8 then counts a half.
    """

    in_float: float
    in_int8: float
    unit: str

    @property
    def saved(self) -> float:
        """Cost that INT8 saves; negative if INT8 is slower."""
        return self.in_float - self.in_int8


@dataclasses.dataclass(frozen=True)
class SearchStep:
    """Plan that was tried.

    Attributes:
        action: Readable description of the change.
        int8: Names of the groups in INT8.
        judgement: Judgement of the plan.
        accepted: Whether it is the best plan so far, or the next one starts from it.
    """

    action: str
    int8: tuple[str, ...]
    judgement: Judgement
    accepted: bool


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        int8: Names of the groups in INT8.
        kept_float: Reasons of the groups that stay in float, by group.
        judgement: Judgement of the chosen plan.
        passed: Whether the limit holds, with at least one group in INT8.
        steps: Plans that were tried, in order.
    """

    int8: tuple[str, ...]
    kept_float: Mapping[str, str]
    judgement: Judgement
    passed: bool
    steps: tuple[SearchStep, ...]

    def document(self) -> list[dict[str, Any]]:
        """Return the steps as JSON objects."""
        return [
            {
                "step": number,
                "action": step.action,
                "int8": list(step.int8),
                "accepted": step.accepted,
                **step.judgement.document(),
            }
            for number, step in enumerate(self.steps)
        ]


def search_precision(
    groups: Sequence[str],
    loss: Mapping[str, float],
    cost: Mapping[str, Cost],
    judge: Callable[[tuple[str, ...]], Judgement],
    max_drop: float,
    *,
    fixed_float: Mapping[str, str] | None = None,
    everything: bool = False,
    reporter: Reporter = SILENT,
) -> SearchResult:
    """Search for the plan with the most INT8 within the limit.

    Args:
        groups: Groups of the network, in its order.
        loss: Loss of each group alone in INT8, in any unit.
        cost: Cost of each group.
        judge: Function that judges a plan, given the groups in INT8.
        max_drop: Points of box and of mask AP that may be lost.
        fixed_float: Reasons of the groups that must stay in float, by group.
        everything: If True, use all other groups without a search.
        reporter: Reporter that receives a line for each plan.

    Raises:
        CalibrationError: No group can be in INT8.
    """
    return _Search(tuple(groups), loss, cost, judge, max_drop, dict(fixed_float or {}), reporter).run(everything)


class _Search:
    def __init__(
        self,
        groups: tuple[str, ...],
        loss: Mapping[str, float],
        cost: Mapping[str, Cost],
        judge: Callable[[tuple[str, ...]], Judgement],
        max_drop: float,
        fixed: dict[str, str],
        reporter: Reporter,
    ) -> None:
        self._groups = groups
        self._loss = loss
        self._cost = cost
        self._judge = judge
        self._max_drop = max_drop
        self._kept = fixed
        self._reporter = reporter
        self._steps: list[SearchStep] = []
        self._least_saving = _LEAST_SAVING * sum(part.in_float for part in cost.values())

    def run(self, everything: bool) -> SearchResult:
        free = [group for group in self._groups if group not in self._kept]
        if not free:
            reasons = "; ".join(dict.fromkeys(self._kept.values())) or "it has no convolution"
            raise CalibrationError(f"no part of the network can compute in INT8: {reasons}")
        if everything:
            judgement = self._try("everything in INT8, as requested", free, accept=True)
            return self._result(free, judgement)
        chosen = [group for group in free if group not in _START_IN_FLOAT and self._pays(group)]
        if not chosen:
            chosen = [group for group in free if group not in _START_IN_FLOAT] or free
        judgement = self._try("start: everything but the output layers", chosen, accept=True)
        given_back: list[str] = []
        while not judgement.within(self._max_drop) and len(chosen) > 1:
            given_back.append(max(chosen, key=self._give_back_order))
            chosen, judgement = self._give_back(given_back[-1], chosen, judgement)
        answering = [group for group in free if group in _START_IN_FLOAT and group not in {*chosen, *given_back}]
        if judgement.within(self._max_drop):
            # Not the last one: without it the limit does not hold.
            in_vain = [group for group in given_back[:-1] if self._cost[group].saved >= self._least_saving]
            chosen, judgement = self._earn(chosen, judgement, [*in_vain, *answering])
        else:
            reason = f"starts in float, and even so the limit of {self._max_drop:g} points does not hold"
            self._kept |= dict.fromkeys(answering, reason)
        return self._result(chosen, judgement)

    def _pays(self, group: str) -> bool:
        """Return whether INT8 is faster than float; if it is not, record the reason."""
        cost = self._cost[group]
        if cost.saved > 0:
            return True
        self._kept[group] = f"INT8 is no faster here ({cost.in_int8:.3g} against {cost.in_float:.3g} {cost.unit})"
        return False

    def _give_back(self, worst: str, chosen: list[str], before: Judgement) -> tuple[list[str], Judgement]:
        rest = [group for group in chosen if group != worst]
        judgement = self._try(f"{worst} back to float", rest, accept=True)
        regained, cost = before.worst - judgement.worst, self._cost[worst]
        lost = f"cost {regained:.2f} points" if regained > 0 else "cost no points by itself"
        saved = f"saved {cost.saved:.3g} {cost.unit}" if cost.saved > 0 else "saved nothing"
        self._kept[worst] = f"returned to float to meet the limit: in INT8 it {lost} and {saved}"
        return rest, judgement

    def _give_back_order(self, group: str) -> tuple[float, float]:
        """Return the loss alone per unit of cost: parts with a loss that save nothing return to float first.

        Among parts without a loss of their own, the one that saves least returns first.
        """
        saved = self._cost[group].saved
        return self._loss.get(group, 0.0) / max(saved, 1e-6), -saved

    def _earn(self, chosen: list[str], judgement: Judgement, candidates: list[str]) -> tuple[list[str], Judgement]:
        for group in sorted(candidates, key=lambda group: -self._cost[group].saved):
            cost = self._cost[group]
            if not self._pays(group):
                continue
            if cost.saved < self._least_saving:
                self._kept[group] = f"INT8 would save no more than {cost.saved:.3g} {cost.unit}: not worth any accuracy"
                continue
            more = [g for g in self._groups if g in {*chosen, group}]
            found = self._try(f"{group} in INT8 too", more, accept=None)
            if found.within(self._max_drop):
                chosen, judgement = more, found
            else:
                self._kept[group] = f"in INT8 the model loses {found.worst:.2f} points, {self._max_drop:g} are allowed"
        return chosen, judgement

    def _try(self, action: str, groups: list[str], accept: bool | None) -> Judgement:
        judgement = self._judge(tuple(groups))
        accepted = judgement.within(self._max_drop) if accept is None else accept
        self._steps.append(SearchStep(action, tuple(groups), judgement, accepted))
        verdict = "holds" if judgement.within(self._max_drop) else "too much"
        self._reporter.say(f"  {action}: {judgement.worst:.2f} points lost, {self._max_drop:g} allowed ({verdict})")
        return judgement

    def _result(self, chosen: list[str], judgement: Judgement) -> SearchResult:
        kept = {group: self._kept[group] for group in self._groups if group in self._kept and group not in chosen}
        passed = judgement.within(self._max_drop) and bool(chosen)
        return SearchResult(tuple(chosen), kept, judgement, passed, tuple(self._steps))
