from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_benchmarks.statistics.block_bootstrap import (
    block_length,
    correlation_length,
    median_interval,
    ratio_interval,
)
from yolact_calibration.evaluation.bootstrap import BootstrapSettings

FEW = BootstrapSettings(num_resamples=200)


def correlated(seed: int, count: int, memory: float) -> npt.NDArray[np.float64]:
    """A first-order autoregressive series around 10 ms, which remembers its past by the given factor."""
    noise = np.random.default_rng(seed).normal(0, 1, count)
    series = np.empty(count)
    value = noise[0] / np.sqrt(1 - memory**2)
    for i in range(count):
        value = memory * value + noise[i]
        series[i] = value
    return 10 + 0.1 * series


@pytest.mark.parametrize(("memory", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_the_correlation_length_of_a_series_that_is_known(memory: float, expected: float) -> None:
    # Of an autoregressive series it is (1 + r) / (1 - r).
    found = np.mean([correlation_length(correlated(seed, 4000, memory)) for seed in range(5)])
    assert found == pytest.approx(expected, rel=0.25)


def test_the_same_series_has_the_same_interval() -> None:
    series = correlated(1, 300, 0.5)
    assert median_interval(series) == median_interval(series)
    other = median_interval(series, BootstrapSettings(seed=1))
    assert other != median_interval(series)
    assert other.estimate == median_interval(series).estimate


def test_blocks_make_the_interval_honest_where_frames_remember() -> None:
    """Of 60 series with memory about 95 % should cover the true median; single draws would cover about half."""
    covered = narrow = 0
    for seed in range(60):
        series = correlated(seed, 400, 0.9)
        interval = median_interval(series, FEW)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 10 <= interval.high
        random = np.random.default_rng(seed)
        single = np.median(random.choice(series, (200, 400)), axis=1)
        low, high = np.percentile(single, [2.5, 97.5])
        narrow += bool(low <= 10 <= high)
    assert covered >= 48
    assert narrow <= 42


def test_the_ratio_of_two_series() -> None:
    slow, fast = correlated(1, 500, 0.3) * 3, correlated(2, 400, 0.3)
    ratio = ratio_interval(slow, fast, FEW)
    assert ratio.estimate == pytest.approx(np.median(slow) / np.median(fast))
    assert ratio.low is not None
    assert ratio.high is not None
    assert 2.95 < ratio.low < 3 < ratio.high < 3.05
    assert ratio_interval([], fast).estimate is None
    assert median_interval([]).low is None


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40))
@examples(50)
def test_blocks_and_intervals_of_any_series(series: list[float]) -> None:
    assert 1 <= block_length(series) <= max(1, len(series) // 4)
    assert correlation_length(series) >= 1
    interval = median_interval(series, BootstrapSettings(num_resamples=20))
    assert interval.low is not None
    assert interval.high is not None
    assert min(series) - 1e-9 <= interval.low <= interval.high <= max(series) + 1e-9


def test_a_constant_series_has_no_width() -> None:
    interval = median_interval([7.0] * 50)
    assert (interval.low, interval.estimate, interval.high) == (7.0, 7.0, 7.0)
