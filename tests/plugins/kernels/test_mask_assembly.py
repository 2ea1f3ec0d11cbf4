"""The kernels of mask assembly against the reference and the runtime, on the host."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernel_host import kernels_of, needs_kernels, poisoned
from support.properties import example_count, examples, some_of
from yolact_plugins import reference
from yolact_runtime.masks.masks import Masks

pytestmark = needs_kernels()

Float = npt.NDArray[np.float32]
NOT_FINITE, LIMIT, ARENA_OVERFLOW, RUN_OVERFLOW = 1, 4, 8, 16
CASES_IN_AN_EXAMPLE = 5 if example_count(60) > 2 else 1
KERNELS = "mask_assembly"


@dataclass(frozen=True)
class Scene:
    """Detections of one frame, with the network's outputs behind them."""

    prototype: npt.NDArray[Any]  # (K, Hp, Wp)
    coefficient: npt.NDArray[Any]  # (P, K)
    prior: npt.NDArray[np.int32]  # (n,)
    xyxy: Float  # (n, 4)
    height: int
    width: int
    margin: float = 0.0
    fill: bool = False

    @property
    def frame(self) -> tuple[np.int32, np.int32]:
        return np.int32(self.height), np.int32(self.width)


class Assembled(NamedTuple):
    """What the kernels made, in their own buffers."""

    scene: Scene
    num_detections: npt.NDArray[np.int32]
    window: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    soft: Float
    arena: npt.NDArray[np.uint32]
    status: npt.NDArray[np.uint32]
    seed: int

    @property
    def bits(self) -> list[npt.NDArray[Any]]:
        return [self.arena, self.window, self.offset, self.num_detections]


def make_scene(rng: np.random.Generator, n: int, frame: tuple[int, int], proto: tuple[int, int, int]) -> Scene:
    centre, size = rng.uniform(-0.2, 1.2, (n, 2)), rng.choice([0.02, 0.2, 0.6, 1.5], (n, 1)) * rng.random((n, 2))
    xyxy = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    odd = rng.random(n)
    xyxy[odd < 0.05] += 3  # far outside
    xyxy[(odd > 0.05) & (odd < 0.1)] = xyxy[(odd > 0.05) & (odd < 0.1)][:, [2, 3, 0, 1]]
    xyxy[(odd > 0.1) & (odd < 0.15), 2:] = xyxy[(odd > 0.1) & (odd < 0.15), :2]
    xyxy[(odd > 0.15) & (odd < 0.18), 1] = rng.choice([np.nan, np.inf, -3e38])
    priors = n + int(rng.integers(1, 5))
    dtype = rng.choice(["float32", "float16"])
    return Scene(
        # Not cut off at 0 as a network's are: where all are 0 every probability is one half, and rounding decides.
        rng.normal(0, 1.5, proto).astype(dtype),
        np.tanh(rng.normal(0, 1, (priors, proto[0]))).astype(dtype),
        rng.integers(0, priors, n).astype(np.int32),
        xyxy,
        *frame,
        margin=float(rng.choice([0.0, 0.0, 0.1, 2.5, np.inf])),
        fill=bool(rng.integers(2)),
    )


def assemble(scene: Scene, arena_words: int | None = None, room: int = 2, seed: int = 0) -> Assembled:
    kernels = kernels_of(KERNELS)
    n, rows = len(scene.xyxy), len(scene.xyxy) + room
    prototypes, *size = scene.prototype.shape
    hp_wp = [np.int32(side) for side in size]
    xyxy, prior = poisoned((rows, 4), np.float32), poisoned(rows, np.int32)
    xyxy[:n], prior[:n] = scene.xyxy, scene.prior
    count, status = np.array([n], np.int32), np.zeros(1, np.uint32)
    window, offset = poisoned((rows, 8), np.int32), poisoned(rows + 1, np.int64)
    soft = poisoned((rows, *size), np.float32)
    # Enough for all words of the frame in every mask, unless the test says otherwise.
    words = max(n, 1) * scene.height * -(-scene.width // 32) if arena_words is None else arena_words
    arena = poisoned(words, np.uint32)
    layout = [xyxy, count, *hp_wp, *scene.frame, np.float32(scene.margin), np.int64(words), window, offset, status]
    kernels("mask_layout", (1,), (256,), layout, seed)
    suffix = "f16" if scene.prototype.dtype == np.float16 else "f32"
    inputs = [scene.prototype, scene.coefficient, prior, count, window]
    sizes = [np.int32(prototypes), *hp_wp, np.int32(scene.fill)]
    kernels(f"mask_soft_{suffix}", (2, rows), (256,), [*inputs, *sizes, soft, status], seed)
    kernels("mask_bits", (3, rows), (256,), [soft, window, offset, count, *hp_wp, *scene.frame, arena], seed)
    assert (window[n:].view(np.uint8) == 0xCD).all()
    assert (soft[n:].view(np.uint8) == 0xCD).all()
    return Assembled(scene, count, window, offset, soft, arena, status, seed)


def unpack(result: Assembled) -> npt.NDArray[np.bool_]:
    """Masks from the arena, by the rule of ``mask_window.cuh``."""
    scene = result.scene
    masks = np.zeros((len(scene.xyxy), scene.height, -(-scene.width // 32) * 32), bool)
    for mask, row, offset in zip(masks, result.window, result.offset, strict=False):
        _, _, _, _, word, words, top, rows = row.tolist()
        packed = result.arena[offset : offset + words * rows].reshape(rows, words)
        bits = np.unpackbits(packed.view(np.uint8).reshape(rows, 4 * words), axis=1, bitorder="little").astype(bool)
        mask[top : top + rows, 32 * word : 32 * (word + words)] = bits
    assert not masks[:, :, scene.width :].any()
    return masks[:, :, : scene.width]


def dense(result: Assembled) -> npt.NDArray[np.bool_]:
    scene = result.scene
    out = poisoned((len(scene.xyxy), scene.height, scene.width), np.uint8)
    kernels_of(KERNELS)("mask_dense", (2, len(out)), (256,), [*result.bits, *scene.frame, out], result.seed)
    assert (out <= 1).all()
    return out.astype(bool)


def id_map(result: Assembled) -> npt.NDArray[np.int32]:
    scene = result.scene
    out = poisoned((scene.height, scene.width), np.int32)
    grid = (-(-scene.width // 32), -(-scene.height // 8))
    kernels_of(KERNELS)("mask_id_map", grid, (256,), [*result.bits, *scene.frame, out], result.seed)
    return out


def runs(result: Assembled, capacity: int) -> tuple[npt.NDArray[np.int32], ...]:
    """``(offset, start, end)`` of all runs."""
    kernels, rows = kernels_of(KERNELS), len(result.window)
    count, offset = poisoned(rows, np.int32), poisoned(rows + 1, np.int32)
    start, end = poisoned(capacity, np.int32), poisoned(capacity, np.int32)
    kernels("mask_runs_count", (rows,), (256,), [*result.bits, count], result.seed)
    sizes = (np.int32(result.scene.height), np.int32(capacity))
    kernels(
        "mask_runs_write",
        (rows,),
        (256,),
        [*result.bits, count, *sizes, offset, start, end, result.status],
        result.seed,
    )
    used = min(int(offset[len(result.scene.xyxy)]), capacity)
    for rest in (start[used:], end[used:]):
        assert (rest.view(np.uint8) == 0xCD).all()
    return offset[: len(result.scene.xyxy) + 1], start[:used], end[:used]


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


sides = st.one_of(st.integers(1, 12), st.integers(1, 100))


@examples(110)
@given(st.integers(0, 2**32 - 1), sides, sides)
def test_kernels_equal_the_reference(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES_IN_AN_EXAMPLE):
        prototype = (int(rng.integers(1, 40)), int(rng.integers(1, 30)), int(rng.integers(1, 30)))
        n = int(rng.choice([0, 1, 3, 9]))
        check(make_scene(rng, n, (height, width), prototype), seed % 5)


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
        assert result.status[0] == ARENA_OVERFLOW
        assert int(result.offset[6]) == need
        fits = result.window[:6, 7] > 0
        assert (unpack(result)[fits] == masks[fits]).all()
        assert (id_map(result) == reference.id_map(unpack(result))).all()
        assert (dense(result) == unpack(result)).all()


def test_a_buffer_of_runs_that_is_too_small_is_reported_and_not_overrun() -> None:
    rng = np.random.default_rng(4)
    result = assemble(make_scene(rng, 5, (40, 90), (4, 16, 16)))
    offset, start, end = runs(result, 10_000)
    assert result.status[0] == 0
    for capacity in some_of(int(offset[5])):
        result.status[0] = 0
        less_offset, less_start, less_end = runs(result, capacity)
        assert result.status[0] == RUN_OVERFLOW
        assert less_offset.tolist() == offset.tolist()
        assert less_start.tolist() == start[:capacity].tolist()
        assert less_end.tolist() == end[:capacity].tolist()


def test_values_that_are_not_finite_are_reported() -> None:
    rng = np.random.default_rng(5)
    scene = dataclasses.replace(make_scene(rng, 2, (20, 20), (4, 8, 8)), margin=np.inf)
    scene.xyxy[:] = [0, 0, 1, 1]
    for array in (scene.prototype, scene.coefficient):
        kept = array.copy()
        array[:] = np.nan
        assert assemble(scene).status[0] == NOT_FINITE
        array[:] = kept
    assert assemble(scene).status[0] == 0


def test_more_prototypes_than_the_kernel_holds_are_reported() -> None:
    rng = np.random.default_rng(6)
    assert assemble(make_scene(rng, 1, (8, 8), (257, 4, 4))).status[0] == LIMIT


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    scene = make_scene(rng, 20, (60, 90), (8, 20, 20))
    first, *others = [assemble(scene, seed=seed) for seed in (0, 1, 2)]
    for other in others:
        assert (unpack(other) == unpack(first)).all()
        assert (id_map(other) == id_map(first)).all()
