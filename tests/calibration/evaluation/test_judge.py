from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from support.scenes import make_instances
from support.training_data import square, write_set
from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.agreement import Agreement, measure_agreement
from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval
from yolact_calibration.evaluation.judge import Judge, Judgement, _points, agreement_loss
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

NAMES = ("cat", "dog")
FEW = BootstrapSettings(num_resamples=50)
SIDE = 20
BOX = (4.0, 4.0, 24.0, 24.0)
OTHER = (30.0, 30.0, 50.0, 50.0)
NUM_IMAGES = 4


def see(*boxes: tuple[float, float, float, float]) -> Instances:
    return make_instances(64, 64, boxes)


def everywhere(*boxes: tuple[float, float, float, float], count: int = NUM_IMAGES) -> dict[str, Instances]:
    return {f"{number}.png": see(*boxes) for number in range(count)}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> CocoAnnotations:
    """Four images with cats at BOX and OTHER."""
    objects = [[{"segmentation": square(4, 4, SIDE)}, {"segmentation": square(30, 30, SIDE)}]] * NUM_IMAGES
    path, _ = write_set(tmp_path_factory.mktemp("labels"), objects)
    return CocoAnnotations.from_file(path)


def judge_of(reference: Mapping[str, Instances], annotations: CocoAnnotations | None = None) -> Judge:
    return Judge(reference, NAMES, annotations, FEW)


def judgement(drops: Sequence[float | None]) -> Judgement:
    drop = {kind: Interval(value, value, value) for kind, value in zip(("bbox", "segm"), drops, strict=True)}
    return Judgement(drop, {"bbox": None, "segm": None}, agreement_of(everywhere(BOX), everywhere(BOX)))


def agreement_of(reference: Mapping[str, Instances], candidate: Mapping[str, Instances]) -> Agreement:
    return measure_agreement(reference, candidate, NAMES)


# --- signs and units --------------------------------------------------------------------------------------------------


def test_a_loss_is_positive_with_labels_and_counted_in_points(labels: CocoAnnotations) -> None:
    found = judge_of(everywhere(BOX, OTHER), labels).judge(everywhere(BOX))
    # One of two cats: recall 0.5 at precision 1.
    assert found.drop["segm"].estimate == pytest.approx(100 * (1 - 51 / 101))
    assert found.figures["segm"] == pytest.approx(51 / 101)


def test_a_gain_is_negative_with_labels(labels: CocoAnnotations) -> None:
    found = judge_of(everywhere(BOX), labels).judge(everywhere(BOX, OTHER))
    assert found.worst == pytest.approx(-100 * (1 - 51 / 101))
    assert found.within(0)


def test_without_labels_every_change_is_a_loss() -> None:
    more = judge_of(everywhere(BOX)).judge({**everywhere(BOX), "0.png": see(OTHER, BOX)})
    assert more.drop["bbox"].estimate is not None
    assert more.drop["bbox"].estimate > 0
    assert judge_of(everywhere(BOX, OTHER)).judge(everywhere(BOX)).worst == pytest.approx(100 * (1 - 51 / 101))


@pytest.mark.parametrize("labelled", [True, False])
def test_the_original_loses_nothing_against_itself(labelled: bool, labels: CocoAnnotations) -> None:
    judge = judge_of(everywhere(BOX, OTHER), labels if labelled else None)
    assert set(judge.reference.drop) == {"bbox", "segm"}
    for interval in judge.reference.drop.values():
        assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)
        # Not minus zero, which people would see.
        assert interval.estimate is not None
        assert math.copysign(1, interval.estimate) == 1
    assert judge.reference.within(0)
    assert judge.reference.loss == 0


def test_a_gain_of_rounding_alone_is_no_minus_zero() -> None:
    for value in (1e-13, -1e-13, 0.0, -0.0):
        found = _points(Interval(value, value, value), from_one=False)
        assert [str(end) for end in (found.estimate, found.low, found.high)] == ["0.0"] * 3


@pytest.mark.parametrize("labelled", [True, False])
def test_intervals_are_in_order_and_hold_the_estimate(labelled: bool, labels: CocoAnnotations) -> None:
    candidate = {**everywhere(BOX, OTHER), "0.png": see(BOX), "1.png": see()}
    found = judge_of(everywhere(BOX, OTHER), labels if labelled else None).judge(candidate)
    assert set(found.drop) == {"bbox", "segm"}
    for interval in found.drop.values():
        assert interval.low is not None
        assert interval.high is not None
        assert interval.estimate is not None
        assert interval.low < interval.estimate < interval.high


def test_what_is_hard_for_both_cancels_out(labels: CocoAnnotations) -> None:
    """Both miss the same half of the images: resamples move both APs, and not their difference."""
    half = {**everywhere(BOX, OTHER), "0.png": see(), "1.png": see()}
    moved = judge_of(half, labels).judge(dict(half)).drop["segm"]
    assert (moved.low, moved.high) == (0.0, 0.0)


# --- the verdict ------------------------------------------------------------------------------------------------------


def test_the_worse_of_box_and_mask_counts() -> None:
    assert judgement([0.2, 0.7]).worst == 0.7
    assert judgement([0.7, -3.0]).worst == 0.7


def test_the_limit_itself_is_allowed() -> None:
    assert judgement([0.5, 0.1]).within(0.5)
    assert not judgement([0.5000001, 0.1]).within(0.5)


@pytest.mark.parametrize("drops", [[None, 0.0], [0.0, None], [None, None]])
def test_an_undefined_figure_is_not_no_loss(drops: list[float | None]) -> None:
    assert not judgement(drops).within(100)


def test_rounding_does_not_cross_the_limit(labels: CocoAnnotations) -> None:
    """What people read as the loss, typed as the limit, holds."""
    change = 100 * (1 - 51 / 101)
    assert judge_of(everywhere(BOX, OTHER), labels).judge(everywhere(BOX)).within(round(change, 9))


def test_limits_by_default(labels: CocoAnnotations) -> None:
    assert judge_of(everywhere(BOX, OTHER), labels).default_limit == 0.5
    # Agreement counts changes to the better too.
    assert judge_of(everywhere(BOX)).default_limit == 8.0


def test_the_measure_says_what_and_on_how_many_images(labels: CocoAnnotations) -> None:
    assert judge_of(everywhere(BOX, OTHER), labels).measure == "AP on 4 labelled images"
    assert judge_of(everywhere(BOX)).measure == "agreement AP on 4 images"


# --- where nothing could be lost --------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.0, 0.3])
def test_a_reference_that_is_sure_of_nothing_is_refused(confidence: float) -> None:
    unsure = dataclasses.replace(see(BOX), confidence=np.full(1, confidence, np.float32))
    with pytest.raises(DatasetError, match=r"finds nothing with a confidence above 0\.3 in these 2 images"):
        judge_of({"a": unsure, "b": see()})


def test_a_reference_without_a_single_mask_is_refused() -> None:
    """Boxes alone: mask AP would be undefined for every candidate, and masks are what this is about."""
    empty = dataclasses.replace(see(BOX), mask=Masks.empty(1, 64, 64))
    with pytest.raises(DatasetError, match="has no mask, so no loss"):
        judge_of({"a": empty})


def test_labels_without_an_instance_are_refused(tmp_path: Path) -> None:
    path, _ = write_set(tmp_path, [[]] * NUM_IMAGES)
    with pytest.raises(DatasetError, match="has no box and no mask, so no loss"):
        judge_of(everywhere(BOX), CocoAnnotations.from_file(path))


def test_a_limit_that_losing_everything_would_hold_is_refused(labels: CocoAnnotations) -> None:
    """Labels of other images: AP 0, of which nothing can be lost."""
    judge = judge_of(everywhere((50, 2, 62, 12)), labels)
    with pytest.raises(DatasetError, match=r"0\.00 points of box AP on 4 labelled images.* a loss of 0\.5 points"):
        judge.require_visible(judge.default_limit)
    judge_of(everywhere(BOX), labels).require_visible(50)
    with pytest.raises(DatasetError, match=r"a loss of 51 points"):
        judge_of(everywhere(BOX), labels).require_visible(51)


def test_the_last_point_may_not_be_lost() -> None:
    judge_of(everywhere(BOX)).require_visible(99.9)
    with pytest.raises(DatasetError, match=r"has 100\.00 points of box agreement AP on 4 images"):
        judge_of(everywhere(BOX)).require_visible(100)


def test_no_limit_at_all_is_not_refused() -> None:
    judge_of(everywhere(BOX)).require_visible(math.inf)


# --- agreement loss ---------------------------------------------------------------------------------------------------


def test_the_loss_moves_where_average_precision_does_not() -> None:
    """A row of pixels less: above every IoU threshold's step, so that AP stands still."""
    nearly = (4.0, 4.0, 24.0, 23.5)
    boxes = dataclasses.replace(see(BOX), mask=see((4, 4, 24, 23)).mask, xyxy=np.array([nearly], np.float32))
    agreement = agreement_of({"a": see(BOX)}, {"a": boxes})
    assert agreement.segm["AP"] == 1.0
    assert agreement_loss(agreement) == pytest.approx(5.0)


def test_images_without_anything_do_not_dilute_the_loss() -> None:
    reference = {"a": see(BOX), **{f"empty{i}": see() for i in range(9)}}
    assert agreement_loss(agreement_of(reference, {**reference, "a": see()})) == pytest.approx(100.0)


def test_an_image_with_nothing_but_false_finds_counts() -> None:
    reference = {"a": see(BOX), "b": see()}
    assert agreement_loss(agreement_of(reference, {**reference, "b": see(BOX)})) == pytest.approx(50.0)


# --- cost, document ---------------------------------------------------------------------------------------------------


def test_a_quick_look_has_the_same_estimates_and_draws_fewer_resamples(
    labels: CocoAnnotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yolact_calibration.evaluation import bootstrap

    draws: list[int] = []
    original = bootstrap.resample_weights
    monkeypatch.setattr(bootstrap, "resample_weights", lambda n, s: (draws.append(s.num_resamples), original(n, s))[1])
    candidate = {**everywhere(BOX, OTHER), "0.png": see(BOX)}
    for truth in (labels, None):
        judge = Judge(everywhere(BOX, OTHER), NAMES, truth)
        full, quick = judge.judge(candidate), judge.judge(candidate, quickly=True)
        assert {k: i.estimate for k, i in full.drop.items()} == {k: i.estimate for k, i in quick.drop.items()}
    assert max(draws) == 1000
    assert min(draws) == 100


def test_the_document_is_json_with_estimate_low_high(labels: CocoAnnotations) -> None:
    found = judge_of(everywhere(BOX, OTHER), labels).judge({**everywhere(BOX, OTHER), "0.png": see(BOX)})
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert set(document) == {"drop", "ap", "loss"}
    interval = found.drop["segm"]
    assert document["drop"]["mask"] == [interval.estimate, interval.low, interval.high]
    assert document["ap"]["box"] == found.figures["bbox"]


def test_figures_have_the_digits_that_people_compare() -> None:
    found = _points(Interval(-1 / 3, -2 / 3, -1 / 6), from_one=False)
    assert (found.estimate, found.low, found.high) == (33.333333333, 16.666666667, 66.666666667)
    reference = {name: see(BOX) for name in "abc"}
    assert judge_of(reference).judge({**reference, "a": see()}).document()["loss"] == 33.3333


def test_the_judge_does_not_mind_another_order_of_images(labels: CocoAnnotations) -> None:
    candidate = {**everywhere(BOX, OTHER), "2.png": see(OTHER)}
    judge = judge_of(everywhere(BOX, OTHER), labels)
    assert judge.judge(dict(reversed(candidate.items()))).document() == judge.judge(candidate).document()


def test_other_images_than_the_reference_has_are_named() -> None:
    with pytest.raises(DatasetError, match=r"detections of one only: 3\.png"):
        judge_of(everywhere(BOX)).judge(everywhere(BOX, count=3))
