from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.bench_records import steady_ms
from support.properties import examples
from yolact_benchmarks.statistics import block_bootstrap
from yolact_benchmarks.statistics.between_processes import (
    median_interval,
    ratio_interval,
    split_series,
    student_quantile,
)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (8, 2.306), (10, 2.228), (18, 2.101), (30, 2.042)],
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(quantile, rel=2e-3)
    assert student_quantile(0.5, freedom) == pytest.approx(0, abs=1e-12)


def test_the_normal_distribution_is_the_limit() -> None:
    assert student_quantile(0.975, math.inf) == pytest.approx(1.95996, abs=1e-5)
    assert student_quantile(0.975, 1e6) == pytest.approx(1.96, abs=1e-4)


def test_a_series_by_process() -> None:
    assert [part.tolist() for part in split_series([1, 2, 3, 4, 5], [2, 3])] == [[1, 2], [3, 4, 5]]
    assert [part.tolist() for part in split_series([1, 2, 3], None)] == [[1, 2, 3]]
    assert [part.tolist() for part in split_series([1, 2, 3], [])] == [[1, 2, 3]]


def test_one_process_has_the_interval_of_its_frames() -> None:
    series = steady_ms(1)
    assert median_interval([series]) == block_bootstrap.median_interval(series)


def covered(num: int, spread: float, trials: int = 400) -> tuple[float, float]:
    """Share of intervals that have the truth in them: of a median, and of a ratio."""
    random = np.random.default_rng(num)
    medians = ratios = 0
    for _ in range(trials):
        one, other = (
            [20 * math.exp(random.normal(0, spread)) * (1 + 0.02 * random.normal(size=31)) for _ in range(num)]
            for _ in range(2)
        )
        interval, ratio = median_interval(one), ratio_interval(one, other)
        assert interval.low is not None
        assert interval.high is not None
        assert ratio.low is not None
        assert ratio.high is not None
        medians += interval.low <= 20 <= interval.high
        ratios += ratio.low <= 1 <= ratio.high
    return medians / trials, ratios / trials


@pytest.mark.parametrize("num", [2, 3, 5, 10])
def test_95_per_cent_of_intervals_cover_the_truth_whatever_the_number_of_processes(num: int) -> None:
    median, ratio = covered(num, 0.02)
    # 400 trials: three standard errors are 3.3 %. Welch's approximation errs towards wide for two.
    assert 0.915 <= median <= 0.985
    assert 0.915 <= ratio <= 1


def test_frames_alone_would_not() -> None:
    """Why there are processes: the frames of one say nothing of the next."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(80):
        part = 20 * math.exp(random.normal(0, 0.02)) * (1 + 0.02 * random.normal(size=31))
        interval = block_bootstrap.median_interval(part)
        assert interval.low is not None
        assert interval.high is not None
        hits += interval.low <= 20 <= interval.high
    assert hits < 40


def test_one_process_is_taken_to_scatter_as_was_measured() -> None:
    constant = [20.0] * 50
    ratio = ratio_interval([constant], [constant])
    assert ratio.high is not None
    assert ratio.high == pytest.approx(math.exp(1.96 * 0.02 * math.sqrt(2)), abs=1e-4)
    # Several processes that did not scatter at all are known exactly.
    assert ratio_interval([constant] * 3, [constant] * 3).high == 1


@given(
    st.lists(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=9), min_size=1, max_size=6),
    st.lists(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=9), min_size=1, max_size=6),
    st.sampled_from([0.5, 4.0]),
)
@examples(60)
def test_whatever_was_measured_the_interval_holds_the_ratio_and_units_do_not_matter(
    above: list[list[float]], below: list[list[float]], factor: float
) -> None:
    ratio, back = ratio_interval(above, below), ratio_interval(below, above)
    assert ratio.estimate is not None
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low * (1 - 1e-9) <= ratio.estimate <= ratio.high * (1 + 1e-9)
    assert back.estimate == pytest.approx(1 / ratio.estimate)
    scaled = ratio_interval([[factor * ms for ms in part] for part in above], below)
    assert scaled.estimate == pytest.approx(factor * ratio.estimate)
