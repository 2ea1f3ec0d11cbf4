from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_benchmarks.statistics.statistics import summarise
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_runtime.errors import UsageError

FEW = BootstrapSettings(num_resamples=50)
LATENCIES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60)


def test_percentiles_of_a_series_that_is_known() -> None:
    # 1 to 1001 ms in some order: the percentile p lies exactly at 1 + 10 p.
    series = np.random.default_rng(0).permutation(np.arange(1.0, 1002.0))
    summary = summarise(series, FEW)
    assert summary.percentiles_ms == {"p50": 501.0, "p90": 901.0, "p95": 951.0, "p99": 991.0, "p99.9": 1000.0}
    assert (summary.min_ms, summary.max_ms, summary.mean_ms, summary.count) == (1.0, 1001.0, 501.0, 1001)
    assert summary.cov == pytest.approx(np.sqrt((1001**2 - 1) / 12) / 501, abs=1e-6)
    assert summary.throughput_fps == pytest.approx(1e3 / 501, abs=1e-4)


@pytest.mark.parametrize(
    ("count", "known"),
    [
        (1, {"p50"}),
        (9, {"p50"}),
        (10, {"p50", "p90"}),
        (20, {"p50", "p90", "p95"}),
        (999, {"p50", "p90", "p95", "p99"}),
    ],
)
def test_a_percentile_beyond_the_series_is_not_made_up(count: int, known: set[str]) -> None:
    percentiles = summarise(np.linspace(1, 2, count), FEW).percentiles_ms
    assert {name for name, value in percentiles.items() if value is not None} == known


def test_jitter_is_the_mean_step_between_neighbours() -> None:
    alternating, sorted_ = [10.0, 12.0] * 50, [10.0] * 50 + [12.0] * 50
    assert summarise(alternating, FEW).jitter_ms == 2.0
    assert summarise(sorted_, FEW).jitter_ms == pytest.approx(2 / 99, abs=1e-4)
    assert summarise(alternating, FEW).cov == summarise(sorted_, FEW).cov
    assert summarise([5.0], FEW).jitter_ms == 0


def test_processes_make_the_interval_and_no_steps_between_them() -> None:
    parts = [[10.0, 10.5] * 10, [11.0, 11.5] * 10, [10.2, 10.7] * 10]
    series = np.concatenate(parts)
    summary = summarise(series, FEW, [20, 20, 20])
    assert (summary.processes, summary.block) == (3, None)
    assert summary.jitter_ms == pytest.approx(0.5)
    # Three medians that scatter by 5 %: Student's t with two degrees of freedom.
    assert summary.median_high_ms / summary.median_ms == pytest.approx(np.exp(4.303 * 0.0495 / np.sqrt(3)), abs=0.01)
    one = summarise(series, FEW)
    assert (one.processes, one.median_ms) == (1, summary.median_ms)
    assert one.median_high_ms < summary.median_high_ms


@given(LATENCIES)
@examples(60)
def test_whatever_the_series_its_figures_are_in_order(series: list[float]) -> None:
    summary = summarise(series, FEW)
    known = [value for value in summary.percentiles_ms.values() if value is not None]
    assert known == sorted(known)
    assert summary.min_ms <= summary.median_ms <= summary.max_ms
    assert summary.min_ms <= summary.median_low_ms <= summary.median_high_ms <= summary.max_ms
    assert summary.cov >= 0
    assert 1 <= summary.block <= max(1, len(series) // 4)


@given(LATENCIES, st.sampled_from([0.5, 2.0, 8.0]))
@examples(40)
def test_another_unit_scales_everything(series: list[float], factor: float) -> None:
    one, other = summarise(series, FEW), summarise([factor * value for value in series], FEW)
    assert other.median_ms == pytest.approx(factor * one.median_ms, rel=1e-3, abs=1e-3)
    assert other.jitter_ms == pytest.approx(factor * one.jitter_ms, rel=1e-3, abs=1e-3)
    assert other.cov == pytest.approx(one.cov, abs=1e-5)


@pytest.mark.parametrize("series", [[], [1.0, 0.0], [1.0, -2.0], [float("nan")], [float("inf")], [[1.0]]])
def test_what_is_no_series_is_refused(series: list[float]) -> None:
    with pytest.raises(UsageError, match="list of positive numbers"):
        summarise(series)
