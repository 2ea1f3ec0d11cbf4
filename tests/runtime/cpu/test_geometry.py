from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins import reference
from yolact_runtime.cpu.geometry import crop_windows, linear_taps

lengths = st.integers(1, 64)
ends = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, 2.0, 1e-7, 1e6, -1e6, 3e38, -3e38, math.nan, math.inf, -math.inf]),
    st.integers(-40, 80).map(lambda pixel: pixel / 32),
    st.floats(-2, 3, width=32),
)


def _apply(source: npt.NDArray[np.float32], target: int) -> npt.NDArray[np.float32]:
    taps = linear_taps(len(source), target)
    return source[taps.low] * (1 - taps.fraction) + source[taps.high] * taps.fraction


def test_taps_by_hand() -> None:
    taps = linear_taps(2, 4)  # centres at -0.25, 0.25, 0.75 and 1.25; the first and the last stay at the edge
    assert taps.low.tolist() == [0, 0, 0, 1]
    assert taps.high.tolist() == [1, 1, 1, 1]
    assert taps.fraction.tolist() == [0, 0.25, 0.75, 0]  # low and high are the same pixel at the end
    assert taps.first.tolist() == [0, 3, 4]
    assert (taps.source, taps.target) == (2, 4)


@examples(150)
@given(lengths, st.integers(1, 200))
@example(3, 9)
@example(1, 1)
@example(138, 1)
@example(1, 500)
def test_taps_are_a_well_formed_interpolation(source: int, target: int) -> None:
    taps = linear_taps(source, target)
    assert (np.diff(taps.low) >= 0).all()
    assert ((taps.high == taps.low + 1) | (taps.low == source - 1)).all()
    assert (taps.high < source).all()
    assert ((taps.fraction >= 0) & (taps.fraction <= 1)).all()
    assert taps.first.tolist() == [int((taps.low < c).sum()) for c in range(source + 1)]
    assert taps.fraction.dtype == np.float32


@examples(100)
@given(st.integers(0, 2**32 - 1), lengths, lengths)
def test_taps_equal_pytorch_and_opencv(seed: int, source: int, target: int) -> None:
    torch = pytest.importorskip("torch")
    signal = np.random.default_rng(seed).uniform(0, 255, source).astype(np.float32)
    ours = _apply(signal, target)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(signal)[None, None], target, mode="linear", align_corners=False
    )
    opencv = cv2.resize(signal[None], (target, 1), interpolation=cv2.INTER_LINEAR)
    # Their positions are float32: off by up to 64 * 2^-23 pixels, of up to 255 each.
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), rtol=0, atol=255 * 2**-16)
    np.testing.assert_allclose(ours, opencv[0], rtol=0, atol=255 * 2**-16)


@examples(50)
@given(lengths, lengths)
def test_constants_stay_constant(source: int, target: int) -> None:
    np.testing.assert_allclose(_apply(np.full(source, 77, np.float32), target), 77, rtol=2**-22)


@examples(100)
@given(st.integers(2, 64), lengths)
def test_a_ramp_of_coordinates_maps_back_to_the_pixels_it_was_sampled_at(source: int, target: int) -> None:
    # The value at target pixel i is the source coordinate of its centre: the inverse transform gives i back.
    coordinate = _apply(np.arange(source, dtype=np.float32), target).astype(np.float64)
    back = (coordinate + 0.5) * target / source - 0.5
    inner = (coordinate > 1e-4) & (coordinate < source - 1 - 1e-4)  # outside, the edge is repeated
    np.testing.assert_allclose(back[inner], np.arange(target)[inner], rtol=0, atol=1e-4 * max(1, target / source))


def test_taps_are_cached_and_cannot_be_changed() -> None:
    taps = linear_taps(5, 9)
    assert linear_taps(5, 9) is taps
    for array in (taps.low, taps.high, taps.fraction, taps.first):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


# --- crop windows -----------------------------------------------------------------------------------------------------


def _window(low: float, high: float, size: int, margin: float = 0.0) -> tuple[int, int]:
    first, last = crop_windows(np.array([low], np.float32), np.array([high], np.float32), size, margin)
    assert first.shape == last.shape == (1,)
    return int(first[0]), int(last[0])


def test_a_box_without_size_keeps_one_pixel_of_padding() -> None:
    assert _window(0.5, 0.5, 138) == (68, 70)


@pytest.mark.parametrize(
    ("low", "high", "size", "expected"),
    [
        (0.25, 0.5, 8, (1, 5)),  # 2 - 1 <= i < 4 + 1: an end on a pixel is exclusive
        (0.26, 0.51, 8, (2, 6)),  # 1.08 <= i < 5.08: corners are not rounded
        (0.24, 0.49, 8, (1, 5)),  # 0.92 <= i < 4.92
        (0.5, 0.25, 8, (1, 5)),  # corners in any order
        (0.0, 1.0, 8, (0, 8)),
        (-9.0, 9.0, 8, (0, 8)),
    ],
)
def test_windows_by_hand(low: float, high: float, size: int, expected: tuple[int, int]) -> None:
    assert _window(low, high, size) == expected


@pytest.mark.parametrize(
    ("low", "high"), [(1.2, 1.3), (-1.3, -1.2), (math.nan, 0.5), (0.5, math.nan), (-math.inf, 0.5), (0.5, math.inf)]
)
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_nothing_is_inside_a_box_that_is_elsewhere_or_not_finite(low: float, high: float, margin: float) -> None:
    first, last = _window(low, high, 138, margin)
    assert first >= last


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.3), (0.5, 0.5), (10.0, 11.0), (-3e38, 3e38)])
def test_an_infinite_margin_does_not_crop_wherever_the_box_is(low: float, high: float) -> None:
    assert _window(low, high, 138, math.inf) == (0, 138)


def test_an_infinite_margin_still_drops_a_box_that_is_not_finite() -> None:
    first, last = _window(math.nan, 0.5, 138, math.inf)
    assert first >= last


def test_a_margin_reaches_as_far_as_the_box_is_long() -> None:
    assert _window(0.375, 0.625, 100, 0.5) == (24, 76)
    assert _window(10, 12, 100, 6) == (0, 100)


@examples(400)
@given(ends, ends, st.integers(1, 64), st.sampled_from([0.0, 0.1, 0.5, 1.0, 10.0, math.inf]))
def test_windows_equal_the_reference(low: float, high: float, size: int, margin: float) -> None:
    expected = reference.crop_window(float(np.float32(low)), float(np.float32(high)), size, margin)
    found = _window(low, high, size, margin)
    assert found == expected or (found[0] >= found[1] and expected[0] >= expected[1])


def test_windows_of_no_boxes_are_empty_arrays() -> None:
    none = np.zeros(0, np.float32)
    for margin in (0.0, 0.5, math.inf):
        assert [len(part) for part in crop_windows(none, none, 8, margin)] == [0, 0]
