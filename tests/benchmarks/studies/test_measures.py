"""The instruments: what they count, not how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from yolact_benchmarks.machine.memory import peak_allocated_bytes
from yolact_benchmarks.measure.scenes import COCO_550, make_outputs
from yolact_benchmarks.report.record import device_name, write_record
from yolact_benchmarks.studies import postprocess
from yolact_benchmarks.studies.timing import time_interleaved
from yolact_runtime.cpu.postprocess import Postprocessor


def test_contenders_take_turns() -> None:
    order: list[str] = []
    times = time_interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warm_up=1)
    assert order == ["a", "b"] * 4
    assert {name: timing.repeats for name, timing in times.items()} == {"a": 3, "b": 3}


def test_times_are_milliseconds() -> None:
    timing = time_interleaved({"sleep": lambda: time.sleep(0.02)}, repeats=3, warm_up=0)["sleep"]
    assert 20 <= timing.min_ms <= timing.median_ms <= timing.p90_ms < 2000


def test_peak_memory_sees_what_is_freed_again() -> None:
    # In a process of its own: what other tests have freed would otherwise be used again.
    code = (
        "import numpy as np; from yolact_benchmarks.machine.memory import peak_extra_bytes; "
        "print(peak_extra_bytes(lambda: np.ones(50_000_000, np.uint8).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 45e6 < int(done.stdout) < 60e6


@pytest.mark.parametrize("box_area", [0.025, 0.12])
def test_scenes_hold_the_objects_they_promise(box_area: float) -> None:
    outputs = make_outputs(100, box_area, seed=3)
    instances = Postprocessor.of(COCO_550)(outputs, 1080, 1920)
    assert len(instances) == 100
    assert instances.confidence.min() > 0.5
    sides = np.clip(instances.xyxy, 0, [1920, 1080, 1920, 1080])
    area = np.prod(sides[:, 2:] - sides[:, :2], axis=1).mean() / (1920 * 1080)
    assert area == pytest.approx(box_area, rel=0.1)
    covered = instances.mask.area() / np.prod(instances.xyxy[:, 2:] - instances.xyxy[:, :2], axis=1)
    assert 0.2 < covered.mean() < 0.95, "masks that are neither empty nor their whole box"


def test_the_comparison_runs_and_checks_that_both_sides_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    words = ["--instances", "12", "--size", "320x180", "--repeats", "1", "--results", str(tmp_path)]
    assert postprocess.main(words) == 0
    # Twelve objects, and the low scores that fill up the list: upstream has no second threshold.
    assert capsys.readouterr().out.startswith("100 instances, 2.5% boxes, 320x180: ours")
    record = json.loads((tmp_path / device_name() / "postprocess.json").read_text())
    assert [row["frame"] for row in record["results"]] == [[180, 320]] * 2
    assert record["environment"]["packages"]["numpy"] == np.__version__


def test_the_comparison_refuses_different_results() -> None:
    torch = pytest.importorskip("torch")
    from yolact_benchmarks.peers.dense_postprocess import dense_postprocess

    outputs = make_outputs(5, 0.05, seed=1)
    postprocessor = Postprocessor.of(COCO_550)
    tensors = {name: torch.from_numpy(array[0]) for name, array in outputs.items()}
    dense = dense_postprocess(**tensors, priors=torch.from_numpy(postprocessor.priors), height=90, width=120)
    ours = postprocessor(outputs, 90, 120)
    postprocess._require_equal(ours, dense)
    with pytest.raises(RuntimeError, match="mask pixels"):
        postprocess._require_equal(ours, dense._replace(mask=~dense.mask))
    with pytest.raises(RuntimeError, match="different instances"):
        postprocess._require_equal(ours[:-1], dense)


def test_a_record_names_machine_and_command(tmp_path: Path) -> None:
    path = write_record(tmp_path, "some", {"ms": 1}, "python -m something")
    record = json.loads(path.read_text())
    assert path.parent.name == device_name()
    assert record["command"] == "python -m something"
    assert record["results"] == {"ms": 1}
    assert record["environment"]["cores"] >= 1


def test_peak_allocation_counts_what_numpy_asks_for() -> None:
    peak = peak_allocated_bytes(lambda: np.ones(3_000_000, np.uint8).sum() + np.ones(1_000_000, np.uint8).sum())
    assert 2.9e6 < peak < 3.5e6
