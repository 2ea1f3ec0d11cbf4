"""Masks that are kept as the GPU wrote them until somebody asks: against those that are made at once."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as coco

from support.properties import examples
from yolact_runtime.masks.masks import Masks

Dense = npt.NDArray[np.bool_]
USES: dict[str, Callable[[Masks], Any]] = {
    "start": lambda masks: masks.start.tolist(),
    "end": lambda masks: masks.end.tolist(),
    "offset": lambda masks: masks.offset.tolist(),
    "area": lambda masks: masks.area().tolist(),
    "bounds": lambda masks: masks.bounds().tolist(),
    "dense": lambda masks: masks.dense().tolist(),
    "id_map": lambda masks: masks.id_map().tolist(),
    "rle": lambda masks: masks.rle(),
    "polygons": lambda masks: [[ring.tolist() for ring in masks.polygons(i)] for i in range(len(masks))],
    "window": lambda masks: [(*masks.window(i)[:2], masks.window(i)[2].tolist()) for i in range(len(masks))],
    "iou": lambda masks: masks.iou(masks[::-1]).tolist(),
    "reversed": lambda masks: masks[::-1].dense().tolist(),
    "length": len,
    "repr": repr,
    "size": lambda masks: (masks.height, masks.width),
}


@st.composite
def dense_masks(draw: st.DrawFn) -> Dense:
    """Noise, full and empty masks, in frames where columns are short: what fills one's foot and the next's head."""
    count = draw(st.integers(0, 4))
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    dense = np.zeros((count, *shape), bool)
    for i in range(count):
        dense[i] = draw(st.one_of(st.booleans(), st_numpy.arrays(bool, shape)))
    return dense


def by_column(dense: Dense) -> Masks:
    """As the kernels write runs: each in its column, in int32."""
    count, height, width = dense.shape
    columns = np.zeros((count, width, height + 2), np.int8)
    columns[:, :, 1:-1] = dense.transpose(0, 2, 1)
    mask, column, edge = np.nonzero(np.diff(columns, axis=2))
    position = (column * height + edge).astype(np.int32)
    offset = np.searchsorted(mask[::2], np.arange(count + 1)).astype(np.int32)
    return Masks.from_columns(offset, position[::2].copy(), position[1::2].copy(), height, width)


@examples(200)
@given(dense_masks(), st.lists(st.sampled_from(sorted(USES)), max_size=5))
def test_whatever_is_asked_first_is_as_of_masks_made_at_once(dense: Dense, asked: list[str]) -> None:
    masks, expected = by_column(dense), Masks.from_dense(dense)
    for name in (*asked, *USES):
        assert USES[name](masks) == USES[name](expected), name
    assert masks == expected
    for array in (masks.offset, masks.start, masks.end):
        assert array.dtype == np.int64


@examples(100)
@given(dense_masks(), st.sampled_from("iu"), st.sampled_from("iu"), st.sampled_from("1248"), st.sampled_from("1248"))
def test_runs_of_any_integers_are_the_same_masks(
    dense: Dense, sign: str, offset_sign: str, size: str, offset_size: str
) -> None:
    """Differences of unsigned numbers wrap around, and those of narrow ones do not fit."""
    found, expected = by_column(dense).__dict__["_found"], Masks.from_dense(dense)
    for order in "<>":
        dtype, offset_dtype = np.dtype(order + sign + size), np.dtype(order + offset_sign + offset_size)
        for name, use in USES.items():
            runs = found.offset.astype(offset_dtype), found.start.astype(dtype), found.end.astype(dtype)
            masks = Masks.from_columns(*runs, expected.height, expected.width)
            assert use(masks) == use(expected), name
            assert masks == expected


@examples(100)
@given(dense_masks(), dense_masks())
def test_equality_does_not_depend_on_what_was_asked(dense: Dense, other: Dense) -> None:
    equal = dense.shape == other.shape and bool((dense == other).all())
    assert (by_column(dense) == by_column(other)) is equal
    assert (by_column(dense) == Masks.from_dense(other)) is equal
    assert (Masks.from_dense(dense) == by_column(other)) is equal
    assert by_column(dense) == by_column(dense)


@examples(60)
@given(dense_masks(), st.booleans())
def test_pickles_and_copies(dense: Dense, asked_before: bool) -> None:
    for again in (lambda masks: pickle.loads(pickle.dumps(masks)), copy.copy, copy.deepcopy):
        masks = by_column(dense)
        if asked_before:
            assert len(masks.start) == len(masks.end)
        assert again(masks) == masks == Masks.from_dense(dense)
        assert again(masks).start.dtype == np.int64


def test_runs_stay_as_compact_as_they_came() -> None:
    dense = np.zeros((1, 50, 60), bool)
    dense[0, 5:40, 5:50] = True
    masks = by_column(dense)
    compact = 2 * 4 * 45 + 2 * 4
    assert masks.nbytes == compact
    masks.rle(), masks.area(), masks.id_map()
    assert masks.nbytes == compact
    assert masks.start is masks.start
    assert masks.nbytes == 2 * compact
    masks.start[0] += 1  # the caller's
    assert masks.area().tolist() == [45 * 35 - 1]


def test_masks_cannot_be_assigned_to() -> None:
    masks = Masks.empty(1, 3, 4)
    for name in ("height", "start", "offset", "anything"):
        with pytest.raises(FrozenInstanceError, match=f"'{name}' is read-only"):
            setattr(masks, name, 1)
        with pytest.raises(FrozenInstanceError):
            delattr(masks, name)


def test_many_threads_that_ask_first_get_the_same_arrays() -> None:
    dense = np.random.default_rng(0).random((20, 40, 50)) < 0.6
    expected = Masks.from_dense(dense)
    for _ in range(10):
        masks, barrier = by_column(dense), threading.Barrier(8)
        got: list[Any] = []

        def ask(masks: Masks = masks, barrier: threading.Barrier = barrier, got: list[Any] = got) -> None:
            barrier.wait()
            got.append((masks.area().tolist(), masks.start, masks.rle(), masks.end))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 8
        for area, start, documents, end in got:
            assert area == expected.area().tolist()
            assert documents == expected.rle()
            assert start is masks.start
            assert end is masks.end
        assert masks == expected


@pytest.mark.parametrize("side", [20_000, 32_767, 32_769, 60_000])
def test_frames_whose_positions_do_not_fit_into_half_of_int32(side: int) -> None:
    size = side * side
    start = np.array([0, size // 3, size - 2 * side])
    end = np.array([1, size // 3 + 5 * side, size - side])
    masks = Masks(side, side, np.array([0, 1, 1, 3]), start, end)
    documents = masks.rle()
    assert Masks.from_rle(documents) == masks
    assert [coco.area({"size": [side, side], "counts": each["counts"]}) for each in documents] == [1, 0, 6 * side]
    assert masks.area().tolist() == [1, 0, 6 * side]
