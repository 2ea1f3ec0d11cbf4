from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from yolact_benchmarks.report.record import device_name
from yolact_benchmarks.studies import evaluator
from yolact_calibration.evaluation.accuracy import measure_accuracy
from yolact_calibration.labels.coco import CocoAnnotations


def test_the_comparison_runs_and_checks_that_both_sides_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", "6", "--detections", "20", "--repeats", "1", "--results", str(tmp_path)]
    assert evaluator.main(words) == 0
    assert capsys.readouterr().out.startswith("6 images, 80 classes, ")
    record = json.loads((tmp_path / device_name() / "evaluator.json").read_text())
    assert [row["classes"] for row in record["results"]] == [80, 1]
    for row in record["results"]:
        assert row["detections"] == 120
        assert row["max_difference"] < 1e-9
        assert row["ratio"] == pytest.approx(row["pycocotools"]["median_ms"] / row["ours"]["median_ms"], abs=0.06)


@pytest.mark.parametrize("num_classes", [80, 1])
def test_the_data_set_is_neither_trivial_nor_hopeless(num_classes: int) -> None:
    document, predictions, names = evaluator.make_data_set(8, 60, num_classes, seed=1)
    accuracy = measure_accuracy(CocoAnnotations.from_document(document, "x"), predictions, names)
    for figures in (accuracy.bbox, accuracy.segm):
        assert figures["AP"] is not None
        assert 0.2 < figures["AP"] < 0.9
        assert None not in figures.values(), "all sizes occur"


def test_the_comparison_refuses_different_results() -> None:
    document, predictions, names = evaluator.make_data_set(4, 20, 3, seed=1)
    accuracy = measure_accuracy(CocoAnnotations.from_document(document, "x"), predictions, names)
    same = {
        kind: np.array([-1.0 if value is None else value for value in figures.values()])
        for kind, figures in (("bbox", accuracy.bbox), ("segm", accuracy.segm))
    }
    assert evaluator._require_equal(accuracy, same) == 0
    other = dataclasses.replace(accuracy, segm={**accuracy.segm, "AP75": 0.123})
    with pytest.raises(RuntimeError, match="the two evaluators differ"):
        evaluator._require_equal(other, same)
