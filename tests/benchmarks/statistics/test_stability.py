from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_benchmarks.statistics.stability import StabilityLimits, Verdict, find_drift, find_shifts, judge_series
from yolact_benchmarks.statistics.statistics import summarise


def steady(seed: int, count: int = 300, spread: float = 0.02) -> npt.NDArray[np.float64]:
    """Latencies around 20 ms with a tail of long frames, as real ones have."""
    random = np.random.default_rng(seed)
    return 20 * (1 + spread * random.gamma(2, 1, count))


def judged(series: npt.NDArray[np.float64], limits: StabilityLimits | None = None) -> Verdict:
    return judge_series(series.tolist(), summarise(series), limits or StabilityLimits())


def test_steady_series_are_stable() -> None:
    verdicts = [judged(steady(seed)) for seed in range(12)]
    assert [verdict.reasons for verdict in verdicts if not verdict.is_stable] == []
    assert verdicts[0].document() == {"stable": True, "reasons": []}


@example(88369, 40, 0.080078125)  # the cumulated ranks have their extreme 57 frames after the step
@given(st.integers(0, 2**32 - 1), st.integers(40, 260), st.floats(0.08, 1.0))
@examples(20, derandomize=True)  # noise may hide one step in some thousands
def test_a_planted_throttle_is_found_where_it_is(seed: int, place: int, slower: float) -> None:
    series = steady(seed)
    series[place:] *= 1 + slower
    shifts = find_shifts(series)
    assert shifts
    nearest = min(shifts, key=lambda shift: abs(shift.index - place))
    assert abs(nearest.index - place) <= 8
    assert nearest.change == pytest.approx(slower, abs=0.05)
    assert not judged(series).is_stable


def test_a_throttle_that_ends_has_two_steps() -> None:
    series = steady(3)
    series[100:180] *= 1.5
    down, up = find_shifts(series)
    assert (abs(down.index - 100) <= 3, abs(up.index - 180) <= 3) == (True, True)
    assert down.change > 0.4
    assert up.change < -0.25
    reasons = judged(series).reasons
    assert any("slower from frame" in reason for reason in reasons)
    assert any("faster from frame" in reason for reason in reasons)


def test_a_step_between_processes_is_no_step_and_one_inside_few_of_them_is_let_pass() -> None:
    counts, limits = [60] * 5, StabilityLimits(max_half_width=1.0)
    series = steady(5)

    def reasons() -> tuple[str, ...]:
        return judge_series(series.tolist(), summarise(series, counts=counts), limits, counts).reasons

    series[60:120] *= 1.1
    assert reasons() == (), "how processes differ is in the interval of the median"
    series[150:180] *= 1.15
    assert reasons() == ()
    series[210:240] *= 1.15
    assert [reason.partition(":")[0] for reason in reasons()] == ["process 3 of 5", "process 4 of 5"]
    assert all("slower from frame 31 on" in reason for reason in reasons())
    narrow = judge_series(series.tolist(), summarise(series, counts=counts), counts=counts).reasons
    assert narrow[0].startswith("the median is known to")


def test_noise_with_memory_is_no_throttle() -> None:
    false_alarms = 0
    for seed in range(25):
        random = np.random.default_rng(seed)
        value, series = 0.0, np.empty(400)
        for i in range(400):
            value = 0.9 * value + random.normal(0, 0.005)
            series[i] = 20 * (1 + value)
        false_alarms += bool(find_shifts(series, least=0.0))
    assert false_alarms <= 2


def test_single_long_frames_are_no_step() -> None:
    series = steady(4)
    series[::60] *= 10
    assert find_shifts(series) == ()
    (reason,) = judged(series).reasons
    assert "scatter" in reason


def test_a_slow_drift_is_found() -> None:
    series = steady(5) * np.linspace(1, 1.2, 300)
    drift = find_drift(series)
    assert drift == pytest.approx(0.17, abs=0.03)
    assert not judged(series).is_stable
    assert find_drift(steady(5)) is None


def test_a_drift_without_a_clear_step_is_told_as_one() -> None:
    reasons = judged(steady(5) * np.linspace(1, 1.2, 300), StabilityLimits(max_shift=0.12)).reasons
    assert any("than the first" in reason or "slower from frame" in reason for reason in reasons)


def test_short_and_wide_series_say_so() -> None:
    assert "only 5 frames" in judged(steady(6, 5)).reasons[0]
    wide = np.random.default_rng(0).uniform(10, 30, 25)
    assert any("is known to" in reason for reason in judged(wide).reasons)
    assert judged(steady(7, 25, spread=0.0)).is_stable
