from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.entropy import divergence, entropy_limit
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.ranges import Grid, Range, RangeMethod, choose_range, judge_range

Float = npt.NDArray[np.float32]
NUM_VALUES = 60_000


def make_values(kind: str) -> Float:
    rng = np.random.default_rng(5)
    values = {
        "gaussian": rng.normal(size=NUM_VALUES),
        "shifted": rng.normal(0.7, 0.3, NUM_VALUES),
        "relu": np.maximum(rng.normal(size=NUM_VALUES), 0),
        "negative": -np.abs(rng.normal(size=NUM_VALUES)),
        "heavy tail": rng.standard_t(3, NUM_VALUES),
        "sparse": np.where(rng.uniform(size=NUM_VALUES) < 0.95, 0, rng.gamma(2, size=NUM_VALUES)),
    }[kind]
    return values.astype(np.float32)


KINDS = ("gaussian", "shifted", "relu", "negative", "heavy tail", "sparse")


def histogram(values: npt.ArrayLike) -> Histogram:
    found = Histogram()
    found.add(np.asarray(values, np.float32))
    return found


def squared_error(values: Float, low: float, high: float, grid: Grid) -> float:
    """By rounding each value, as the definition of the grid says."""
    x = values.astype(np.float64)
    if grid is Grid.INT8:
        scale = max(-low, high) / 127
        rounded = np.clip(np.rint(x / scale), -128, 127) * scale
    else:
        scale = (high - low) / 255
        zero_point = np.rint(-low / scale)
        rounded = (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale
    return float(((x - rounded) ** 2).sum())


@pytest.mark.parametrize("grid", Grid)
@pytest.mark.parametrize("kind", KINDS)
def test_no_threshold_has_a_notably_smaller_error(kind: str, grid: Grid) -> None:
    values = make_values(kind)
    found = choose_range(histogram(values), RangeMethod.MSE, grid)
    low, high = float(values.min()), float(values.max())
    ratios = np.geomspace(0.02, 1, 120)
    if grid is Grid.INT8:
        limits = max(-low, high) * ratios
        errors = [squared_error(values, max(low, -limit), min(high, limit), grid) for limit in limits]
    else:
        lows = low * ratios[::6] if low < 0 else [0.0]
        highs = high * ratios[::6] if high > 0 else [0.0]
        errors = [squared_error(values, a, b, grid) for a in lows for b in highs]
    assert squared_error(values, found.low, found.high, grid) <= 1.015 * min(errors)


@pytest.mark.parametrize("grid", Grid)
@pytest.mark.parametrize("method", RangeMethod)
@pytest.mark.parametrize("kind", KINDS)
def test_the_expected_quality_is_the_measured_one(kind: str, method: RangeMethod, grid: Grid) -> None:
    values = make_values(kind)
    found = choose_range(histogram(values), method, grid)
    quality = judge_range(histogram(values), found, grid)
    signal = float((values.astype(np.float64) ** 2).sum())
    measured = 10 * np.log10(signal / squared_error(values, found.low, found.high, grid))
    assert quality.sqnr_db == pytest.approx(measured, abs=0.15)
    clipped = ((values < found.low) | (values > found.high)).mean()
    assert quality.clipped == pytest.approx(clipped, rel=0.2, abs=3 / NUM_VALUES)


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_holds_everything(kind: str) -> None:
    values = make_values(kind)
    found = choose_range(histogram(values), RangeMethod.MINMAX, Grid.UINT8)
    assert found == Range(min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    assert judge_range(histogram(values), found, Grid.UINT8).clipped == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_a_percentile_leaves_out_so_many(kind: str, percentile: float) -> None:
    values = make_values(kind)
    for grid in Grid:
        found = choose_range(histogram(values), RangeMethod.PERCENTILE, grid, percentile)
        outside = ((values < found.low) | (values > found.high)).mean()
        assert outside == pytest.approx(1 - percentile / 100, rel=0.25)
    assert choose_range(histogram(values), RangeMethod.PERCENTILE, grid, 100.0).high == max(values.max(), 0)


def plain_divergence(counts: list[float], beyond: float, num_levels: int) -> float:
    size = len(counts)
    level_of = [k * num_levels // size for k in range(size)]
    clipped = [count + (beyond if k == size - 1 else 0) for k, count in enumerate(counts)]
    rounded = []
    for k in range(size):
        same = [counts[j] for j in range(size) if level_of[j] == level_of[k]]
        occupied = sum(count > 0 for count in same)
        rounded.append(sum(same) / occupied if counts[k] > 0 else 0.0)
    loss = 0.0
    for p, q in zip(clipped, rounded, strict=True):
        if p > 0:
            loss += p / sum(clipped) * np.log(p / sum(clipped) / max(q / sum(rounded), 1e-7))
    return loss


@given(arrays(np.int64, st.integers(4, 40), elements=st.integers(0, 9)), st.integers(0, 20), st.sampled_from([1, 2, 4]))
def test_the_divergence_is_that_of_a_plain_loop(counts: npt.NDArray[np.int64], beyond: int, num_levels: int) -> None:
    found = divergence(counts.astype(float), float(beyond), num_levels)
    if not counts.any():
        assert found == np.inf
    else:
        assert found == pytest.approx(plain_divergence(counts.astype(float).tolist(), beyond, num_levels), abs=1e-9)


@pytest.mark.parametrize("kind", ["gaussian", "relu", "heavy tail"])
def test_entropy_takes_the_threshold_of_a_linear_histogram(kind: str) -> None:
    values = np.abs(make_values(kind))
    values = values[values > 0]
    limit = min(values.max(), np.quantile(values, 0.9999) * 16)
    counts, edges = np.histogram(values, 2048, (0, limit))
    losses = {
        size: divergence(counts[:size].astype(float), float(len(values) - counts[:size].sum()), 128)
        for size in range(128, 2049, 16)
    }
    least = min(losses, key=losses.__getitem__)
    found = entropy_limit(histogram(values), 128)
    # The loss is flat around its least value: the thresholds may differ where their losses hardly do.
    size = int(np.argmin(np.abs(edges - found)))
    near = min(losses, key=lambda candidate: abs(candidate - size))
    assert losses[near] <= losses[least] + 0.1 * abs(losses[least]) + 1e-4
    assert abs(size - near) <= 2


@pytest.mark.parametrize("grid", Grid)
def test_one_far_value_moves_percentile_and_entropy_little(grid: Grid) -> None:
    values = np.append(make_values("gaussian"), np.float32(1e6))
    for method in (RangeMethod.PERCENTILE, RangeMethod.ENTROPY):
        assert 2.5 < choose_range(histogram(values), method, grid).high < 6
    assert choose_range(histogram(values), RangeMethod.MINMAX, grid).high == 1e6
    # Its square outweighs all the others, which a step of 1e6 / 255 would round to 0 anyway.
    assert choose_range(histogram(values), RangeMethod.MSE, grid).high > 5e5


@pytest.mark.parametrize("grid", Grid)
@pytest.mark.parametrize("method", RangeMethod)
@pytest.mark.parametrize("value", [0.0, 3.7, -2.5, 1e-40, -1e-44, 3e38])
def test_constant_tensors(value: float, method: RangeMethod, grid: Grid) -> None:
    values = np.full(50, value, np.float32)
    found = choose_range(histogram(values), method, grid)
    # A bin of denormal values is wide.
    expected = sorted([0.0, float(values[0])])
    assert [found.low, found.high] == pytest.approx(expected, rel=0.01, abs=2e-40)
    quality = judge_range(histogram(values), found, grid)
    assert quality.sqnr_db > 60 or abs(value) < 1e-38
    assert quality.clipped == pytest.approx(0, abs=1e-9) or abs(value) < 1e-38


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_any_values_have_a_range_inside_what_was_seen(values: Float) -> None:
    found = histogram(values)
    for method in RangeMethod:
        for grid in Grid:
            chosen = choose_range(found, method, grid)
            assert min(found.low, 0) <= chosen.low <= 0 <= chosen.high <= max(found.high, 0)
            quality = judge_range(found, chosen, grid)
            assert 0 <= quality.clipped <= 1
            assert not np.isnan(quality.sqnr_db)


def test_what_has_no_range_is_refused() -> None:
    with pytest.raises(CalibrationError, match="no values were observed"):
        choose_range(Histogram(), RangeMethod.MSE, Grid.INT8)
    with pytest.raises(CalibrationError, match="2 of 3 values are infinite or NaN"):
        choose_range(histogram([1, np.nan, np.inf]), RangeMethod.MINMAX, Grid.INT8)
    with pytest.raises(CalibrationError, match="a percentile must be above 0"):
        choose_range(histogram([1]), RangeMethod.PERCENTILE, Grid.INT8, 0)
    with pytest.raises(CalibrationError, match="contain 0"):
        Range(0.5, 1.0)


@pytest.mark.parametrize("method", RangeMethod)
def test_a_hundred_tensors_take_seconds_at_most(method: RangeMethod) -> None:
    wide = histogram(np.random.default_rng(0).normal(size=NUM_VALUES) ** 5)
    started = time.process_time()
    for _ in range(5):
        choose_range(wide, method, Grid.UINT8)
    # A busy machine takes longer than the 0.1 s that are usual.
    assert time.process_time() - started < 1
