from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from support.scenes import Thing, raw_outputs, small_manifest, write_bundle
from yolact_benchmarks import regressions
from yolact_runtime.backends import FakeBackend
from yolact_runtime.errors import BackendError


def test_a_slowed_network_waits_and_gives_what_the_network_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(np.arange(0.0, 1.0, 0.002))
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    raw = raw_outputs(small_manifest(), [])
    slowed = regressions.SlowedBackend(FakeBackend([raw]), 10.0)
    outputs = slowed.infer(np.zeros((1, 3, 32, 48), np.float32))
    assert next(now) >= 0.01
    assert np.array_equal(outputs["prototype"], raw["prototype"])
    slowed.close()
    with pytest.raises(BackendError, match="closed"):
        slowed.infer(np.zeros((1, 3, 32, 48), np.float32))


def test_outcomes_are_counted_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "small.bundle", [Thing((0.1, 0.1, 0.5, 0.5))])
    asked: list[float] = []

    def run(bundle: object, frames: object, seconds: float, extra_ms: float, threads: int) -> tuple[list[float], bool]:
        assert threads == 1
        asked.append(extra_ms)
        noise = np.random.default_rng(len(asked)).gamma(2, 0.1, 100)
        return (20 + noise + extra_ms).tolist(), len(asked) != 5

    monkeypatch.setattr(regressions, "_run", run)
    monkeypatch.setattr(regressions, "drawn_frames", lambda *size: None)
    assert regressions.main([str(folder), "--repeats", "2", "--threads", "1", "--results", str(tmp_path)]) == 0
    assert asked[:3] == [0.0, 0.0, pytest.approx(1.0, abs=0.05)]
    assert "rerun: {'same': 2}; measured again because the machine was not steady: 1 times" in capsys.readouterr().out
    (path,) = tmp_path.glob("*/regressions-small.json")
    result = json.loads(path.read_text())["results"]
    assert (result["planted"], result["unsteady"]) == ({"slower": 2}, 1)
    assert len(result["rows"]) == 4


def test_a_machine_that_never_holds_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "small.bundle", [Thing((0.1, 0.1, 0.5, 0.5))])
    monkeypatch.setattr(regressions, "_run", lambda *_: ([20.0] * 30, False))
    monkeypatch.setattr(regressions, "drawn_frames", lambda *size: None)
    assert regressions.main([str(folder), "--repeats", "2", "--results", str(tmp_path)]) == 7
    assert "error: 7 runs were unsteady: measure on a machine that has nothing else to do" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/regressions-*.json"))
