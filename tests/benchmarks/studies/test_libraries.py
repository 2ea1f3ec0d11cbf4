from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolact_benchmarks.report.record import device_name
from yolact_benchmarks.studies import libraries
from yolact_benchmarks.studies.libraries import Package
from yolact_calibration.evaluation.coco_evaluator import KINDS, CocoObjects


def test_only_what_is_installed_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = (Package("onnx", "onnx", ("protobuf",)), Package("hotcoco", "not_there"), Package("not-there", "x"))
    monkeypatch.setattr(libraries, "PACKAGES", packages)
    monkeypatch.setattr(libraries, "_is_installed", lambda package: package.module == "onnx")
    assert libraries.main(["--repeats", "1", "--results", str(tmp_path)]) == 0
    assert "left out: hotcoco, not-there\n" in capsys.readouterr().out
    results = json.loads((tmp_path / device_name() / "libraries.json").read_text())["results"]
    (row,) = results["packages"]
    assert row["installed_mb"] > 5
    assert 1 < row["import_ms"] < 60_000
    assert 1 < row["memory_mb"] < 1_000
    assert results["evaluators"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_both_evaluators_get_the_same_objects_and_are_compared(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[CocoObjects] = []

    def remember(objects: CocoObjects) -> libraries.Figures:
        given.append(objects)
        return libraries._faster_coco_eval(objects)

    def here(*words: str) -> object:
        name, found_kind = words[words.index("--evaluate") + 1 :]
        return libraries._evaluate_once(name, found_kind, 3, 20)

    monkeypatch.setattr(libraries, "_EVALUATORS", dict.fromkeys(("faster-coco-eval", "hotcoco"), remember))
    monkeypatch.setattr(libraries, "_run_json", here)
    row = libraries._compare_evaluators(kind, 3, 20, repeats=1)
    assert row["max_difference"] == 0
    assert row["hotcoco"]["cpu_s"] > 0
    first, second = given
    assert len(first.truth) > 5
    assert len(first.detections) == 60
    assert (first.images, first.truth, first.detections) == (second.images, second.truth, second.detections)


@pytest.mark.parametrize(("other", "words"), [([0.5, 0.25], "define other"), ([0.6, None], "differ by 0[.]1")])
def test_evaluators_that_disagree_are_not_compared(other: libraries.Figures, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        libraries._largest_difference([0.5, None], other)


def test_what_another_program_prints_first_is_passed_over() -> None:
    assert libraries._run_json("-c", "print('Average Precision'); print([1, 2])") == [1, 2]
