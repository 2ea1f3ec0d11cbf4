"""The search with judges that need no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.recorder import Recorder
from support.scenes import make_instances
from yolact_calibration.errors import CalibrationError
from yolact_calibration.evaluation.agreement import measure_agreement
from yolact_calibration.evaluation.bootstrap import Interval
from yolact_calibration.evaluation.judge import Judgement
from yolact_calibration.quantisation.precision_search import Cost, SearchResult, search_precision

FINAL = ("box head", "class head", "mask head")
BODY = ("stem", "res2", "res3", "protonet")
GROUPS = (*BODY, *FINAL)
SAME = {"a": make_instances(8, 8, [(1, 1, 5, 5)])}
AGREEMENT = measure_agreement(SAME, SAME, ["cat"])
Plan = tuple[str, ...]


def lost(points: float | None) -> Judgement:
    interval = Interval(points, points, points)
    return Judgement({"bbox": interval, "segm": interval}, {"bbox": None, "segm": None}, AGREEMENT)


def cost(saved: Mapping[str, float] | None = None, unit: str = "ms") -> dict[str, Cost]:
    """Everything takes 10 ms, and 5 in INT8."""
    return {group: Cost(10.0, 10.0 - (saved or {}).get(group, 5.0), unit) for group in GROUPS}


def added(points: Mapping[str, float]) -> Callable[[Plan], Judgement]:
    """A judge to whom the losses of the parts simply add up."""
    return lambda plan: lost(sum(points.get(group, 0.0) for group in plan))


def search(
    judge: Callable[[Plan], Judgement],
    max_drop: float = 1.0,
    loss: Mapping[str, float] | None = None,
    costs: Mapping[str, Cost] | None = None,
    **options: Any,
) -> SearchResult:
    return search_precision(GROUPS, loss or {}, costs or cost(), judge, max_drop, **options)


def actions(result: SearchResult) -> list[str]:
    return [step.action for step in result.steps]


# --- giving back ------------------------------------------------------------------------------------------------------


def test_a_network_that_loses_nothing_is_in_int8_and_earns_its_answers() -> None:
    result = search(added({}))
    assert result.int8 == GROUPS
    assert result.passed
    assert not result.kept_float


def test_it_starts_without_the_answers() -> None:
    tried: list[Plan] = []
    search(lambda plan: (tried.append(plan), lost(0.0))[1])
    assert tried[0] == BODY


def test_offsets_of_deformable_convolutions_start_in_float_too() -> None:
    groups = ("stem", "deformable offsets")
    costs = {group: Cost(10.0, 5.0, "ms") for group in groups}
    result = search_precision(groups, {}, costs, lambda plan: lost(9.0 * (len(plan) > 1)), 1.0)
    assert result.steps[0].int8 == ("stem",)
    assert result.kept_float == {"deformable offsets": "in INT8 the model loses 9.00 points, 1 are allowed"}


def test_the_most_loss_for_its_cost_goes_back_first() -> None:
    """res2 loses most, but saves ten times what res3 saves."""
    saved = {"res2": 9.0, "res3": 0.9}
    result = search(added({"res2": 0.6, "res3": 0.7}), loss={"res2": 3.0, "res3": 2.0}, costs=cost(saved))
    assert actions(result)[1] == "res3 back to float"
    assert "res2" in result.int8
    assert "res3" in result.kept_float


def test_of_equal_losses_the_smaller_saving_goes_back_first() -> None:
    judge = added(dict.fromkeys(BODY, 0.5))
    saved = {"stem": 4.0, "res2": 3.0, "res3": 8.0, "protonet": 9.0}
    result = search(judge, costs=cost(saved))
    assert actions(result)[1:3] == ["res2 back to float", "stem back to float"]


def test_giving_back_stops_when_the_limit_is_held() -> None:
    result = search(added({"stem": 5.0}), loss={"stem": 1.0})
    assert actions(result)[1] == "stem back to float"
    assert set(result.int8) == set(GROUPS) - {"stem"}
    assert result.kept_float == {
        "stem": "returned to float to meet the limit: in INT8 it cost 5.00 points and saved 5 ms",
    }


def test_what_was_given_back_in_vain_returns() -> None:
    """The sensitivities were wrong: the loss is the protonet's alone."""
    result = search(added({"protonet": 5.0}), loss={"stem": 3.0, "res2": 2.0, "protonet": 1.0})
    assert actions(result)[1:4] == [f"{group} back to float" for group in ("stem", "res2", "protonet")]
    assert set(result.int8) == set(GROUPS) - {"protonet"}
    assert list(result.kept_float) == ["protonet"]


def test_the_part_that_made_the_difference_is_not_tried_again() -> None:
    result = search(added({"stem": 5.0}), loss={"stem": 1.0})
    assert not [action for action in actions(result) if action == "stem in INT8 too"]


def test_what_regained_nothing_does_not_claim_a_gain_or_a_negative_one() -> None:
    def judge(plan: Plan) -> Judgement:
        # Everything but the protonet alone is too much, and fewer parts are worse.
        return lost(0.0 if plan == ("protonet",) else 10.0 - len(plan))

    result = search(judge, loss={"stem": 3.0, "res2": 2.0, "res3": 1.0})
    assert result.int8 == ("protonet",)
    assert not any("-" in why.split("points")[0] for why in result.kept_float.values()), result.kept_float


# --- nothing left -----------------------------------------------------------------------------------------------------


def test_a_search_that_cannot_hold_the_limit_fails_with_one_part_left() -> None:
    result = search(lambda _: lost(50.0))
    assert not result.passed
    assert len(result.int8) == 1
    assert len(result.steps) == len(BODY)


def test_every_part_in_float_has_a_reason_even_where_the_limit_is_not_held() -> None:
    result = search(lambda _: lost(50.0), fixed_float={"res2": "cannot"}, costs=cost({"stem": -1.0}))
    assert set(result.kept_float) | set(result.int8) == set(GROUPS)
    assert result.kept_float["mask head"] == "starts in float, and even so the limit of 1 points does not hold"


def test_an_undefined_loss_is_too_much() -> None:
    assert not search(lambda _: lost(None)).passed


def test_no_part_that_may_be_in_int8_is_an_error_with_each_reason_once() -> None:
    with pytest.raises(CalibrationError, match=r"no part of the network can compute in INT8: too large$"):
        search(added({}), fixed_float=dict.fromkeys(GROUPS, "too large"))


def test_only_the_answers_may_be_in_int8() -> None:
    result = search(added({}), fixed_float=dict.fromkeys(BODY, "cannot"))
    assert result.int8 == FINAL
    # They are the start; none of them can be added to itself.
    assert len(result.steps) == 1


def test_an_answer_that_was_given_back_is_tried_once_more_at_most() -> None:
    """Where the answers are all that may be in INT8, they are given back like other parts."""
    result = search(added({"class head": 5.0}), loss={"box head": 1.0}, fixed_float=dict.fromkeys(BODY, "cannot"))
    assert actions(result)[1:] == ["box head back to float", "class head back to float", "box head in INT8 too"]
    assert result.int8 == ("box head", "mask head")
    assert result.kept_float["class head"].startswith("returned to float to meet the limit: in INT8 it cost 5.00")


# --- fixed parts, parts without a gain --------------------------------------------------------------------------------


def test_a_fixed_part_stays_in_float_with_its_reason() -> None:
    tried: list[Plan] = []
    result = search(lambda plan: (tried.append(plan), lost(0.0))[1], fixed_float={"res2": "reaches 1e9"})
    assert not any("res2" in plan for plan in tried)
    assert result.kept_float == {"res2": "reaches 1e9"}


def test_a_part_that_int8_does_not_speed_up_stays_in_float() -> None:
    result = search(added({}), costs=cost({"stem": 0.0, "res2": -2.0}))
    assert set(result.int8) == set(GROUPS) - {"stem", "res2"}
    assert result.kept_float["res2"] == "INT8 is no faster here (12 against 10 ms)"


def test_where_int8_speeds_up_nothing_it_is_made_all_the_same() -> None:
    result = search(added({"stem": 2.0}), loss={"stem": 1.0}, costs=cost(dict.fromkeys(GROUPS, -1.0)))
    assert result.int8 == ("res2", "res3", "protonet")
    assert result.kept_float["stem"].endswith("in INT8 it cost 2.00 points and saved nothing")
    assert result.kept_float["mask head"] == "INT8 is no faster here (11 against 10 ms)"


def test_giving_back_what_saves_nothing_and_loses_something_comes_first() -> None:
    costs = cost({"stem": -1.0, "res2": -1.0, "res3": -1.0, "protonet": -1.0})
    result = search(added({"res3": 2.0}), loss={"res3": 0.1}, costs=costs)
    assert actions(result)[1] == "res3 back to float"


# --- earning ----------------------------------------------------------------------------------------------------------


def test_an_answer_that_loses_too_much_does_not_earn_int8() -> None:
    result = search(added({"class head": 1.2}))
    assert set(result.int8) == set(GROUPS) - {"class head"}
    assert result.kept_float == {"class head": "in INT8 the model loses 1.20 points, 1 are allowed"}


def test_answers_earn_by_what_they_save() -> None:
    """There is room for one of them."""
    result = search(
        added(dict.fromkeys(FINAL, 0.6)), costs=cost({"box head": 2.0, "class head": 1.0, "mask head": 6.0})
    )
    assert result.int8 == (*BODY, "mask head")


def test_a_saving_of_less_than_a_hundredth_is_not_worth_any_accuracy() -> None:
    result = search(added({}), costs=cost({"mask head": 0.69, "box head": 0.71}))
    assert "box head" in result.int8
    assert result.kept_float == {"mask head": "INT8 would save no more than 0.69 ms: not worth any accuracy"}


def test_a_loss_at_the_limit_is_allowed() -> None:
    assert search(added({"class head": 1.0})).int8 == GROUPS


# --- everything -------------------------------------------------------------------------------------------------------


def test_everything_is_tried_once_and_not_searched() -> None:
    result = search(added({"stem": 50.0}), everything=True, fixed_float={"res2": "cannot"})
    assert result.int8 == tuple(group for group in GROUPS if group != "res2")
    assert len(result.steps) == 1
    assert not result.passed
    assert result.kept_float == {"res2": "cannot"}


def test_everything_includes_what_int8_does_not_speed_up() -> None:
    result = search(added({}), everything=True, costs=cost({"stem": -1.0}))
    assert result.int8 == GROUPS
    assert result.passed


# --- what comes out ---------------------------------------------------------------------------------------------------


@examples(150)
@given(data=st.data())
def test_whatever_the_judge_says(data: st.DataObject) -> None:
    """Judges without any sense: it ends, with a plan that was tried, its own judgement, and a reason for the rest."""
    points = st.one_of(st.none(), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.5, 80.0]))
    verdicts: dict[Plan, Judgement] = {}

    def judge(plan: Plan) -> Judgement:
        assert plan
        assert plan == tuple(group for group in GROUPS if group in plan)
        return verdicts.setdefault(plan, lost(data.draw(points)))

    some = st.sampled_from([-2.0, 0.0, 0.01, 3.0, 9.0])
    result = search(
        judge,
        loss={group: data.draw(st.sampled_from([0.0, 0.1, 7.0])) for group in GROUPS},
        costs=cost({group: data.draw(some) for group in GROUPS}),
        fixed_float=dict.fromkeys(data.draw(st.sets(st.sampled_from(GROUPS), max_size=6)), "cannot"),
        everything=data.draw(st.booleans()),
    )
    assert result.judgement is verdicts[result.int8]
    assert result.passed == result.judgement.within(1.0)
    assert set(result.kept_float) | set(result.int8) == set(GROUPS)
    assert not set(result.kept_float) & set(result.int8)
    assert len(result.steps) <= 2 * len(GROUPS)
    assert len({step.int8 for step in result.steps}) == len(result.steps), "the same plan was tried twice"


def test_undone_steps_are_marked() -> None:
    result = search(added({"class head": 1.2}))
    assert {step.action: step.accepted for step in result.steps}["class head in INT8 too"] is False
    assert result.steps[0].accepted


def test_every_plan_is_said_with_its_loss_and_the_limit() -> None:
    told = Recorder()
    result = search(added({"stem": 5.0}), loss={"stem": 1.0}, reporter=told)
    assert len(told.lines) == len(told.told) == len(result.steps)
    assert told.lines[0].endswith("5.00 points lost, 1 allowed (too much)")
    assert told.lines[1] == "  stem back to float: 0.00 points lost, 1 allowed (holds)"


def test_the_document_is_json_step_by_step() -> None:
    result = search(added({"stem": 5.0}), loss={"stem": 1.0})
    steps = cast("Sequence[dict[str, Any]]", json.loads(json.dumps(result.document(), allow_nan=False)))
    assert [step["step"] for step in steps] == list(range(len(result.steps)))
    assert steps[1]["int8"] == ["res2", "res3", "protonet"]
    assert steps[0]["drop"]["mask"] == [5.0, 5.0, 5.0]
