from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.coco_oracle import pycocotools_figures, random_data_set, repeated, results_of
from support.properties import examples
from yolact_calibration.errors import UsageError
from yolact_calibration.evaluation.accuracy import Accuracy, measure_accuracy
from yolact_calibration.evaluation.bootstrap import (
    BootstrapSettings,
    Interval,
    average_precision,
    bootstrap_difference,
    bootstrap_precision,
    bootstrap_ratio,
    resample_weights,
)
from yolact_calibration.evaluation.matches import ClassMatches, Matches, Overlap, match_overlap
from yolact_calibration.labels.coco import CocoAnnotations

CATEGORY_IDS = [7, 3, 12, 1, 5]
FEW = BootstrapSettings(num_resamples=200)


def _accuracy(seed: int, num_images: int = 5, **options: Any) -> tuple[Accuracy, Any, Any]:
    document, predictions, names = random_data_set(seed, num_images, **options)
    return measure_accuracy(CocoAnnotations.from_document(document, "x"), predictions, names), document, predictions


def _matches(correct: npt.ArrayLike, image: npt.ArrayLike, num_truth: npt.ArrayLike) -> Matches:
    """One class; the same at every IoU threshold."""
    truth = np.asarray(num_truth)
    hits = np.tile(np.asarray(correct, bool), (10, 1))
    score = np.linspace(1, 0.5, hits.shape[1])
    return Matches(len(truth), (ClassMatches(np.asarray(image), score, hits, np.zeros_like(hits), truth),))


# --- average precision of weighted images -----------------------------------------------------------------------------


@examples(30)
@given(seed=st.integers(0, 2**32 - 1), num_images=st.integers(1, 8), rescored=st.booleans(), ties=st.booleans())
def test_weights_of_one_are_the_evaluator(seed: int, num_images: int, rescored: bool, ties: bool) -> None:
    accuracy, *_ = _accuracy(seed, num_images, rescored=rescored, ties=ties)
    for kind, figures in (("bbox", accuracy.bbox), ("segm", accuracy.segm)):
        (row,) = average_precision(accuracy.matches(kind), np.ones((1, num_images), int))
        found = {"AP": row.mean(), "AP50": row[0], "AP75": row[5]}
        for name, value in found.items():
            if figures[name] is None:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(figures[name], abs=1e-9), (kind, name)


@examples(30)
@given(seed=st.integers(0, 2**32 - 1), times=st.lists(st.integers(0, 4), min_size=1, max_size=7))
def test_weights_are_images_that_are_really_repeated(seed: int, times: list[int]) -> None:
    """Without equal scores inside an image: a weight keeps copies of a detection together, a copy of the data not."""
    accuracy, document, predictions = _accuracy(seed, len(times), ties=False)
    ids = sorted(image["id"] for image in document["images"])
    copies, copied = repeated(document, predictions, dict(zip(ids, times, strict=True)))
    for kind in ("bbox", "segm"):
        (row,) = average_precision(accuracy.matches(kind), [times])
        if not copies["images"]:
            assert np.isnan(row).all()
            continue
        whole, _ = pycocotools_figures(copies, results_of(kind, copied, CATEGORY_IDS), kind)
        for name, value in {"AP": row.mean(), "AP50": row[0], "AP75": row[5]}.items():
            if whole[name] is None:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(whole[name], abs=1e-6), (kind, name)


def test_rows_do_not_depend_on_the_rows_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, *_ = _accuracy(1, 8, ties=False)
    matches = accuracy.matches("segm")
    weights = np.random.default_rng(0).integers(0, 3, (50, 8))
    together = average_precision(matches, weights)
    assert len(np.unique(together[:, 0])) > 10
    np.testing.assert_array_equal(together, np.concatenate([average_precision(matches, [row]) for row in weights]))
    monkeypatch.setattr("yolact_calibration.evaluation.bootstrap._BLOCK", 300)
    np.testing.assert_array_equal(average_precision(matches, weights), together)


@pytest.mark.parametrize("num_truth", [1, 3, 7, 10, 49, 100, 101, 250, 1000])
def test_recall_thresholds_are_reached_as_quotients(num_truth: int) -> None:
    """100 of 1000 is a recall of 0.1, and 0.1 * 1000 may not be 100: integers decide as COCO's quotients do."""
    correct = np.zeros(2 * num_truth, bool)
    correct[::2] = True
    (row,) = average_precision(_matches(correct, np.zeros(2 * num_truth, int), [num_truth]), [[1]])
    hits, misses = np.cumsum(correct), np.cumsum(~correct)
    precision = np.maximum.accumulate((hits / (hits + misses))[::-1])[::-1]
    place = np.searchsorted(hits / num_truth, np.linspace(0, 1, 101), side="left")
    assert row[0] == pytest.approx(np.append(precision, 0)[place].mean(), abs=1e-12)


# --- matching ---------------------------------------------------------------------------------------------------------


def test_the_best_free_instance_is_taken_and_of_equals_the_last() -> None:
    iou = np.array([[0.6, 0.8], [0.9, 0.8], [0.7, 0.7]])
    correct, ignored = match_overlap(Overlap(0, np.array([0.9, 0.8, 0.7]), iou, np.zeros(2, bool)))
    assert correct[0].tolist() == [True, True, False]
    # At 0.85 the first detection finds nothing and the second its own.
    assert correct[7].tolist() == [False, True, False]
    assert not ignored.any()
    for second, found in (([0.8, 0.0], True), ([0.0, 0.8], False)):
        overlap = Overlap(0, np.array([0.9, 0.8]), np.array([[0.7, 0.7], second]), np.zeros(2, bool))
        assert match_overlap(overlap)[0][0].tolist() == [True, found]


def test_a_crowd_takes_any_number_of_detections_that_find_no_instance() -> None:
    iou = np.array([[0.6, 0.9], [0.6, 0.9], [0.0, 0.9]])
    correct, ignored = match_overlap(Overlap(0, np.array([0.9, 0.8, 0.7]), iou, np.array([False, True])))
    assert correct[0].tolist() == [True, False, False]
    assert ignored[0].tolist() == [False, True, True]


# --- intervals --------------------------------------------------------------------------------------------------------


def test_resamples_draw_as_many_images_as_there_are_and_are_seeded() -> None:
    weights = resample_weights(9, FEW)
    assert weights.shape == (200, 9)
    assert set(weights.sum(axis=1)) == {9}
    assert weights.std() > 0.5
    np.testing.assert_array_equal(weights, resample_weights(9, FEW))
    assert (weights != resample_weights(9, BootstrapSettings(200, seed=1))).any()


def test_an_interval_holds_its_estimate_and_is_that_of_the_evaluator() -> None:
    accuracy, *_ = _accuracy(2, 12, ties=False)
    intervals = bootstrap_precision(accuracy.matches("segm"), FEW)
    assert set(intervals) == {"AP", "AP50", "AP75"}
    for name, interval in intervals.items():
        assert interval.estimate == pytest.approx(accuracy.segm[name], abs=1e-9)
        assert interval.low is not None
        assert interval.high is not None
        assert 0 <= interval.low < interval.estimate < interval.high <= 1
    narrow = bootstrap_precision(accuracy.matches("segm"), BootstrapSettings(200, confidence_level=0.5))["AP"]
    wide = intervals["AP"]
    assert wide.low < narrow.low < narrow.high < wide.high  # type: ignore[operator]  # None was excluded above


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Images of one instance each, found with probability 0.6 and never wrongly: AP50 is close to 0.6."""
    random = np.random.default_rng(0)
    covered = 0
    for seed in range(40):
        found = random.random(80) < 0.6
        matches = _matches(np.ones(found.sum(), bool), np.flatnonzero(found), np.ones(80, int))
        interval = bootstrap_precision(matches, BootstrapSettings(100, seed=seed))["AP50"]
        # 0.6 of recall is 61 of 101 recall thresholds.
        covered += interval.low <= 0.604 <= interval.high  # type: ignore[operator]  # there is truth
    assert 33 <= covered <= 40


def test_a_difference_is_paired() -> None:
    accuracy, document, predictions = _accuracy(3, 10, ties=False)
    same = bootstrap_difference(accuracy.matches("segm"), accuracy.matches("segm"), FEW)["AP"]
    assert same == Interval(0.0, 0.0, 0.0)
    annotations = CocoAnnotations.from_document(document, "x")
    worse = {key: value[::2] for key, value in predictions.items()}
    names = tuple(entry["name"] for entry in document["categories"])
    other = measure_accuracy(annotations, worse, names)
    loss = bootstrap_difference(accuracy.matches("segm"), other.matches("segm"), FEW)["AP"]
    assert loss.estimate == pytest.approx(other.segm["AP"] - accuracy.segm["AP"], abs=1e-9)  # type: ignore[operator]
    single = [bootstrap_precision(side.matches("segm"), FEW)["AP"] for side in (accuracy, other)]
    widths = [interval.high - interval.low for interval in (*single, loss)]  # type: ignore[operator]
    assert widths[2] < np.hypot(*widths[:2]), "pairing makes the interval narrower than two separate ones"


def test_a_difference_of_different_images_is_refused() -> None:
    with pytest.raises(UsageError, match="found 3 and 4"):
        bootstrap_difference(_accuracy(1, 3)[0].matches("bbox"), _accuracy(1, 4)[0].matches("bbox"))


def test_what_is_undefined_has_no_interval() -> None:
    nothing = Interval(None, None, None)
    assert bootstrap_precision(Matches(3, ()), FEW)["AP"] == nothing
    assert bootstrap_ratio([0.0, 0.0], [0, 0], FEW) == nothing
    assert nothing.document() == {"estimate": None, "low": None, "high": None}


def test_a_ratio_is_that_of_the_sums() -> None:
    numerator, denominator = np.array([1.0, 8.0, 0.0, 3.0]), np.array([2, 10, 0, 3])
    interval = bootstrap_ratio(numerator, denominator, FEW)
    assert interval.estimate == pytest.approx(12 / 15)
    assert interval.low == pytest.approx(0.5)
    assert interval.high == pytest.approx(1.0)


def test_a_class_that_is_in_few_images_is_left_out_of_resamples_without_it() -> None:
    one, two = _matches([True], [0], [1, 0]).classes + _matches([False], [1], [1, 1]).classes
    both = Matches(2, (one, two))
    assert average_precision(both, [[1, 1], [0, 2], [2, 0]])[:, 0].tolist() == pytest.approx([0.5, 0.0, 0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_resamples": 0}, "num_resamples must be 1 or more"),
        ({"confidence_level": 1.0}, "confidence_level must lie between"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BootstrapSettings(**options)
