from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.bench_records import bench_record, steady_ms
from support.scenes import Thing, raw_outputs, small_manifest, with_precisions, write_bundle
from yolact_benchmarks.measure.measurement import Plan
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.studies import regressions
from yolact_benchmarks.studies.slowed import SlowedBackend, measure_slowed
from yolact_runtime.backends import FakeBackend
from yolact_runtime.errors import BackendError
from yolact_runtime.reporter import SILENT

NO_THREADS = ["--threads", "1"]


def test_a_slowed_network_waits_and_gives_what_the_network_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(np.arange(0.0, 1.0, 0.002))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    raw = raw_outputs(small_manifest(), [])
    slowed = SlowedBackend(FakeBackend([raw]), 10.0)
    outputs = slowed.infer(np.zeros((1, 3, 32, 48), np.float32))
    assert next(now) >= 0.01
    assert np.array_equal(outputs["prototype"], raw["prototype"])
    slowed.close()
    with pytest.raises(BackendError, match="closed"):
        slowed.infer(np.zeros((1, 3, 32, 48), np.float32))


def test_a_slowed_model_is_measured_as_any_other(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "small.bundle", [Thing((0.1, 0.1, 0.5, 0.5))])
    with_precisions(folder, "fp32", "int8-cpu")
    plan = Plan(0.01, warm_up_s=0.0)
    request = BenchRequest(
        folder, instances=(3,), sizes=((96, 64),), plan=plan, streaming_s=0.0, precisions=("int8-cpu",)
    )
    run = measure_slowed(request, 5.0, SILENT)
    assert [model["precision"] for model in run.models] == ["int8-cpu"]
    (series,) = run.series.values()
    assert series.num_instances == [3] * len(series.total_ms)
    assert min(series.stage_ms["network"]) >= 5


class Measured:
    """Stands for measurements: 20 ms and what is planted; those with these numbers are of a machine that was busy."""

    def __init__(self, *busy: int) -> None:
        self.busy = busy
        self.asked: list[float] = []

    def __call__(self, request: BenchRequest, extra_ms: float) -> dict[str, Any]:
        assert (request.num_threads, request.num_processes, request.instances) == (1, 5, (100,))
        assert request.precisions == ("fp32",)
        self.asked.append(extra_ms)
        number = len(self.asked)
        return bench_record({("fp32", 100): steady_ms(number, 20 + extra_ms)}, is_disturbed=number in self.busy)


def test_outcomes_are_counted_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "small.bundle", [Thing((0.1, 0.1, 0.5, 0.5))])
    # The third measurement is the first with a planted regression.
    measured = Measured(3)
    monkeypatch.setattr(regressions, "_measured", measured)
    assert regressions.main([str(folder), "--repeats", "2", *NO_THREADS, "--results", str(tmp_path)]) == 0
    assert measured.asked[:5] == [0.0, 0.0, pytest.approx(1.0, abs=0.05), 0.0, measured.asked[2]]
    assert "planted: {'slower': 2}; measured again because it was doubtful: 1 times" in capsys.readouterr().out
    (path,) = tmp_path.glob("*/regressions-small.json")
    result = json.loads(path.read_text())["results"]
    assert (result["rerun"], result["planted"], result["again"]) == ({"same": 2}, {"slower": 2}, 1)
    assert [row["again"] for row in result["rows"]] == [0, 1, 0, 0]


def test_a_machine_that_never_holds_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "small.bundle", [Thing((0.1, 0.1, 0.5, 0.5))])
    monkeypatch.setattr(regressions, "_measured", Measured(*range(100)))
    assert regressions.main([str(folder), "--repeats", "2", *NO_THREADS, "--results", str(tmp_path)]) == 7
    assert "error: 6 doubtful comparisons in a row" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/regressions-*.json"))
