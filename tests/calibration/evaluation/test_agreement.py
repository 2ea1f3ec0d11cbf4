from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.coco_oracle import CLASS_NAMES, pycocotools_figures, random_data_set, results_of
from support.properties import examples
from support.scenes import make_instances
from yolact_calibration.errors import DatasetError, UsageError
from yolact_calibration.evaluation.agreement import Agreement, AgreementMeter, measure_agreement
from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval
from yolact_calibration.evaluation.pairing import pair_instances
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "yolact_published"
BOX = (10.0, 10.0, 30.0, 30.0)
FEW = BootstrapSettings(num_resamples=100)

needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(not PUBLISHED.exists(), reason="the data sets are not beside this repository"),
]


def _instances(
    boxes: Sequence[tuple[float, float, float, float]],
    confidence: Sequence[float],
    class_id: Sequence[int] | None = None,
    mask_confidence: Sequence[float] | None = None,
) -> Instances:
    found = make_instances(40, 60, boxes, class_id, mask_confidence)
    return dataclasses.replace(found, confidence=np.array(confidence, np.float32))


def _one(reference: Instances, candidate: Instances) -> Agreement:
    return measure_agreement({"a.png": reference}, {"a.png": candidate}, ["cat", "dog"])


# --- a model agrees with itself ---------------------------------------------------------------------------------------


def _require_perfect(agreement: Agreement) -> None:
    for figures in (agreement.bbox, agreement.segm):
        assert set(figures) == {"AP", "AP50", "AP75"}
        assert set(figures.values()) <= {1.0, None}
    assert agreement.matched in (1.0, None)
    assert agreement.mask_iou in (1.0, None)
    assert agreement.mask_iou_p5 in (1.0, None)
    assert agreement.num_extra == 0
    assert agreement.shift in (0.0, None)
    assert agreement.max_shift in (0.0, None)
    assert {image.loss for image in agreement.images} == {0.0}
    assert agreement.document()["worst"] == []


@examples(40)
@given(
    seed=st.integers(0, 2**32 - 1), ties=st.booleans(), rescored=st.booleans(), above=st.sampled_from([0.0, 0.3, 0.5])
)
def test_random_detections_agree_with_themselves(seed: int, ties: bool, rescored: bool, above: float) -> None:
    """Low scores, empty boxes, empty masks and equal instances included."""
    _, found, names = random_data_set(seed, 4, ties=ties, rescored=rescored)
    agreement = measure_agreement(found, found, names, above)
    _require_perfect(agreement)
    for group in agreement.intervals(FEW).values():
        assert {interval.low for interval in group.values()} <= {0.0, 1.0, None}


def test_agreement_with_oneself_is_not_empty() -> None:
    _, found, names = random_data_set(1, 4)
    agreement = measure_agreement(found, found, names)
    assert (agreement.bbox["AP"], agreement.segm["AP"], agreement.matched, agreement.mask_iou) == (1.0, 1.0, 1.0, 1.0)
    assert sum(agreement.num_instances.values()) > 5


def test_a_low_box_score_with_a_high_mask_score_does_not_spoil_it() -> None:
    """YOLACT++ ranks masks anew: below 0.3 by its box and above 0.3 by its mask, or the other way round."""
    found = _instances([BOX, (32, 10, 52, 30)], [0.9, 0.2], mask_confidence=[0.25, 0.8])
    _require_perfect(_one(found, found))


def test_more_than_a_hundred_instances() -> None:
    boxes = [(float(x), float(y), float(x + 4), float(y + 3)) for x in range(0, 60, 4) for y in range(0, 36, 3)]
    found = _instances(boxes, np.linspace(0.9, 0.5, len(boxes)).tolist())
    agreement = _one(found, found)
    assert agreement.num_instances == {"cat": 180}
    _require_perfect(agreement)


# --- what is lost shows -----------------------------------------------------------------------------------------------


def test_a_lost_instance() -> None:
    reference = _instances([BOX, (32, 10, 52, 30)], [0.9, 0.8])
    agreement = _one(reference, reference[:1])
    assert agreement.segm["AP"] == pytest.approx(51 / 101)
    assert agreement.matched == 0.5
    assert agreement.mask_iou == 1.0
    assert agreement.num_extra == 0
    (image,) = agreement.images
    assert (image.name, image.loss, image.num_reference, image.num_matched) == ("a.png", 0.5, 2, 1)


def test_another_class_is_another_instance() -> None:
    agreement = _one(_instances([BOX], [0.9], [0]), _instances([BOX], [0.9], [1]))
    assert (agreement.segm["AP"], agreement.matched, agreement.num_extra) == (0.0, 0.0, 1)
    assert agreement.mask_iou is None
    assert agreement.images[0].loss == 1.0
    assert agreement.by_class["segm"] == {"cat": {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}}


def test_scores_that_moved() -> None:
    boxes = [BOX, (32.0, 10.0, 52.0, 30.0)]
    agreement = _one(_instances(boxes, [0.9, 0.5]), _instances(boxes, [0.8, 0.75]))
    assert agreement.shift == pytest.approx(0.075)
    assert agreement.abs_shift == pytest.approx(0.175)
    assert agreement.max_shift == pytest.approx(0.25)
    assert agreement.segm["AP"] == 1.0


def test_a_mask_that_shrank() -> None:
    agreement = _one(_instances([BOX], [0.9]), _instances([(10, 10, 30, 26)], [0.9]))
    assert agreement.mask_iou == agreement.mask_iou_p5 == pytest.approx(0.8)
    assert agreement.segm["AP"] == pytest.approx(0.7)
    assert agreement.images[0].loss == pytest.approx(0.2)


def test_a_score_around_the_threshold_is_neither_lost_nor_extra() -> None:
    """0.31 against 0.29 is a shift of 0.02, from whichever side."""
    high, low = _instances([BOX], [0.31]), _instances([BOX], [0.29])
    down, up = _one(high, low), _one(low, high)
    assert (down.matched, down.num_extra, up.num_extra) == (1.0, 0, 0)
    assert down.shift == pytest.approx(-0.02, abs=1e-6)
    assert up.matched is None


def test_false_positives_in_images_where_the_reference_sees_nothing() -> None:
    nothing, something = _instances([], []), _instances([BOX], [0.9])
    clean = measure_agreement({1: something, 2: nothing}, {1: something, 2: nothing}, ["cat"])
    agreement = measure_agreement({1: something, 2: nothing}, {1: something, 2: _instances([BOX], [0.95])}, ["cat"])
    assert clean.segm["AP"] == 1.0
    assert agreement.segm["AP"] == agreement.bbox["AP"] == pytest.approx(0.5)
    assert agreement.num_extra == 1
    assert [(image.name, image.loss) for image in agreement.images] == [("2", 1.0), ("1", 0.0)]


def test_a_reference_that_finds_nothing() -> None:
    agreement = _one(_instances([BOX], [0.2]), _instances([(32, 10, 52, 30)], [0.9]))
    assert set(agreement.segm.values()) == {None}
    assert agreement.matched is agreement.mask_iou is None
    assert agreement.num_extra == 1
    assert agreement.num_instances == {}
    assert agreement.intervals(FEW)["segm"]["AP"] == Interval(None, None, None)
    json.dumps(agreement.document(), allow_nan=False)


def test_the_document() -> None:
    reference = _instances([BOX, (32, 10, 52, 30)], [0.9, 0.8])
    document = json.loads(json.dumps(_one(reference, reference[:1]).document(), allow_nan=False))
    assert set(document) == {"bbox", "segm", "pairs", "min_confidence", "images", "instances", "worst"}
    assert document["pairs"]["matched"] == 0.5
    assert document["instances"] == {"cat": 2}
    assert document["worst"] == [{"name": "a.png", "loss": 0.5, "num_reference": 2, "num_matched": 1, "num_extra": 0}]


def test_intervals_hold_their_figures() -> None:
    _, found, names = random_data_set(7, 10, ties=False)
    random = np.random.default_rng(0)
    moved = {
        key: dataclasses.replace(value, mask=Masks.from_dense(np.roll(value.mask.dense(), 1, axis=2)))[
            np.flatnonzero(random.random(len(value)) < 0.9)
        ]
        for key, value in found.items()
    }
    agreement = measure_agreement(found, moved, names)
    intervals = agreement.intervals(FEW)
    expected = {
        ("bbox", "AP"): agreement.bbox["AP"],
        ("segm", "AP50"): agreement.segm["AP50"],
        ("pairs", "mask_iou"): agreement.mask_iou,
        ("pairs", "matched"): agreement.matched,
        ("pairs", "shift"): agreement.shift,
        ("pairs", "abs_shift"): agreement.abs_shift,
    }
    for (group, name), value in expected.items():
        interval = intervals[group][name]
        assert interval.estimate == pytest.approx(value, abs=1e-9)
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= interval.estimate <= interval.high  # type: ignore[operator]  # as above
    mask_iou = intervals["pairs"]["mask_iou"]
    assert mask_iou.low < mask_iou.high  # type: ignore[operator]  # as above


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_the_better_candidate_chooses_first() -> None:
    reference = _instances([BOX], [0.9])
    near, exact = (10.0, 10.0, 30.0, 28.0), BOX
    pairs = pair_instances(reference, _instances([near, exact], [0.8, 0.6]), 0.3)
    assert pairs.iou.tolist() == pytest.approx([0.9])
    assert pairs.shift.tolist() == pytest.approx([-0.1])
    assert pairs.num_extra == 1
    pairs = pair_instances(reference, _instances([near, exact], [0.6, 0.8]), 0.3)
    assert pairs.iou.tolist() == [1.0]


def test_half_an_overlap_is_the_least() -> None:
    reference = _instances([BOX], [0.9])
    for bottom, count in ((20.0, 1), (19.0, 0)):
        pairs = pair_instances(reference, _instances([(10, 10, 30, bottom)], [0.9]), 0.3)
        assert (len(pairs.iou), pairs.num_extra) == (count, 1 - count)


# --- against pycocotools ----------------------------------------------------------------------------------------------


def _published(model: str, names: list[str]) -> dict[int, Instances]:
    """All detections; classes that `names` does not have yet are appended to it."""
    found = {}
    for image in json.loads((PUBLISHED / f"{model}.json").read_text())["images"]:
        dets = image["dets"]
        names += sorted({det["category"] for det in dets} - set(names))
        if dets:
            xywh = np.array([det["bbox"] for det in dets], np.float32)
            found[image["image_id"]] = Instances(
                np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                Masks.from_rle([det["mask"] for det in dets]),
                np.array([det["score"] for det in dets], np.float32),
                np.array([names.index(det["category"]) for det in dets], np.int32),
            )
    return found


@needs_data[0]
@needs_data[1]
def test_published_models_by_each_other_as_pycocotools_sees_them() -> None:
    names: list[str] = []
    reference, candidate = (_published(model, names) for model in ("yolact_base", "yolact_resnet50"))
    keys = sorted(reference.keys() & candidate.keys())
    reference, candidate = ({key: side[key] for key in keys} for side in (reference, candidate))
    agreement = measure_agreement(reference, candidate, names)
    images = [{"id": key, "height": reference[key].height, "width": reference[key].width} for key in keys]
    category_ids = list(range(1, len(names) + 1))
    confident = {key: side[np.flatnonzero(side.confidence > 0.3)] for key, side in reference.items()}
    for kind, figures in (("bbox", agreement.bbox), ("segm", agreement.segm)):
        truth = results_of(kind, confident, category_ids)
        document = {
            "images": images,
            "categories": [{"id": i, "name": str(i)} for i in category_ids],
            "annotations": [{**entry, "area": 1.0, "iscrowd": 0} for entry in truth],
        }
        whole, _ = pycocotools_figures(document, results_of(kind, candidate, category_ids), kind)
        assert figures["AP"] == pytest.approx(whole["AP"], abs=1e-6)
        assert figures["AP75"] == pytest.approx(whole["AP75"], abs=1e-6)
    assert agreement.mask_iou is not None
    assert 0.7 < agreement.mask_iou < 0.95
    _require_perfect(measure_agreement(candidate, candidate, names))


# --- what does not belong together ------------------------------------------------------------------------------------


def test_different_images() -> None:
    found = _instances([BOX], [0.9])
    with pytest.raises(DatasetError, match=r"2 have detections of one only: a\.png, b\.png"):
        measure_agreement({"a.png": found, "c.png": found}, {"b.png": found, "c.png": found}, ["cat"])


def test_images_of_different_sizes() -> None:
    with pytest.raises(DatasetError, match=r"a\.png: .* image of \(40, 60\) and the other's of \(60, 40\)"):
        _one(make_instances(40, 60, []), make_instances(60, 40, []))


def test_a_class_without_a_name() -> None:
    found = _instances([BOX], [0.9], [2])
    with pytest.raises(DatasetError, match="a detection of class 2, and there are 2 names"):
        _one(found, found)


def test_no_image() -> None:
    with pytest.raises(DatasetError, match="at least one image"):
        measure_agreement({}, {}, ["cat"])


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_a_threshold_that_makes_no_sense(value: float) -> None:
    with pytest.raises(UsageError, match="min_confidence must be 0 or more and below 1"):
        AgreementMeter(CLASS_NAMES, value)
