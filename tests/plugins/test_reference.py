"""The reference against hand-written values, OpenCV, and the algorithm as PyTorch users write it.

Everything else is tested against the reference, so nothing here may use the runtime.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins import reference

Float = npt.NDArray[np.float32]
sizes = st.integers(1, 24)
seeds = st.integers(0, 2**32 - 1)
# Both libraries compute source positions in float32, the reference in float64: on axes of up to 24 pixels the weights
# differ by a few 2^-19, times the range of the values.
POSITION_ROUNDING = 255 * 2**-18


# --- resize -----------------------------------------------------------------------------------------------------------


def test_resize_takes_half_pixel_centres_and_repeats_the_edges() -> None:
    enlarged = reference.resize_bilinear(np.array([[0, 4]], np.uint8), 1, 4)
    assert enlarged.tolist() == [[0, 1, 3, 4]]


def test_resize_does_not_antialias() -> None:
    # Every third pixel is looked at, the others have no weight: an area filter would give 85.
    assert reference.resize_bilinear(np.array([[0, 255, 0] * 4], np.uint8), 1, 4).tolist() == [[255] * 4]


def test_resize_computes_in_float_not_in_the_dtype_of_the_image() -> None:
    halved = reference.resize_bilinear(np.array([[0, 1]], np.uint8), 1, 1)
    assert halved.dtype == np.float32
    assert halved.tolist() == [[0.5]]


@examples(60)
@given(seeds, sizes, sizes, sizes, sizes, st.sampled_from([None, 1, 3]))
def test_resize_equals_pytorch_and_opencv(
    seed: int, height: int, width: int, rows: int, columns: int, channels: int | None
) -> None:
    torch = pytest.importorskip("torch")
    shape = (height, width) if channels is None else (height, width, channels)
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    ours = reference.resize_bilinear(image, rows, columns)
    planes = torch.from_numpy(image.reshape(height, width, -1)).float().permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(planes, (rows, columns), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(
        ours.reshape(rows, columns, -1), theirs[0].permute(1, 2, 0).numpy(), rtol=0, atol=POSITION_ROUNDING
    )
    opencv = cv2.resize(image.astype(np.float32), (columns, rows), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, opencv.reshape(ours.shape), rtol=0, atol=POSITION_ROUNDING)


# --- preprocess -------------------------------------------------------------------------------------------------------


def test_preprocess_normalises_in_bgr_order_and_then_swaps_to_rgb() -> None:
    frame = np.array([[[10, 20, 30]]], np.uint8)  # blue, green, red
    tensor = reference.preprocess(frame, 2, 2, (1, 2, 3), (9, 6, 3), "RGB")
    assert tensor.shape == (1, 3, 2, 2)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    assert tensor[0, :, 0, 0].tolist() == [9, 3, 1]  # red, green, blue
    assert reference.preprocess(frame, 2, 2, (1, 2, 3), (9, 6, 3), "BGR")[0, :, 0, 0].tolist() == [1, 3, 9]


def test_preprocess_stretches_and_never_letterboxes() -> None:
    frame = np.full((3, 90, 3), 200, np.uint8)
    assert (reference.preprocess(frame, 8, 8, (0, 0, 0), (1, 1, 1), "BGR") == 200).all()


# --- scores and boxes -------------------------------------------------------------------------------------------------


def test_class_score_is_a_softmax_over_the_last_axis() -> None:
    torch = pytest.importorskip("torch")
    logit = np.random.default_rng(0).normal(0, 8, (4, 5, 7)).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(logit), -1).numpy()
    np.testing.assert_allclose(reference.class_score(logit), expected, rtol=1e-6, atol=1e-7)


def test_class_score_survives_large_logits() -> None:
    score = reference.class_score(np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]], np.float32))
    np.testing.assert_allclose(score, [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


def test_decode_of_a_zero_regression_is_the_prior() -> None:
    boxes = reference.decode(np.zeros((1, 4), np.float32), np.array([[0.5, 0.25, 0.2, 0.5]], np.float32))
    np.testing.assert_allclose(boxes, [[0.4, 0, 0.6, 0.5]], atol=1e-7)


def test_decode_by_hand_and_unclipped() -> None:
    regression = np.array([[10, -20, 5 * math.log(2), 5 * math.log(0.5)]], np.float32)
    boxes = reference.decode(regression, np.array([[0.9, 0.5, 0.2, 0.4]], np.float32))
    # centre 0.9 + 10 * 0.1 * 0.2, 0.5 - 20 * 0.1 * 0.4; size 0.2 * 2, 0.4 / 2
    np.testing.assert_allclose(boxes, [[0.9, -0.4, 1.3, -0.2]], atol=1e-6)


def test_decode_uses_the_variances_given() -> None:
    regression = np.array([[1, 1, 1, 1]], np.float32)
    boxes = reference.decode(regression, np.array([[0, 0, 1, 1]], np.float32), (0.5, 0.0))
    np.testing.assert_allclose(boxes, [[0, 0, 1, 1]], atol=1e-7)


@pytest.mark.parametrize(
    ("a", "b", "offset", "expected"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 0, 1 / 7),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1, 4 / 14),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0, 0),
        ((0, 0, 1, 1), (1, 0, 2, 1), 1, 2 / 6),
        ((0, 0, 1, 1), (0, 0, 1, 1), 0, 1),
        ((0, 0, 1, 1), (5, 5, 6, 6), 0, 0),
        ((-3, -3, -1, -1), (-2, -2, 0, 0), 0, 1 / 7),
    ],
)
def test_iou_by_hand(a: tuple[int, ...], b: tuple[int, ...], offset: float, expected: float) -> None:
    overlap = reference.iou(np.array([a], np.float32), np.array([b], np.float32), offset)
    assert overlap[0, 0] == pytest.approx(expected, rel=1e-6)


def test_iou_of_two_boxes_without_area_is_nan_without_a_warning() -> None:
    point = np.array([[1, 1, 1, 1]], np.float32)
    assert np.isnan(reference.iou(point, point)[0, 0])


def test_iou_of_boxes_whose_area_overflows_does_not_warn() -> None:
    huge = np.array([[-1e25, -1e25, 1e25, 1e25]], np.float32)
    assert np.isnan(reference.iou(huge, huge)[0, 0])


def test_suppression_of_boxes_beyond_float32_does_not_warn() -> None:
    huge, score = np.array([[-3e38, -3e38, 3e38, 3e38]] * 2, np.float32), np.array([[0.9], [0.8]], np.float32)
    assert reference.fast_nms(huge, score).prior.tolist() == [0]
    assert reference.traditional_nms(huge, score, input_size=(550, 550)).prior.tolist() == [0]


# --- suppression ------------------------------------------------------------------------------------------------------

# IoU(A, B) = IoU(B, C) = 0.6 and IoU(A, C) = 0.2, scores A > B > C.
CHAIN = np.array([[0.0, 0, 0.6, 1], [0, 0, 1, 1], [0.4, 0, 1, 1]], np.float32)
CHAIN_SCORE = np.array([[0.9], [0.8], [0.7]], np.float32)


def test_fast_nms_lets_a_dropped_box_suppress() -> None:
    assert reference.fast_nms(CHAIN, CHAIN_SCORE).prior.tolist() == [0]


def test_traditional_nms_does_not_let_a_dropped_box_suppress() -> None:
    assert reference.traditional_nms(CHAIN, CHAIN_SCORE, input_size=(500, 500)).prior.tolist() == [0, 2]


def test_fast_nms_has_no_second_threshold_and_fills_up_with_low_scores() -> None:
    score = np.array([[0.9, 0.001, 0.002]], np.float32)
    kept = reference.fast_nms(np.array([[0, 0, 1, 1]], np.float32), score)
    assert kept.class_id.tolist() == [0, 2, 1]
    assert kept.prior.tolist() == [0, 0, 0]


@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_candidates_are_strictly_above_the_threshold(threshold: float) -> None:
    exact = np.float32(threshold)
    score = np.array([[exact, 0], [0, np.nextafter(exact, np.float32(1))], [0, 0]], np.float32)
    assert reference.candidates(score, threshold).tolist() == [1]


def test_equality_with_the_iou_threshold_keeps_in_fast_nms_and_drops_in_traditional_nms() -> None:
    score = np.array([[0.9], [0.8]], np.float32)
    half = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]], np.float32)
    assert len(reference.fast_nms(half, score).prior) == 2
    # (4 + 1) x (3 + 1) and (4 + 1) x (1 + 1) pixels: exactly one half with the inclusive convention.
    inclusive = np.array([[0, 0, 4, 3], [0, 0, 4, 1]], np.float32) / 8
    assert len(reference.traditional_nms(inclusive, score, input_size=(8, 8)).prior) == 1
    assert len(reference.traditional_nms(inclusive, score, input_size=(8, 8), iou_threshold=0.501).prior) == 2


def test_traditional_nms_scales_columns_by_the_width_and_rows_by_the_height() -> None:
    boxes = np.array([[0, 0, 0.1, 0.5], [0, 0.5, 0.1, 1]], np.float32)
    score = np.array([[0.9], [0.8]], np.float32)
    # One pixel of height each, so the inclusive convention makes them overlap by 2 / (4 + 4 - 2) of the rows.
    flat = reference.traditional_nms(boxes, score, input_size=(2, 1000), iou_threshold=0.3)
    tall = reference.traditional_nms(boxes, score, input_size=(1000, 2), iou_threshold=0.3)
    assert (len(flat.prior), len(tall.prior)) == (1, 2)


def test_traditional_nms_keeps_only_scores_above_the_threshold_in_each_class() -> None:
    score = np.array([[0.9, 0.04]], np.float32)
    kept = reference.traditional_nms(np.array([[0, 0, 1, 1]], np.float32), score, input_size=(10, 10))
    assert kept.class_id.tolist() == [0]


def test_cross_class_fast_nms_keeps_one_class_per_object_and_is_not_cut_to_100() -> None:
    left = np.arange(150, dtype=np.float32)
    boxes = np.stack([left, 0 * left, left + 0.9, 0 * left + 1], axis=1)
    score = np.tile(np.array([[0.3, 0.6]], np.float32), (150, 1))
    kept = reference.cross_class_fast_nms(boxes, score)
    assert len(kept.prior) == 150
    assert set(kept.class_id.tolist()) == {1}
    assert len(reference.fast_nms(boxes, score).prior) == 100


@pytest.mark.parametrize("num_priors", [0, 3])
def test_no_candidate_gives_empty_results(num_priors: int) -> None:
    boxes, score = np.zeros((num_priors, 4), np.float32), np.zeros((num_priors, 2), np.float32)
    for kept in (
        reference.fast_nms(boxes, score),
        reference.cross_class_fast_nms(boxes, score),
        reference.traditional_nms(boxes, score, input_size=(8, 8)),
    ):
        assert [len(part) for part in kept] == [0, 0, 0]


def _torch_fast_nms(xyxy: Float, score: Float, iou_threshold: float, top_k: int, max_instances: int) -> set[tuple]:
    """Fast NMS as the paper prints it: sort, matrix, triu, max. Returns (prior, class, score)."""
    torch = pytest.importorskip("torch")
    boxes, scores = torch.from_numpy(xyxy), torch.from_numpy(score).T
    candidate = torch.nonzero(scores.max(0).values > 0.05)[:, 0]
    scores, order = torch.sort(scores[:, candidate], dim=1, descending=True, stable=True)
    scores, order = scores[:, :top_k], order[:, :top_k]
    sorted_boxes = boxes[candidate][order]
    low = torch.maximum(sorted_boxes[:, :, None, :2], sorted_boxes[:, None, :, :2])
    high = torch.minimum(sorted_boxes[:, :, None, 2:], sorted_boxes[:, None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area = (sorted_boxes[..., 2:] - sorted_boxes[..., :2]).prod(-1)
    iou = (intersection / (area[:, :, None] + area[:, None] - intersection)).triu(diagonal=1)
    keep = iou.max(1).values <= iou_threshold
    classes = torch.arange(len(scores))[:, None].expand_as(order)[keep]
    found = sorted(
        zip(candidate[order[keep]].tolist(), classes.tolist(), scores[keep].tolist(), strict=True),
        key=lambda row: (-row[2], row[1], row[0]),
    )
    return set(found[:max_instances])


@examples(60)
@given(
    seeds, st.integers(1, 30), st.integers(1, 3), st.integers(1, 12), st.integers(1, 20), st.sampled_from([0.3, 0.5])
)
def test_fast_nms_equals_the_matrix_form_in_pytorch(
    seed: int, num_priors: int, classes: int, top_k: int, max_instances: int, iou_threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 6, (num_priors, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 5, (num_priors, 2))], axis=1).astype(np.float32)
    score = (rng.integers(0, 40, (num_priors, classes)) / 40).astype(np.float32)
    if not (score > 0.05).any():
        score[0, 0] = 0.5
    ours = reference.fast_nms(boxes, score, iou_threshold=iou_threshold, top_k=top_k, max_instances=max_instances)
    rows = list(zip(*(part.tolist() for part in ours), strict=True))
    assert rows == sorted(rows, key=lambda row: (-row[2], row[1], row[0]))
    assert set(rows) == _torch_fast_nms(boxes, score, iou_threshold, top_k, max_instances)


# --- crop and masks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "size", "expected"),
    [
        (0.5, 0.5, 138, (68, 70)),  # 69 - 1 and 69 + 1, the end exclusive: pixels 68 and 69
        (0.0, 1.0, 138, (0, 138)),
        (-5.0, 5.0, 138, (0, 138)),
        (0.75, 0.25, 8, (1, 7)),  # corners in any order
        (0.25, 0.25, 8, (1, 3)),  # 2 - 1 and 2 + 1: pixel 3 is not inside
        (0.26, 0.26, 10, (2, 4)),  # 1.6 and 3.6: not rounded, pixels 2 and 3
    ],
)
def test_crop_window_by_hand(low: float, high: float, size: int, expected: tuple[int, int]) -> None:
    assert reference.crop_window(low, high, size) == expected


@pytest.mark.parametrize(("low", "high"), [(1.2, 1.4), (-0.4, -0.2), (math.nan, 0.5), (0.1, math.inf)])
def test_crop_window_of_a_box_that_is_elsewhere_or_not_finite_is_empty(low: float, high: float) -> None:
    first, last = reference.crop_window(low, high, 138)
    assert first >= last


def test_crop_window_margin_is_a_fraction_of_the_length_on_both_sides() -> None:
    assert reference.crop_window(0.375, 0.625, 100, margin=0.5) == (24, 76)
    assert reference.crop_window(0.375, 0.625, 100, margin=0.5, padding=0) == (25, 75)


def test_crop_window_of_the_largest_floats_covers_the_prototypes() -> None:
    assert reference.crop_window(-3e38, 3e38, 138) == (0, 138)
    assert reference.crop_window(-3e38, 3e38, 138, margin=1) == (0, 138)


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.5, 0.5), (7.0, 8.0)])
def test_an_infinite_margin_does_not_crop(low: float, high: float) -> None:
    assert reference.crop_window(low, high, 9, margin=math.inf) == (0, 9)


def test_soft_masks_crop_probabilities_and_zero_the_rest() -> None:
    prototype = np.arange(2 * 4 * 8, dtype=np.float32).reshape(2, 4, 8) / 32
    masks = reference.soft_masks(prototype, np.array([[1, -1]], np.float32), np.array([[0.5, 0, 0.5, 1]], np.float32))
    probability = 1 / (1 + math.exp(1))
    expected = np.zeros((1, 4, 8), np.float32)
    expected[0, :, 3:5] = probability
    np.testing.assert_allclose(masks, expected, rtol=1e-6)


def test_masks_are_thresholded_on_the_sigmoid_not_on_the_raw_combination() -> None:
    whole = np.array([[0, 0, 1, 1]], np.float32)
    one = np.ones((1, 1), np.float32)
    assert reference.mask_assembly(np.full((1, 2, 2), 0.3, np.float32), one, whole, 4, 4).all()
    assert not reference.mask_assembly(np.full((1, 2, 2), -0.3, np.float32), one, whole, 4, 4).any()


def test_a_probability_of_one_half_is_outside() -> None:
    whole = np.array([[0, 0, 1, 1]], np.float32)
    assert not reference.mask_assembly(np.zeros((1, 2, 2), np.float32), np.ones((1, 1), np.float32), whole, 4, 4).any()


def test_masks_are_cropped_before_upsampling() -> None:
    prototype = np.full((1, 1, 8), 9, np.float32)
    masks = reference.mask_assembly(
        prototype, np.ones((1, 1), np.float32), np.array([[0.5, 0, 0.5, 1]], np.float32), 1, 32
    )
    # Prototype columns 3 and 4 are kept: they own frame columns 12..19, and interpolation passes 0.5 half-way to the
    # neighbours' centres. Cropping after upsampling would keep two frame columns.
    assert np.flatnonzero(masks[0, 0]).tolist() == list(range(12, 20))


def _torch_masks(prototype: Float, coefficient: Float, boxes: Float, height: int, width: int) -> Float:
    """Post-processing as the original does it, in PyTorch: interpolated probabilities ``(n, H, W)``."""
    torch = pytest.importorskip("torch")
    soft = torch.sigmoid(torch.from_numpy(prototype).permute(1, 2, 0) @ torch.from_numpy(coefficient).T)
    rows, columns, count = soft.shape
    low, high = (
        torch.from_numpy(np.minimum(boxes[:, :2], boxes[:, 2:])),
        torch.from_numpy(np.maximum(boxes[:, :2], boxes[:, 2:])),
    )
    size = torch.tensor([columns, rows])
    low, high = (low * size - 1).clamp(min=0), torch.minimum(high * size + 1, size)
    x, y = torch.arange(columns)[None, :, None], torch.arange(rows)[:, None, None]
    inside = (x >= low[:, 0]) & (x < high[:, 0]) & (y >= low[:, 1]) & (y < high[:, 1])
    cropped = (soft * inside).permute(2, 0, 1)[None]
    if not count:
        return np.zeros((0, height, width), np.float32)
    return torch.nn.functional.interpolate(cropped, (height, width), mode="bilinear", align_corners=False)[0].numpy()


@examples(80)
@given(seeds, st.integers(0, 3), sizes, sizes, sizes, sizes)
def test_mask_assembly_equals_pytorch(seed: int, count: int, rows: int, columns: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    prototype = np.maximum(rng.normal(0, 2, (4, rows, columns)), 0).astype(np.float32)
    coefficient = np.tanh(rng.normal(0, 2, (count, 4))).astype(np.float32)
    boxes = rng.uniform(-0.4, 1.4, (count, 4)).astype(np.float32)
    ours = reference.mask_assembly(prototype, coefficient, boxes, height, width)
    value = _torch_masks(prototype, coefficient, boxes, height, width)
    different = ours != (value > 0.5)
    assert (np.abs(value[different] - 0.5) < 2**-17).all()  # as for POSITION_ROUNDING: values lie in 0..1 here
    assert ours.shape == (count, height, width)
    assert ours.dtype == bool
