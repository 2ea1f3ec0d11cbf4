"""The verification must notice what it is there to notice."""

from __future__ import annotations

import numpy as np
import pytest

from yolact_export.errors import VerificationError
from yolact_export.verify import (
    DetectionAgreement,
    OutputAgreement,
    Rounding,
    Verification,
    compare_instances,
    compare_outputs,
    require_finite,
)
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks


def instances(count: int, shift: int = 0, confidence: float = 0.9) -> Instances:
    masks = np.zeros((count, 40, 200), bool)
    for i in range(count):
        masks[i, 5:25, 2 * i + shift : 2 * i + shift + 20] = True
    left = np.arange(count, dtype=np.float32) * 2 + shift
    xyxy = np.stack([left, np.full(count, 5.0), left + 20, np.full(count, 25.0)], axis=1).astype(np.float32)
    return Instances(
        xyxy, Masks.from_dense(masks), np.full(count, confidence, np.float32), np.arange(count, dtype=np.int32) % 3
    )


def test_equal_outputs_pass_with_zero_difference() -> None:
    array = np.random.default_rng(0).normal(size=(1, 7, 4)).astype(np.float32)
    (agreement,) = compare_outputs({"a": array}, {"a": array.copy()})
    assert agreement.passed
    assert agreement.max_absolute == agreement.max_relative == 0


@pytest.mark.parametrize("damage", [0.0011, -0.0011, np.nan, np.inf])
def test_one_wrong_value_fails(damage: float) -> None:
    array = np.ones((1, 50, 4), np.float32)
    wrong = array.copy()
    wrong[0, 17, 2] += damage
    (agreement,) = compare_outputs({"a": array}, {"a": wrong})
    assert not agreement.passed


# The limits are promises of the documents: literals on either side, so that whoever moves one has to say so here.
@pytest.mark.parametrize("damage", [0.0009, -0.0009])
def test_a_value_within_a_thousandth_passes(damage: float) -> None:
    array = np.ones((1, 50, 4), np.float32)
    near = array.copy()
    near[0, 17, 2] += damage
    (agreement,) = compare_outputs({"a": array}, {"a": near})
    assert agreement.passed
    assert agreement.max_relative == pytest.approx(0.0009, rel=1e-3)
    assert "limit 1e-03" in Verification((agreement,), GOOD).table()[0]


def test_small_values_are_judged_by_the_scale_of_their_output() -> None:
    array = np.array([[1e-6, 2.0, -2.0, 2.0]], np.float32)
    scale = float(np.sqrt(3.0))
    for share, passed in ((0.0009, True), (0.0011, False)):
        (agreement,) = compare_outputs({"a": array}, {"a": array + np.array([[share * scale, 0, 0, 0]], np.float32)})
        assert agreement.passed == passed
        assert agreement.max_absolute == pytest.approx(share * scale, rel=1e-3)
        assert agreement.max_relative == pytest.approx(share, rel=1e-3)


def test_errors_of_opposite_sign_do_not_cancel() -> None:
    array = np.ones((1, 2), np.float32)
    (agreement,) = compare_outputs({"a": array}, {"a": array + np.array([[0.5, -0.5]], np.float32)})
    assert agreement.max_absolute == 0.5


def test_a_missing_or_misshapen_output_is_named() -> None:
    array = np.ones((1, 2), np.float32)
    with pytest.raises(VerificationError, match=r'"a".* the exported model missing$'):
        compare_outputs({"a": array}, {"b": array})
    with pytest.raises(VerificationError, match=r"\(2, 1\)"):
        compare_outputs({"a": array}, {"a": array.T})


def test_the_same_instances_match_one_to_one() -> None:
    agreement = compare_instances(instances(30), instances(30)[::-1])
    assert (agreement.matched, agreement.passed) == (30, True)
    assert agreement.min_mask_iou == 1


@pytest.mark.parametrize(
    "found",
    [instances(30, shift=3), instances(30, confidence=0.8), instances(28), instances(0)],
    ids=["shifted", "confidence", "two lost", "none"],
)
def test_different_instances_fail(found: Instances) -> None:
    assert not compare_instances(instances(30), found).passed
    assert not compare_instances(found, instances(30)).passed


def one_instance(
    *, confidence: float = 0.5, moved_px: tuple[float, ...] = (0, 0, 0, 0), missing_px: int = 0, class_id: int = 1
) -> Instances:
    """One instance, whose mask has 1000 pixels less those that are missing."""
    mask = np.zeros((1, 40, 50), bool)
    mask[0, 10:30] = True
    mask[0, 10, :missing_px] = False
    xyxy = np.array([[0, 10, 50, 30]], np.float32) + np.array([moved_px], np.float32)
    return Instances(xyxy, Masks.from_dense(mask), np.array([confidence], np.float32), np.array([class_id], np.int32))


@pytest.mark.parametrize(
    ("found", "matched"),
    [
        (one_instance(confidence=0.5019), True),
        (one_instance(confidence=0.4981), True),
        (one_instance(confidence=0.5021), False),
        (one_instance(confidence=0.4979), False),
        (one_instance(moved_px=(0.9, -0.9, 0.9, -0.9)), True),
        (one_instance(moved_px=(1, 1, 1, 1)), True),
        *((one_instance(moved_px=tuple(np.eye(4)[corner] * 1.1)), False) for corner in range(4)),
        *((one_instance(moved_px=tuple(np.eye(4)[corner] * -1.1)), False) for corner in range(4)),
        (one_instance(missing_px=10), True),
        (one_instance(missing_px=11), False),
        (one_instance(class_id=2), False),
    ],
)
def test_either_side_of_each_limit_of_a_detection(found: Instances, matched: bool) -> None:
    for agreement in (compare_instances(one_instance(), found), compare_instances(found, one_instance())):
        assert agreement.matched == matched
        assert agreement.passed == matched


def test_the_limit_of_confidence_itself_is_allowed() -> None:
    """Where the difference has no rounding of its own: from zero."""
    expected, found = one_instance(confidence=0.0), one_instance(confidence=0.002)
    assert compare_instances(expected, found).matched == compare_instances(found, expected).matched == 1


def test_what_is_expected_and_what_is_found_are_not_mixed_up() -> None:
    assert compare_instances(instances(3), instances(2)) == DetectionAgreement(3, 2, 2, 0.0, 0.0, 1.0)


def test_how_far_matched_instances_are_from_each_other_is_recorded() -> None:
    expected = one_instance()
    found = one_instance(confidence=0.501, moved_px=(0, 0.25, 0, 0), missing_px=5)
    agreement = compare_instances(expected, found)
    assert agreement.max_confidence_change == pytest.approx(0.001, rel=1e-3)
    assert agreement.max_corner_change_px == 0.25
    assert agreement.min_mask_iou == pytest.approx(0.995)


@pytest.mark.parametrize(
    ("expected", "found", "matched", "passed"),
    [
        (100, 100, 99, True),
        (100, 99, 99, True),
        (99, 100, 99, True),
        (100, 100, 98, False),
        (100, 98, 98, False),
        (98, 100, 98, False),
        (99, 99, 98, False),
        (200, 200, 198, True),
        (200, 200, 197, False),
        (1, 1, 0, False),
        (0, 1, 0, False),
        (1, 0, 0, False),
    ],
)
def test_one_instance_in_a_hundred_may_be_lost(expected: int, found: int, matched: int, passed: bool) -> None:
    assert DetectionAgreement(expected, found, matched).passed == passed


def test_one_instance_is_not_matched_twice() -> None:
    one = instances(1)
    agreement = compare_instances(one[[0, 0]], one)
    assert (agreement.matched, agreement.passed) == (1, False)


def test_two_empty_masks_count_as_equal() -> None:
    empty = Instances(
        np.array([[1, 2, 3, 4]], np.float32), Masks.empty(1, 9, 9), np.ones(1, np.float32), np.zeros(1, np.int32)
    )
    assert compare_instances(empty, empty) == DetectionAgreement(1, 1, 1, 0.0, 0.0, 1.0)


def test_no_instances_on_either_side_passes() -> None:
    assert compare_instances(instances(0), instances(0)).passed


def test_a_failure_raises_with_the_table() -> None:
    bad = compare_outputs({"prototype": np.ones((1, 2))}, {"prototype": np.zeros((1, 2))})
    verification = Verification(bad, DetectionAgreement(0, 0, 0))
    assert not verification.passed
    assert verification.document()["passed"] is False
    with pytest.raises(VerificationError, match=r"no bundle was written[\s\S]*prototype.*FAILED"):
        verification.require()
    assert all(len(line) <= 80 for line in verification.table())


def agreement(name: str, relative: float) -> OutputAgreement:
    return OutputAgreement(name, (1, 9, 4), relative, relative)


GOOD, BAD = DetectionAgreement(10, 10, 10), DetectionAgreement(10, 10, 6)


@pytest.mark.parametrize(
    ("found", "found_detections", "own", "own_detections", "exploded"),
    [
        ({"a": 2e-3}, BAD, {"a": 1e-3}, GOOD, True),
        ({"a": 2e-3}, GOOD, {"a": float("nan")}, BAD, True),
        # The exporter is at fault where the network itself is exact, in the output that fails.
        ({"a": 2e-3}, BAD, {"a": 1e-5}, BAD, False),
        ({"a": 2e-3, "b": 0.0}, BAD, {"a": 1e-6, "b": 1e-2}, BAD, False),
        ({"mask_iou": 2e-3}, GOOD, {"a": 1e-2}, BAD, False),
        # Detections alone fail.
        ({"a": 1e-6}, BAD, {"a": 1e-6}, BAD, True),
        ({"a": 1e-6}, BAD, {"a": 1e-6}, GOOD, False),
        # Two computations of one network differ by up to four times its own rounding, and no more.
        ({"a": 3.9e-3}, BAD, {"a": 1e-3}, BAD, True),
        ({"a": 4.0e-3}, BAD, {"a": 1e-3}, BAD, True),
        ({"a": 4.1e-3}, BAD, {"a": 1e-3}, BAD, False),
    ],
)
def test_an_exploded_network_is_told_from_a_fault_of_the_exporter(
    found: dict[str, float],
    found_detections: DetectionAgreement,
    own: dict[str, float],
    own_detections: DetectionAgreement,
    exploded: bool,
) -> None:
    verification = Verification(tuple(agreement(*item) for item in found.items()), found_detections)
    rounding = Rounding(tuple(agreement(*item) for item in own.items()), own_detections, 1.2e6, "head.mask_layer")
    with pytest.raises(VerificationError) as caught:
        verification.require(rounding)
    message = str(caught.value)
    assert ("Please report this" in message) != exploded
    assert ("have exploded: head.mask_layer computes values up to 1.2e+06" in message) == exploded
    with pytest.raises(VerificationError, match="Please report this"):
        verification.require()


def test_outputs_that_are_not_finite_are_the_networks_fault() -> None:
    require_finite({"a": np.ones(3, np.float32)})
    with pytest.raises(VerificationError, match=r"computes b \(1 NaN and 2 infinite of 4 values\)"):
        require_finite({"a": np.ones(3, np.float32), "b": np.array([np.nan, np.inf, -np.inf, 1], np.float32)})


def test_the_limits_themselves_are_allowed() -> None:
    assert OutputAgreement("a", (1,), 1.0, 1e-3).passed
    assert not OutputAgreement("a", (1,), 1.0, float(np.nextafter(1e-3, 1))).passed
    assert not OutputAgreement("a", (1,), float("nan"), float("nan")).passed


def test_nothing_in_common_is_no_difference() -> None:
    """Without a pair there is nothing to measure; the count says what is wrong."""
    assert compare_instances(instances(3), instances(0)) == DetectionAgreement(3, 0, 0, 0.0, 0.0, 1.0)
    assert DetectionAgreement(3, 0, 0) == DetectionAgreement(3, 0, 0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("outputs", "detections", "passed"),
    [
        ((1e-4, 2e-4), DetectionAgreement(10, 10, 10), True),
        ((1e-4, 2e-3), DetectionAgreement(10, 10, 10), False),
        ((1e-4, 2e-4), DetectionAgreement(10, 10, 9), False),
    ],
)
def test_every_output_and_the_detections_have_to_pass(
    outputs: tuple[float, float], detections: DetectionAgreement, passed: bool
) -> None:
    both = (agreement("a", outputs[0]), agreement("b", outputs[1]))
    verification = Verification(both, detections)
    assert verification.passed == passed
    assert Rounding(both, detections, 1.0, "a").passed == passed
    if passed:
        verification.require()
    else:
        with pytest.raises(VerificationError, match="differ from the checkpoint's"):
            verification.require()


def test_the_table_and_the_document_say_what_was_found() -> None:
    outputs = OutputAgreement("prototype", (1, 2, 3), 1e-4, 5e-4), OutputAgreement("mask_iou", (1,), 0.2, 0.3)
    failed = Verification(outputs, DetectionAgreement(10, 11, 9, 1e-3, 0.5, 0.995))
    assert failed.table() == [
        "output                           shape   max |a-b|    relative  limit 1e-03",
        "prototype                    1 x 2 x 3     1.0e-04     5.0e-04  ok",
        "mask_iou                             1     2.0e-01     3.0e-01  FAILED",
        "detections                     9 of 10  confidence 1e-03, mask IoU 0.995  FAILED",
    ]
    assert failed.document() == {
        "passed": False,
        "outputs": [
            {"name": "prototype", "shape": (1, 2, 3), "max_absolute": 1e-4, "max_relative": 5e-4, "passed": True},
            {"name": "mask_iou", "shape": (1,), "max_absolute": 0.2, "max_relative": 0.3, "passed": False},
        ],
        "detections": {
            "expected": 10,
            "found": 11,
            "matched": 9,
            "max_confidence_change": 1e-3,
            "max_corner_change_px": 0.5,
            "min_mask_iou": 0.995,
            "passed": False,
        },
    }
    passed = Verification(outputs[:1], DetectionAgreement(10, 10, 10))
    assert passed.table()[-1] == "detections                    10 of 10  confidence 0e+00, mask IoU 1.000  ok"
    assert passed.document()["passed"] is True


def test_the_worst_output_of_an_exploded_network_is_named() -> None:
    outputs = (agreement("a", 0.5), agreement("b", 0.7), agreement("c", 0.6))
    told = Rounding(outputs, BAD, 1.25e6, "head").describe()
    assert "its own b in float32 is up to 7.0e-01 off that in float64 (relative), and 6 of 10 detections agree" in told
    # No number at all is worse than any.
    assert "its own c in" in Rounding((*outputs[:2], agreement("c", float("nan"))), BAD, 1.0, "head").describe()


def test_an_output_without_values_and_one_of_zeros_are_equal_to_themselves() -> None:
    empty, zeros = np.zeros((0, 4), np.float32), np.zeros((1, 4), np.float32)
    found = compare_outputs({"a": empty, "b": zeros}, {"a": empty, "b": zeros})
    assert [(one.max_absolute, one.max_relative, one.passed) for one in found] == [(0.0, 0.0, True)] * 2
    # Next to nothing is infinitely more than nothing.
    (wrong,) = compare_outputs({"b": zeros}, {"b": zeros + np.float32(1e-20)})
    assert not wrong.passed


def test_a_value_is_judged_by_itself_where_it_is_larger_than_the_outputs_scale() -> None:
    array = np.array([[10.0, 0.1, 0.1, 0.1]], np.float32)
    (agreement,) = compare_outputs({"a": array}, {"a": array + np.array([[0.005, 0, 0, 0]], np.float32)})
    assert agreement.max_relative == pytest.approx(0.0005, rel=1e-3)


def test_differences_are_computed_in_float64() -> None:
    """The checkpoint's values in float64, where a float32 has no digits left."""
    reference = np.full((1, 2), 1.0 + 1e-9)
    (agreement,) = compare_outputs({"a": reference}, {"a": np.ones((1, 2), np.float32)})
    assert agreement.max_absolute == pytest.approx(1e-9, rel=1e-3)


def test_the_nearest_of_several_partners_is_taken() -> None:
    """Both fit; the mask counts first, and what is left over has to find the other one."""
    near, far = one_instance(missing_px=1), one_instance(missing_px=6)
    both = Instances(
        np.concatenate([far.xyxy, near.xyxy]),
        Masks.from_dense(np.concatenate([far.mask.dense(), near.mask.dense()])),
        np.concatenate([far.confidence, near.confidence]),
        np.concatenate([far.class_id, near.class_id]),
    )
    assert compare_instances(one_instance(), both).min_mask_iou == pytest.approx(0.999)
    moved = one_instance(moved_px=(0.5, 0, 0, 0))
    pair = Instances(
        np.concatenate([moved.xyxy, one_instance().xyxy]),
        Masks.from_dense(np.concatenate([one_instance().mask.dense()] * 2)),
        np.array([0.5, 0.5], np.float32),
        np.ones(2, np.int32),
    )
    assert compare_instances(one_instance(), pair).max_corner_change_px == 0
    unsure = one_instance(confidence=0.501)
    pair = Instances(
        pair.xyxy[[1, 1]], pair.mask, np.concatenate([unsure.confidence, [0.5]]).astype(np.float32), pair.class_id
    )
    assert compare_instances(one_instance(), pair).max_confidence_change == 0


def test_an_empty_mask_is_not_equal_to_a_full_one() -> None:
    full = one_instance()
    empty = Instances(full.xyxy, Masks.empty(1, 40, 50), full.confidence, full.class_id)
    assert compare_instances(full, empty).matched == compare_instances(empty, full).matched == 0
