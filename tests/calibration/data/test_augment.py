from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.data.augment import (
    AugmentOptions,
    Window,
    choose_window,
    distort_colours,
    normalise,
    sample_image,
    sample_masks,
)
from yolact_calibration.errors import UsageError
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.manifest import InputSpec

Array = np.ndarray[Any, Any]
SPEC = InputSpec(40, 56, (103.94, 116.78, 123.68), (57.38, 57.12, 58.40), "RGB")
CHANCE = st.integers(0, 2**31).map(np.random.default_rng)


def whole(image: Array) -> Window:
    return Window(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))


def noise(rng: np.random.Generator, height: int, width: int) -> Array:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@examples(40)
@given(rng=CHANCE, height=st.integers(1, 70), width=st.integers(1, 70), order=st.sampled_from(["RGB", "BGR"]))
def test_the_whole_image_is_what_the_runtime_feeds(
    rng: np.random.Generator, height: int, width: int, order: str
) -> None:
    image = noise(rng, height, width)
    spec = dataclasses.replace(SPEC, channel_order=order)
    pixels, inside = sample_image(image, whole(image), spec.height, spec.width)
    assert inside.all()
    np.testing.assert_allclose(normalise(pixels, spec, inside), preprocess(image, spec)[0], atol=1e-4)


@examples(40)
@given(rng=CHANCE, height=st.integers(1, 40), width=st.integers(1, 40), count=st.integers(0, 3))
def test_the_whole_image_at_its_own_size_is_itself(
    rng: np.random.Generator, height: int, width: int, count: int
) -> None:
    image, dense = noise(rng, height, width), rng.random((count, height, width)) < 0.5
    pixels, inside = sample_image(image, whole(image), height, width)
    np.testing.assert_array_equal(pixels, image)
    assert inside.all()
    np.testing.assert_array_equal(sample_masks(dense, whole(image), height, width), dense)


@examples(40)
@given(rng=CHANCE)
def test_a_mirrored_window_is_the_window_mirrored(rng: np.random.Generator) -> None:
    image, dense = noise(rng, 31, 22), rng.random((2, 31, 22)) < 0.5
    window = Window(*rng.uniform(-8, 8, 2), *rng.uniform(10, 40, 2))
    mirrored = dataclasses.replace(window, mirrored=True)
    plain, inside = sample_image(image, window, 24, 17)
    flipped, flipped_inside = sample_image(image, mirrored, 24, 17)
    np.testing.assert_allclose(flipped, plain[:, ::-1], atol=1e-3)
    np.testing.assert_array_equal(flipped_inside, inside[:, ::-1])
    np.testing.assert_array_equal(
        sample_masks(dense, mirrored, 24, 17), sample_masks(dense, window, 24, 17)[:, :, ::-1]
    )


@examples(60)
@given(rng=CHANCE, mirrored=st.booleans())
def test_a_painted_shape_stays_under_its_mask(rng: np.random.Generator, mirrored: bool) -> None:
    mask = np.zeros((60, 80), bool)
    y, x = np.mgrid[:60, :80]
    for _ in range(3):
        cx, cy, rx, ry = *rng.uniform(0, 60, 2), *rng.uniform(6, 25, 2)
        mask |= ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    image = np.where(mask[:, :, None], np.uint8(200), np.uint8(0)) * np.ones(3, np.uint8)
    window = Window(*rng.uniform(-40, 40, 2), *rng.uniform(15, 150, 2), mirrored=mirrored)
    pixels, inside = sample_image(image, window, 48, 64)
    (sampled,) = sample_masks(mask[None], window, 48, 64)
    assert not sampled[~inside].any()
    # In the middle of a pixel both agree; across an edge, interpolation may say either.
    painted = pixels[:, :, 1]
    np.testing.assert_array_equal(sampled[(painted > 160) & inside], True)
    np.testing.assert_array_equal(sampled[(painted < 40) & inside], False)


def test_pixels_are_taken_from_where_the_window_says() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :, 0] = np.arange(30)  # blue says the column
    image[:, :, 1] = 3 * np.arange(20)[:, None]  # green the row
    pixels, inside = sample_image(image, Window(4.0, 6.0, 12.0, 8.0), 4, 6)
    assert inside.all()
    # Centres of 2 x 2 source pixels: half-way between two of them.
    np.testing.assert_allclose(pixels[0, :, 0], [4.5, 6.5, 8.5, 10.5, 12.5, 14.5], atol=1e-5)
    np.testing.assert_allclose(pixels[:, 0, 1] / 3, [6.5, 8.5, 10.5, 12.5], atol=1e-5)


def test_beyond_the_image_the_mean_is_filled_in() -> None:
    image = np.full((10, 10, 3), 255, np.uint8)
    window = Window(-10.0, -5.0, 30.0, 20.0)
    pixels, inside = sample_image(image, window, 40, 60)
    expected = np.zeros((40, 60), bool)
    expected[10:30, 20:40] = True
    np.testing.assert_array_equal(inside, expected)
    spec = dataclasses.replace(SPEC, height=40, width=60)
    planes = normalise(pixels, spec, inside)
    assert not planes[:, ~inside].any()
    mean, std = np.array(spec.mean_bgr[::-1]), np.array(spec.std_bgr[::-1])
    np.testing.assert_allclose(planes[:, 20, 30], (255 - mean) / std, rtol=1e-5)
    masks = sample_masks(np.ones((1, 10, 10), bool), window, 40, 60)
    np.testing.assert_array_equal(masks[0], expected)


def test_a_window_beside_the_image_shows_nothing() -> None:
    pixels, inside = sample_image(np.full((10, 10, 3), 9, np.uint8), Window(20.0, 0.0, 5.0, 5.0), 8, 8)
    assert not inside.any()
    assert not pixels.any()
    assert not sample_masks(np.ones((2, 10, 10), bool), Window(0.0, -9.0, 5.0, 5.0), 8, 8).any()


@examples(60)
@given(rng=CHANCE)
def test_colours_change_in_one_linear_step_and_are_clipped(rng: np.random.Generator) -> None:
    seed = int(rng.integers(2**31))
    # Mid-gray neighbours that no change clips tell the step; the rest has to follow it.
    inner = rng.uniform(95, 110, (8, 1, 3)).astype(np.float32)
    outer = rng.uniform(0, 255, (50, 1, 3)).astype(np.float32)
    before = outer.copy()
    small = distort_colours(inner, np.random.default_rng(seed))
    found = distort_colours(outer, np.random.default_rng(seed))
    np.testing.assert_array_equal(outer, before)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 255
    if small.min() <= 0 or small.max() >= 255:
        return
    with_one = np.concatenate([inner[:, 0], np.ones((8, 1))], axis=1).astype(float)
    step, *_ = np.linalg.lstsq(with_one, small[:, 0].astype(float), rcond=None)
    expected = np.concatenate([outer[:, 0], np.ones((50, 1))], axis=1) @ step
    np.testing.assert_allclose(found[:, 0], np.clip(expected, 0, 255), atol=0.5)


def test_colour_changes_are_of_the_stated_size() -> None:
    gray = np.full((1, 1, 3), 120, np.float32)
    rng = np.random.default_rng(0)
    values = np.array([distort_colours(gray, rng)[0, 0] for _ in range(2000)])
    # Saturation and hue leave gray as it is: brightness moves it by 32, contrast by a half.
    np.testing.assert_allclose(values, values[:, :1].repeat(3, axis=1), atol=0.1)
    assert (np.abs(values[:, 0] - 120) < 0.1).mean() == pytest.approx(0.25, abs=0.05)
    assert values.min() >= 0.5 * 120 - 32 - 0.1
    assert values.max() <= 1.5 * 120 + 32 + 0.1
    assert values.min() < 45
    assert values.max() > 195


def test_hue_and_saturation_keep_the_brightness() -> None:
    luma = np.array([0.114, 0.587, 0.299])
    colour = np.array([[[90, 120, 150]]], np.float32)
    for seed in range(200):
        chance = np.random.default_rng(seed)
        changed = distort_colours(colour, chance)[0, 0]
        again = np.random.default_rng(seed)
        offset = again.uniform(-32, 32) if again.random() < 0.5 else 0.0
        factor = again.uniform(0.5, 1.5) if again.random() < 0.5 else 1.0
        if changed.min() > 0 and changed.max() < 255:
            assert changed @ luma == pytest.approx(colour[0, 0] @ luma * factor + offset, abs=0.2)


def boxes_of(rng: np.random.Generator, count: int) -> Array:
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate([low, low + rng.uniform(4, 40, (count, 2))], axis=1).astype(np.float32)


@examples(150)
@given(rng=CHANCE, count=st.integers(0, 4))
def test_a_window_keeps_what_ssd_promises(rng: np.random.Generator, count: int) -> None:
    height, width = 100, 120
    boxes = boxes_of(rng, count)
    window = choose_window(height, width, boxes, AugmentOptions(), rng)
    assert window.width > 0
    assert window.height > 0
    # Part of a canvas at most four times as large, in which the image lies.
    assert -3 * width <= window.left <= width
    assert window.left + window.width <= 4 * width + 1e-6
    if not window.is_crop:
        assert window.left <= 0
        assert window.top <= 0
        assert window.left + window.width >= width - 1e-6
        assert window.width / window.height == pytest.approx(width / height)
        return
    assert 0.5 <= window.height / window.width <= 2
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre > [window.left, window.top]) & (centre < [window.left + window.width, window.top + window.height])
    assert inside.all(axis=1).any()


def test_without_augmentation_the_window_is_the_image() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert choose_window(10, 20, boxes_of(rng, 2), AugmentOptions.none(), rng) == Window(0.0, 0.0, 20.0, 10.0)


def test_every_kind_of_window_occurs_as_often_as_it_should() -> None:
    rng = np.random.default_rng(1)
    box = np.array([[20, 20, 90, 80]], np.float32)
    windows = [choose_window(100, 120, box, AugmentOptions(), rng) for _ in range(1500)]
    assert np.mean([window.mirrored for window in windows]) == pytest.approx(0.5, abs=0.05)
    assert 0.5 < np.mean([window.is_crop for window in windows]) < 0.84
    only_expanded = [choose_window(100, 120, box, AugmentOptions(crop=False), rng) for _ in range(1500)]
    ratios = np.array([window.width / 120 for window in only_expanded])
    assert (ratios > 1).mean() == pytest.approx(0.5, abs=0.05)
    assert ratios[ratios > 1].mean() == pytest.approx(2.5, abs=0.15)


def test_the_same_chance_gives_the_same_window() -> None:
    box = np.array([[20, 20, 90, 80]], np.float32)
    first, second = (choose_window(100, 120, box, AugmentOptions(), np.random.default_rng(5)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("expand", [0.5, 0.0, -1.0, 17.0, float("nan")])
def test_a_senseless_expansion_is_refused(expand: float) -> None:
    with pytest.raises(UsageError, match="expand must be 1"):
        AugmentOptions(expand=expand)
