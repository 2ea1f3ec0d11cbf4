from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins import reference
from yolact_runtime.cpu.mask_assembly import assemble_masks, soft_masks
from yolact_runtime.errors import ShapeError

Float = npt.NDArray[np.float32]
WHOLE = (0.0, 0.0, 1.0, 1.0)
# An interpolated probability closer than this to 0.5 may fall on either side: the sums are made in another order.
UNDECIDED = 1e-6
seeds = st.integers(0, 2**32 - 1)
ends = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, -0.3, 1.3, -5.0, 6.0, 1e-6]), st.integers(-8, 24).map(lambda v: v / 16)
)
boxes = st.tuples(ends, ends, ends, ends)


def _boxes(*rows: tuple[float, float, float, float]) -> Float:
    return np.array(rows, np.float32).reshape(-1, 4)


def _assert_equal_to_reference(
    prototype: Float, coefficient: Float, xyxy: Float, height: int, width: int, margin: float = 0.0
) -> None:
    masks = assemble_masks(prototype, coefficient, xyxy, height, width, margin)
    assert (len(masks), masks.height, masks.width) == (len(xyxy), height, width)
    ours = masks.dense()
    expected = reference.mask_assembly(prototype, coefficient, xyxy, height, width, margin)
    soft = reference.soft_masks(prototype, coefficient, xyxy, margin)
    for i in np.flatnonzero((ours != expected).any(axis=(1, 2))):
        value = reference.resize_bilinear(soft[i], height, width)[ours[i] != expected[i]]
        assert (np.abs(value - 0.5) <= UNDECIDED).all(), f"mask {i}: {value}"
    _assert_runs_are_canonical(masks.start, masks.end, masks.offset, height * width)


def _assert_runs_are_canonical(start: npt.NDArray, end: npt.NDArray, offset: npt.NDArray, size: int) -> None:
    """Sorted, disjoint, not touching, inside the frame: what equality and RLE rely on."""
    assert (start < end).all()
    assert (start >= 0).all()
    assert (end <= size).all()
    gap = start[1:] > end[:-1]
    opens = np.zeros(len(start) + 1, bool)
    opens[offset] = True
    assert (gap | opens[1:-1]).all()


@examples(300)
@given(
    seeds,
    st.lists(boxes, max_size=4),
    st.integers(1, 4),
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.5, 2.0, 20.0, 400.0]),
    st.sampled_from([0.0, 0.0, 0.1, 1.0, math.inf]),
)
@example(0, [WHOLE], 1, (1, 1), (1, 1), 2.0, 0.0)
@example(0, [WHOLE], 2, (14, 14), (1, 1), 2.0, 0.0)
@example(0, [WHOLE, WHOLE], 2, (1, 14), (40, 1), 2.0, 0.0)
def test_equals_the_reference(
    seed: int,
    rows: list[tuple[float, float, float, float]],
    num_prototypes: int,
    prototype_size: tuple[int, int],
    frame_size: tuple[int, int],
    spread: float,
    margin: float,
) -> None:
    rng = np.random.default_rng(seed)
    prototype = rng.normal(0, spread, (num_prototypes, *prototype_size)).astype(np.float32)
    coefficient = np.tanh(rng.normal(0, 1, (len(rows), num_prototypes))).astype(np.float32)
    _assert_equal_to_reference(prototype, coefficient, _boxes(*rows), *frame_size, margin)


@examples(100)
@given(
    seeds,
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    boxes,
)
def test_equals_the_reference_where_many_probabilities_are_equal(
    seed: int, prototype_size: tuple[int, int], frame_size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    # Whole numbers make plateaus, and probabilities of exactly one half.
    prototype = np.random.default_rng(seed).integers(-1, 2, (1, *prototype_size)).astype(np.float32)
    _assert_equal_to_reference(prototype, np.ones((1, 1), np.float32), _boxes(box), *frame_size)


@pytest.mark.parametrize("frame_size", [(1080, 1920), (480, 640), (138, 138), (50, 70)])
def test_equals_the_reference_at_the_size_of_the_published_models(frame_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    prototype = np.maximum(rng.normal(0, 1, (32, 138, 138)), 0).astype(np.float32)
    coefficient = np.tanh(rng.normal(0, 0.3, (4, 32))).astype(np.float32)
    xyxy = rng.uniform(-0.1, 1.1, (4, 4)).astype(np.float32)
    xyxy[0] = (0.1, 0.2, 0.5, 0.6)
    _assert_equal_to_reference(prototype, coefficient, xyxy, *frame_size)


@examples(100)
@given(seeds, st.lists(boxes, max_size=4), st.integers(1, 14), st.integers(1, 14), st.sampled_from([0.0, 0.5]))
def test_soft_masks_equal_the_reference(
    seed: int, rows: list[tuple[float, float, float, float]], height: int, width: int, margin: float
) -> None:
    rng = np.random.default_rng(seed)
    prototype = rng.normal(0, 5, (3, height, width)).astype(np.float32)
    coefficient = np.tanh(rng.normal(0, 1, (len(rows), 3))).astype(np.float32)
    ours = soft_masks(prototype, coefficient, _boxes(*rows), margin)
    expected = reference.soft_masks(prototype, coefficient, _boxes(*rows), margin)
    assert ours.dtype == np.float32
    assert ((ours == 0) == (expected == 0)).all()  # the crop is the same to the pixel
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-12)


# --- by hand ----------------------------------------------------------------------------------------------------------

ONE = np.ones((1, 1), np.float32)


def test_the_sigmoid_comes_before_the_threshold() -> None:
    assert assemble_masks(np.full((1, 3, 3), 0.3, np.float32), ONE, _boxes(WHOLE), 5, 7).area().tolist() == [35]
    assert assemble_masks(np.full((1, 3, 3), -0.3, np.float32), ONE, _boxes(WHOLE), 5, 7).area().tolist() == [0]


def test_a_probability_of_one_half_is_outside() -> None:
    assert assemble_masks(np.zeros((1, 3, 3), np.float32), ONE, _boxes(WHOLE), 5, 7).area().tolist() == [0]


@pytest.mark.parametrize("rising", [False, True])
def test_a_pixel_that_interpolates_to_exactly_one_half_is_outside(rising: bool) -> None:
    # Down a column the interpolated value itself decides, to the last bit: no rounding of the crossing may show.
    found = 0
    for height in (3, 5, 9, 27):
        for logit in np.arange(1, 60, dtype=np.float32) / 8:
            prototype = np.array([[[-logit], [logit]] if rising else [[logit], [-logit]]], np.float32)
            value = reference.resize_bilinear(reference.soft_masks(prototype, ONE, _boxes(WHOLE))[0], height, 1)
            found += int((value == 0.5).sum())
            assert (assemble_masks(prototype, ONE, _boxes(WHOLE), height, 1).dense()[0] == (value > 0.5)).all()
    assert found > 20


@pytest.mark.parametrize("step", [1e-5, 1e-4, 1e-3, 1e-2])
def test_a_flat_outline_beside_a_pixel_is_decided_by_that_pixel(step: float) -> None:
    """The flatter, the further the crossing moves by the rounding of a probability: still to the last bit."""
    rng, height, num_masks = np.random.default_rng(7), 24, 300
    # The outline passes within a thousandth of a pixel's middle; the probability changes by `step` from row to row.
    crossing = (rng.integers(6, 18, num_masks) + rng.uniform(-1e-3, 1e-3, num_masks) + 0.5) / 12 - 0.5
    coefficient = np.stack([-crossing, 1 - crossing], axis=1) * 4 * 12 * step
    coefficient *= rng.choice([-1, 1], (num_masks, 1))
    coefficient, prototype = coefficient.astype(np.float32), np.eye(2, dtype=np.float32)[:, :, None]
    boxes = _boxes(*[WHOLE] * num_masks)
    found = assemble_masks(prototype, coefficient, boxes, height, 1).dense()
    for mask, soft in zip(found, reference.soft_masks(prototype, coefficient, boxes), strict=True):
        assert (mask == (reference.resize_bilinear(soft, height, 1) > 0.5)).all()


@pytest.mark.parametrize(("probability", "scale"), [(0.50001, 1), (0.75, 3)])
def test_a_mask_reaches_the_lower_edge_whatever_lies_below_it(probability: float, scale: int) -> None:
    # Towards the zeros below the prototypes its outline would pass the middle of a row that the frame does not have.
    prototype = np.full((1, 3, 3), math.log(probability / (1 - probability)), np.float32)
    assert assemble_masks(prototype, ONE, _boxes(WHOLE), 3 * scale, 3).dense().all()


def test_interpolates_probabilities_not_logits() -> None:
    # Half-way between logits 9 and -2 the logit is positive; the probability is (1 + 0.12) / 2, at a quarter 0.34.
    prototype = np.array([[[9], [-2]]], np.float32)
    inside = assemble_masks(prototype, ONE, _boxes(WHOLE), 8, 1).dense()[0, :, 0]
    probability = [1 / (1 + math.exp(-9)), 1 / (1 + math.exp(2))]
    fraction = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)
    assert inside.tolist() == (probability[0] + (probability[1] - probability[0]) * fraction > 0.5).tolist()


def test_a_box_without_size_keeps_two_by_two_prototype_pixels() -> None:
    soft = soft_masks(np.full((1, 138, 138), 9, np.float32), ONE, _boxes((0.5, 0.5, 0.5, 0.5)))
    assert np.argwhere(soft[0]).tolist() == [[68, 68], [68, 69], [69, 68], [69, 69]]


def test_the_crop_is_not_rounded_and_ends_are_exclusive() -> None:
    # x: 2 - 1 <= i < 4 + 1; y: 0.08 <= i < 3.92
    soft = soft_masks(np.full((1, 8, 8), 9, np.float32), ONE, _boxes((0.25, 0.135, 0.5, 0.365)))
    inside = soft[0] > 0
    assert np.flatnonzero(inside.any(axis=0)).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(inside.any(axis=1)).tolist() == [1, 2, 3]


def test_the_crop_happens_before_upsampling() -> None:
    # Prototype columns 3 and 4 of 8 are kept; they own frame columns 12..19 of 32. A crop of the frame would keep two.
    masks = assemble_masks(np.full((1, 1, 8), 9, np.float32), ONE, _boxes((0.5, 0, 0.5, 1)), 1, 32)
    assert np.flatnonzero(masks.dense()[0, 0]).tolist() == list(range(12, 20))


def test_rows_and_columns_are_not_mixed_up() -> None:
    prototype = np.full((1, 4, 8), -9, np.float32)
    prototype[0, 1, 6] = 9
    found = np.argwhere(assemble_masks(prototype, ONE, _boxes(WHOLE), 40, 160).dense()[0])
    np.testing.assert_allclose(found.mean(axis=0), [14.5, 129.5])


def test_coefficients_combine_prototypes() -> None:
    prototype = np.stack([np.full((2, 2), 3), np.full((2, 2), 2)]).astype(np.float32)
    coefficient = np.array([[1, -1], [-1, 1], [0.5, -1]], np.float32)
    masks = assemble_masks(prototype, coefficient, _boxes(WHOLE, WHOLE, WHOLE), 2, 2)
    assert masks.area().tolist() == [4, 0, 0]


@pytest.mark.parametrize("box", [(1.2, 0, 1.5, 1), (-0.9, 0, -0.5, 1), (0, 1.2, 1, 1.5), (0, -3, 1, -2)])
def test_a_box_outside_the_image_has_no_mask(box: tuple[float, float, float, float]) -> None:
    prototype = np.full((1, 138, 138), 9, np.float32)
    assert assemble_masks(prototype, ONE, _boxes(box), 30, 30).area().tolist() == [0]


def test_a_box_just_outside_still_gets_its_padding() -> None:
    # 138 * 1.005 - 1 = 137.69: nothing. 138 * 1.0 - 1 = 137: the last column.
    prototype = np.full((1, 138, 138), 9, np.float32)
    assert assemble_masks(prototype, ONE, _boxes((1.005, 0, 1.1, 1)), 138, 138).area().tolist() == [0]
    assert assemble_masks(prototype, ONE, _boxes((1.0, 0, 1.1, 1)), 138, 138).area().tolist() == [138]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("margin", [0.0, 0.5, math.inf])
def test_a_box_that_is_not_finite_has_no_mask_and_does_not_disturb_the_others(
    place: int, bad: float, margin: float
) -> None:
    xyxy = _boxes(WHOLE, WHOLE, WHOLE)
    xyxy[1, place] = bad
    masks = assemble_masks(np.full((1, 4, 4), 9, np.float32), np.ones((3, 1), np.float32), xyxy, 6, 6, margin)
    assert masks.area().tolist() == [36, 0, 36]
    assert not soft_masks(np.full((1, 4, 4), 9, np.float32), np.ones((3, 1), np.float32), xyxy, margin)[1].any()


def test_swapped_corners_are_put_in_order() -> None:
    prototype = np.random.default_rng(0).normal(0, 3, (1, 9, 9)).astype(np.float32)
    one = assemble_masks(prototype, ONE, _boxes((0.2, 0.3, 0.6, 0.8)), 33, 44)
    assert one == assemble_masks(prototype, ONE, _boxes((0.6, 0.8, 0.2, 0.3)), 33, 44)
    assert one.area()[0] > 0


def test_an_infinite_margin_gives_the_uncropped_mask_wherever_the_box_is() -> None:
    prototype = np.full((1, 4, 4), 9, np.float32)
    far = _boxes((0.5, 0.5, 0.5, 0.5), (40, 40, 41, 41))
    assert assemble_masks(prototype, np.ones((2, 1), np.float32), far, 10, 10, math.inf).area().tolist() == [100, 100]


def test_a_margin_widens_the_crop_by_a_fraction_of_the_box() -> None:
    prototype = np.full((1, 1, 100), 9, np.float32)
    box = _boxes((0.375, 0, 0.625, 1))
    assert assemble_masks(prototype, ONE, box, 1, 100).bounds()[0].tolist() == [37, 0, 64, 1]
    assert assemble_masks(prototype, ONE, box, 1, 100, margin=0.5).bounds()[0].tolist() == [24, 0, 76, 1]


def test_extreme_logits_do_not_warn() -> None:
    prototype = np.array([[[1e30, -1e30]]], np.float32)
    assert assemble_masks(prototype, ONE, _boxes(WHOLE), 1, 2).dense().tolist() == [[[True, False]]]


def test_no_boxes_give_no_masks() -> None:
    masks = assemble_masks(np.zeros((2, 4, 4), np.float32), np.zeros((0, 2), np.float32), _boxes(), 5, 6)
    assert masks.dense().shape == (0, 5, 6)
    assert soft_masks(np.zeros((2, 4, 4), np.float32), np.zeros((0, 2), np.float32), _boxes()).shape == (0, 4, 4)


@pytest.mark.parametrize("frame_size", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_frames_smaller_than_the_prototypes(frame_size: tuple[int, int]) -> None:
    prototype = np.full((1, 138, 138), 9, np.float32)
    assert assemble_masks(prototype, ONE, _boxes(WHOLE), *frame_size).dense().all()
    noisy = np.random.default_rng(1).normal(0, 3, (1, 138, 138)).astype(np.float32)
    _assert_equal_to_reference(noisy, ONE, _boxes(WHOLE), *frame_size)


def test_prototypes_of_any_strides() -> None:
    prototype = np.random.default_rng(2).normal(0, 3, (9, 7, 2)).astype(np.float32)
    view = prototype.transpose(2, 0, 1)[:, ::-1]
    coefficient = np.array([[0.5, -0.7]], np.float32)
    ours = assemble_masks(view, coefficient, _boxes(WHOLE), 30, 20)
    assert ours == assemble_masks(view.copy(), coefficient, _boxes(WHOLE), 30, 20)


def test_inputs_are_only_read() -> None:
    arrays = (np.full((1, 4, 4), 9, np.float32), ONE.copy(), _boxes(WHOLE))
    for array in arrays:
        array.flags.writeable = False
    assemble_masks(*arrays, 5, 5)
    soft_masks(*arrays)


@pytest.mark.parametrize(
    ("prototype", "coefficient", "xyxy"),
    [
        ((4, 4), (1, 1), (1, 4)),
        ((1, 2, 4, 4), (1, 2), (1, 4)),
        ((2, 4, 4), (1, 3), (1, 4)),
        ((2, 4, 4), (2, 2), (1, 4)),
        ((2, 4, 4), (2,), (1, 4)),
        ((2, 4, 4), (1, 2), (1, 5)),
        ((2, 4, 4), (4, 2), (4,)),
    ],
)
def test_arrays_that_disagree_are_refused(
    prototype: tuple[int, ...], coefficient: tuple[int, ...], xyxy: tuple[int, ...]
) -> None:
    arrays = [np.zeros(shape, np.float32) for shape in (prototype, coefficient, xyxy)]
    with pytest.raises(ShapeError, match="mask assembly requires"):
        assemble_masks(*arrays, 5, 5)
    with pytest.raises(ShapeError, match="mask assembly requires"):
        soft_masks(*arrays)
