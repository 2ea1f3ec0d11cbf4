"""The kernels of mask assembly against the reference and the runtime, on the host."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernel_host import kernels_of, needs_kernels, poisoned
from support.mask_scenes import (
    Assembled,
    Float,
    Scene,
    assemble,
    dense,
    id_map,
    make_scene,
    runs,
    unpack,
)
from support.properties import example_count, examples, some_of
from yolact_plugins import reference
from yolact_plugins.frame_status import FrameStatus
from yolact_runtime.masks.masks import Masks

pytestmark = needs_kernels()

CASES_IN_AN_EXAMPLE = 5 if example_count(60) > 2 else 1


def tolerance(scene: Scene) -> Float:
    """``(n,)`` error of a probability: K fused products in another order, at the sigmoid's slope of 1/4, and exp()."""
    prototype, coefficient = (np.abs(array.astype(np.float32)) for array in (scene.prototype, scene.coefficient))
    largest = coefficient[scene.prior] @ prototype.max(axis=(1, 2), initial=0)
    error: Float = 2.0**-24 * (len(prototype) * largest / 2 + 16)
    return error


def check(scene: Scene, seed: int = 0, clear_share: float = 0.0) -> Assembled:
    """Compare all kernels; at least `clear_share` of the pixels have to be clear of rounding."""
    result = assemble(scene, seed=seed)
    assert result.status[0] == 0
    prototype, coefficient = (array.astype(np.float32) for array in (scene.prototype, scene.coefficient))
    size, n = scene.prototype.shape[1:], len(scene.xyxy)
    soft = reference.soft_masks(prototype, coefficient[scene.prior], scene.xyxy, scene.margin)
    error = tolerance(scene)[:, None, None]
    for i, (left, right, top, bottom) in enumerate(result.window[:n, :4].tolist()):
        x1, y1, x2, y2 = scene.xyxy[i].tolist()
        assert (left, right) == reference.crop_window(x1, x2, size[1], scene.margin)
        assert (top, bottom) == reference.crop_window(y1, y2, size[0], scene.margin)
    if scene.fill:
        assert (np.abs(result.soft[:n] - soft) <= error).all()
    found = unpack(result)
    value = np.stack([reference.resize_bilinear(mask, scene.height, scene.width) for mask in soft]) if n else found
    # The pixel decides where its value is clear of one half by more than both sides' rounding.
    clear = np.abs(value - np.float32(0.5)) > error + 2.0**-21
    assert (found == (value > 0.5))[clear].all()
    assert clear.sum() >= clear_share * clear.size
    assert (dense(result) == found).all()
    assert (id_map(result) == reference.id_map(found)).all()
    offset, start, end = runs(result, found.size + 1)
    mask = np.repeat(np.arange(n), np.diff(offset))
    joined = Masks.from_runs(mask, start.astype(np.int64), end.astype(np.int64), n, scene.height, scene.width)
    assert joined == Masks.from_dense(found)
    return result


def exact_masks(soft: Float, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Across columns first, then down the rows, every operation rounded: what each pixel of the kernel computes to."""
    columns, rows = taps(soft.shape[2], width), taps(soft.shape[1], height)
    across = soft[:, :, columns[0]] * (1 - columns[2]) + soft[:, :, columns[1]] * columns[2]
    weight = rows[2][:, None]
    return across[:, rows[0]] * (1 - weight) + across[:, rows[1]] * weight > 0.5


def taps(source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float]:
    """As in ``linear_taps.cuh``: lower and upper tap, and the upper one's weight."""
    numerator = np.maximum((2 * np.arange(target) + 1) * source - target, 0)
    low = np.minimum(numerator // (2 * target), source - 1)
    fraction = (numerator - low * 2 * target).astype(np.float32) / np.float32(2 * target)
    return low, np.minimum(low + 1, source - 1), np.where(low == source - 1, np.float32(0), fraction)


def whole_frame(frame: tuple[int, int], proto: tuple[int, int], n: int = 1) -> Scene:
    """Masks without a crop."""
    one = np.ones((1, 1), np.float32)
    prior, boxes = np.zeros(n, np.int32), np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
    return Scene(np.zeros((1, *proto), np.float32), one, prior, boxes, *frame, margin=np.inf)


sides = st.one_of(st.integers(1, 12), st.integers(1, 100))


@examples(110)
@given(st.integers(0, 2**32 - 1), sides, sides)
def test_kernels_equal_the_reference(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES_IN_AN_EXAMPLE):
        prototype = (int(rng.integers(1, 40)), int(rng.integers(1, 30)), int(rng.integers(1, 30)))
        n = int(rng.choice([0, 1, 3, 9]))
        check(make_scene(rng, n, (height, width), prototype), seed % 5)


@examples(120)
@given(st.integers(0, 2**32 - 1))
def test_every_pixel_is_decided_as_if_computed_by_itself(seed: int) -> None:
    """Words are settled by the sides of probabilities, or by where a column crosses one half; these lie close to it."""
    rng = np.random.default_rng(seed)
    height, width = map(int, rng.choice([1, 2, 5, 31, 32, 33, 64, 65, 100, 129, 300, 555], 2))
    scene = make_scene(rng, int(rng.integers(1, 5)), (height, width), (1, *map(int, rng.integers(1, 40, 2))))
    shape = (len(scene.xyxy), *scene.prototype.shape[1:])
    steps = rng.integers(-8, 9, shape) * 2.0 ** -rng.integers(16, 26, shape)
    soft = np.clip(rng.choice(rng.random(8), shape) if seed % 3 else rng.choice([0, 0.25, 0.5, 0.75, 1], shape), 0, 1)
    soft = np.where(rng.random(shape) < 0.5, np.clip(rng.choice([soft, 0.5 + 0 * soft]) + steps, 0, 1), soft)
    given = soft.astype(np.float32)
    result = assemble(scene, seed=seed % 5, wanted_tasks=int(rng.choice([1, 7, 1000])), given=given)
    cropped = np.zeros_like(given)
    for into, mask, (left, right, top, bottom) in zip(cropped, given, result.window[:, :4].tolist(), strict=False):
        into[top:bottom, left:right] = mask[top:bottom, left:right]
    assert (unpack(result) == exact_masks(cropped, height, width)).all()


@examples(40)
@given(st.sampled_from([(3, 3), (3, 24), (3, 1000), (138, 1080), (100, 60)]), st.integers(16, 24))
def test_gradients_that_cross_one_half_slowly(sizes: tuple[int, int], exponent: int) -> None:
    """The slower a column crosses one half, the nearer its rows come to it, on both sides of the margins."""
    rows, height = sizes
    given = np.full((1, rows, 33), 0.5, np.float32)
    offsets = np.linspace(-2, 2, rows)[:, None] * np.linspace(-1, 1, 33) + np.linspace(-0.5, 0.5, 33)
    given += (offsets * 2.0**-exponent).astype(np.float32)
    result = assemble(whole_frame((height, 40), (rows, 33)), given=given)
    assert (unpack(result) == exact_masks(given, height, 40)).all()


@examples(150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2000))
def test_there_is_room_for_as_many_tasks_as_there_can_be(seed: int, wanted: int) -> None:
    """The runtime takes room for so many; large frames, because a task has at least four words."""
    rng = np.random.default_rng(seed)
    n, (height, width) = int(rng.integers(1, 6)), map(int, rng.integers(1, 5000, 2))
    sides = np.int32(138), np.int32(138), np.int32(height), np.int32(width)
    xyxy = rng.uniform(-0.2, 1.2, (n, 4)).astype(np.float32)
    window, offset, plan = (
        poisoned(shape, dtype) for shape, dtype in (((n, 8), np.int32), (n + 1, np.int64), ((n + 1, 4), np.int32))
    )
    settings = [*sides, np.float32(rng.choice([0, np.inf])), np.int64(1 << 40), np.int32(wanted)]
    outputs = [window, offset, plan, np.zeros(1, np.uint32)]
    kernels_of("mask_assembly")("mask_layout", (1,), (256,), [xyxy, np.array([n], np.int32), *settings, *outputs])
    assert plan[0, 1] <= wanted + n * (-(-width // 32) + -(-height // 32))
    words = (window[:, 5].astype(np.int64) * window[:, 7]).sum()
    assert offset[n] == words
    assert plan[0, 3] == max(4, -(-words // (32 * wanted)))


@pytest.mark.parametrize("wanted", [1, 5, 1000])
def test_tasks_hold_all_strips_once(wanted: int) -> None:
    rng = np.random.default_rng(9)
    scene = make_scene(rng, 40, (300, 100), (2, 30, 30))
    result = assemble(scene, wanted_tasks=wanted)
    words, columns = result.window[:40, 5], result.window[:40, 7]
    task_words = int(result.plan[0, 3])
    assert task_words == max(4, -(-int((words * columns).sum()) // (32 * wanted)))
    strips = -(-columns // 32)
    sizes = np.stack([strips, strips * -(-words // task_words)], axis=1)
    before = np.concatenate([np.zeros((1, 2)), sizes.cumsum(axis=0)])
    assert (result.plan[1:41, :2] == before[:-1]).all()
    assert (result.plan[0, :2] == before[-1]).all()
    tasks = int(result.plan[0, 1])
    assert tasks <= len(result.task_runs)
    assert (result.task_runs[tasks:].view(np.uint8) == 0xCD).all()
    assert (unpack(result) == unpack(assemble(scene))).all()


@examples(30)
@given(
    st.lists(st.sampled_from([-3, 0, 0.5, 1, 4]), min_size=4, max_size=4),
    st.sampled_from([(1, 1), (33, 31), (64, 96), (31, 300)]),
)
def test_windows_that_touch_borders(box: list[float], frame: tuple[int, int]) -> None:
    scene = make_scene(np.random.default_rng(10), 1, frame, (3, 9, 11))
    check(dataclasses.replace(scene, xyxy=np.array([box], np.float32), margin=0.0, fill=False))


@pytest.mark.parametrize(("height", "width"), [(2, 7680), (4320, 3), (1, 16384), (138, 138)])
def test_huge_and_thin_frames(height: int, width: int) -> None:
    rng = np.random.default_rng(1)
    for seed in range(3 if CASES_IN_AN_EXAMPLE > 1 else 1):
        check(make_scene(rng, 4, (height, width), (32, 138, 138)), seed, clear_share=0.98)


def test_a_probability_of_one_half_is_outside() -> None:
    rng = np.random.default_rng(8)
    scene = make_scene(rng, 3, (20, 40), (4, 20, 40))
    scene.coefficient[:] = 0
    scene.xyxy[:] = [0, 0, 1, 1]
    result = assemble(scene)  # as large as the prototypes: nothing is interpolated, nothing rounded
    assert not unpack(result).any()


def test_masks_of_the_whole_frame() -> None:
    scene = whole_frame((75, 90), (20, 30), 3)
    result = assemble(scene, given=np.ones((3, 20, 30), np.float32))
    assert unpack(result).all()
    assert result.offset[3] == 3 * 3 * 90
    offset, start, end = runs(result, 1000)
    assert offset.tolist() == [0, 90, 180, 270]
    assert start.tolist() == [*range(0, 75 * 90, 75)] * 3
    assert (end - start == 75).all()
    assert (id_map(result) == 1).all()


def test_more_than_a_hundred_detections() -> None:
    rng = np.random.default_rng(2)
    check(make_scene(rng, 256, (40, 70), (8, 20, 20)), seed=1, clear_share=0.999)


def test_a_box_of_one_pixel_keeps_two_by_two_prototype_pixels() -> None:
    scene = Scene(
        np.full((1, 138, 138), 4, np.float32),
        np.ones((1, 1), np.float32),
        np.zeros(1, np.int32),
        np.full((1, 4), 0.5, np.float32),
        138,
        138,
    )
    result = check(scene)
    assert result.window[0, :4].tolist() == [68, 70, 68, 70]
    assert np.argwhere(unpack(result)[0]).tolist() == [[68, 68], [68, 69], [69, 68], [69, 69]]


def test_an_arena_that_is_too_small_is_reported_and_not_overrun() -> None:
    rng = np.random.default_rng(3)
    whole = assemble(dataclasses.replace(make_scene(rng, 6, (50, 70), (4, 16, 16)), margin=0.1))
    need = int(whole.offset[6])
    masks = unpack(whole)
    assert unpack(assemble(whole.scene, arena_words=need)).tolist() == masks.tolist()
    for words in some_of(need):
        result = assemble(whole.scene, arena_words=words)
        assert result.status[0] == FrameStatus.ARENA_OVERFLOW
        assert int(result.offset[6]) == need
        fits = result.window[:6, 7] > 0
        assert (unpack(result)[fits] == masks[fits]).all()
        assert (id_map(result) == reference.id_map(unpack(result))).all()
        assert (dense(result) == unpack(result)).all()


def test_values_that_are_not_finite_are_reported() -> None:
    rng = np.random.default_rng(5)
    scene = dataclasses.replace(make_scene(rng, 2, (20, 20), (4, 8, 8)), margin=np.inf)
    scene.xyxy[:] = [0, 0, 1, 1]
    for array in (scene.prototype, scene.coefficient):
        kept = array.copy()
        array[:] = np.nan
        assert assemble(scene).status[0] == FrameStatus.NOT_FINITE
        array[:] = kept
    assert assemble(scene).status[0] == 0


def test_more_prototypes_than_the_kernel_holds_are_reported() -> None:
    rng = np.random.default_rng(6)
    assert assemble(make_scene(rng, 1, (8, 8), (257, 4, 4))).status[0] == FrameStatus.LIMIT


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    scene = make_scene(rng, 20, (60, 90), (8, 20, 20))
    first, *others = [assemble(scene, seed=seed) for seed in (0, 1, 2)]
    for other in others:
        assert (unpack(other) == unpack(first)).all()
        assert (id_map(other) == id_map(first)).all()
