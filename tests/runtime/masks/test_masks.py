from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as coco

from support.properties import examples
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.masks import Masks

Dense = npt.NDArray[np.bool_]


@st.composite
def dense_masks(draw: st.DrawFn, min_count: int = 0) -> Dense:
    """Dense or sparse noise, filled or empty masks: runs that wrap around columns are common."""
    count = draw(st.integers(min_count, 4))
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    dense = np.zeros((count, height, width), bool)
    for i in range(count):
        if draw(st.booleans()):
            dense[i] = draw(st_numpy.arrays(bool, (height, width)))
        elif draw(st.booleans()):
            left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
            dense[i, top : draw(st.integers(top, height)), left : draw(st.integers(left, width))] = True
        else:
            dense[i] = draw(st.booleans())
    return dense


def _bounds(mask: Dense) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0, 0, 0, 0]


def _fill_even_odd(rings: list[npt.NDArray[np.int64]], height: int, width: int) -> Dense:
    inside = np.zeros((height, width), bool)
    for ring in rings:
        for (x, y), (next_x, next_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x == next_x:
                inside[min(y, next_y) : max(y, next_y), x:] ^= True
    return inside


def _two() -> Masks:
    dense = np.zeros((2, 3, 4), bool)
    dense[0, 1:, 1:3] = True
    dense[1, 0, 3] = True
    return Masks.from_dense(dense)


# --- against dense arrays ---------------------------------------------------------------------------------------------


@examples(200)
@given(dense_masks())
def test_dense_gives_back_what_from_dense_took(dense: Dense) -> None:
    masks = Masks.from_dense(dense)
    assert (len(masks), masks.height, masks.width) == dense.shape
    back = masks.dense()
    assert (back == dense).all()
    assert back.shape == dense.shape
    assert back.dtype == bool
    assert back.flags.c_contiguous


@examples(100)
@given(dense_masks())
def test_runs_are_sorted_disjoint_and_never_touch(dense: Dense) -> None:
    masks = Masks.from_dense(dense)
    for i, mask in enumerate(dense):
        runs = slice(masks.offset[i], masks.offset[i + 1])
        flat = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
        edges = np.flatnonzero(np.diff(flat))
        assert masks.start[runs].tolist() == edges[::2].tolist()
        assert masks.end[runs].tolist() == edges[1::2].tolist()


@examples(150)
@given(dense_masks())
def test_area_and_bounds(dense: Dense) -> None:
    masks = Masks.from_dense(dense)
    assert masks.area().tolist() == dense.sum(axis=(1, 2)).tolist()
    assert masks.bounds().tolist() == [_bounds(mask) for mask in dense]
    assert masks.bounds().shape == (len(dense), 4)


@examples(150)
@given(dense_masks(min_count=1))
def test_windows(dense: Dense) -> None:
    masks = Masks.from_dense(dense)
    for i, mask in enumerate(dense):
        left, top, right, bottom = _bounds(mask)
        window = masks.window(i)
        assert window[:2] == (left, top)
        assert window[2].shape == (bottom - top, right - left)
        assert (window[2] == mask[top:bottom, left:right]).all()


@examples(150)
@given(dense_masks())
def test_id_map_puts_earlier_masks_on_top(dense: Dense) -> None:
    expected = np.zeros(dense.shape[1:], np.int32)
    for i in reversed(range(len(dense))):
        expected[dense[i]] = i + 1
    id_map = Masks.from_dense(dense).id_map()
    assert (id_map == expected).all()
    assert id_map.shape == dense.shape[1:]
    assert id_map.dtype == np.int32
    assert id_map.flags.c_contiguous


@examples(150)
@given(dense_masks(), st.data())
def test_iou_between_two_sets_of_masks(dense: Dense, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 3))
    other = data.draw(st_numpy.arrays(bool, (count, *dense.shape[1:])))
    iou = Masks.from_dense(dense).iou(Masks.from_dense(other))
    intersection = (dense[:, None] & other[None]).sum(axis=(2, 3))
    union = (dense[:, None] | other[None]).sum(axis=(2, 3))
    expected = intersection / np.maximum(union, 1)
    assert iou.shape == (len(dense), count)
    np.testing.assert_allclose(iou, expected, rtol=1e-12)


@examples(150)
@given(dense_masks(min_count=1))
def test_polygons_filled_even_odd_give_each_mask_back(dense: Dense) -> None:
    masks = Masks.from_dense(dense)
    for i, mask in enumerate(dense):
        assert (_fill_even_odd(masks.polygons(i), *mask.shape) == mask).all()


# pycocotools 2.0.11 knows NumPy 2 only halfway.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@examples(150)
@given(dense_masks(min_count=1))
def test_rle_equals_pycocotools_and_comes_back(dense: Dense) -> None:
    masks = Masks.from_dense(dense)
    documents = masks.rle()
    for document, mask in zip(documents, dense, strict=True):
        theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert document == {"size": theirs["size"], "counts": theirs["counts"].decode()}
        assert (coco.decode(document) == mask).all()
    assert Masks.from_rle(documents) == masks
    assert Masks.from_rle([coco.encode(np.asfortranarray(m.astype(np.uint8))) for m in dense]) == masks


@examples(150)
@given(dense_masks(min_count=1), st.data())
def test_indexing_selects_like_an_array(dense: Dense, data: st.DataObject) -> None:
    masks, count = Masks.from_dense(dense), len(dense)
    index: Any = data.draw(
        st.one_of(
            st.lists(st.integers(-count, count - 1), max_size=6),
            st.lists(st.integers(-count, count - 1), max_size=6).map(lambda v: np.array(v, np.int64)),
            st.lists(st.booleans(), min_size=count, max_size=count).map(np.array),
            st.slices(count),
        )
    )
    selected = masks[index]
    rows = np.array(index, np.int64) if isinstance(index, list) else index  # NumPy takes [] for floats
    assert (selected.dense() == dense[rows]).all()
    assert selected == Masks.from_dense(selected.dense())


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_a_run_that_wraps_around_columns_bounds_the_whole_height() -> None:
    dense = np.zeros((1, 4, 5), bool)
    dense[0, 3, 1] = dense[0, 0, 2] = True
    masks = Masks.from_dense(dense)
    assert len(masks.start) == 1
    assert masks.bounds().tolist() == [[1, 0, 3, 4]]


def test_a_mask_at_each_edge_of_the_frame() -> None:
    dense = np.zeros((4, 5, 6), bool)
    dense[0, :, 0] = dense[1, :, -1] = dense[2, 0] = dense[3, -1] = True
    masks = Masks.from_dense(dense)
    assert masks.bounds().tolist() == [[0, 0, 1, 5], [5, 0, 6, 5], [0, 0, 6, 1], [0, 4, 6, 5]]
    assert masks.area().tolist() == [5, 5, 6, 6]


def test_anything_but_zero_is_inside() -> None:
    values = np.array([[[0, 1, 2, 255, 0.5, -1, np.nan]]])
    assert Masks.from_dense(values).dense().tolist() == [[[False, True, True, True, True, True, True]]]  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("shape", [(4, 5), (1, 2, 4, 5), ()])
def test_dense_masks_have_three_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(n, height, width\)"):
        Masks.from_dense(np.zeros(shape, bool))


def test_empty_masks() -> None:
    masks = Masks.empty(3, 4, 5)
    assert len(masks) == 3
    assert masks.area().tolist() == [0, 0, 0]
    assert masks.bounds().tolist() == [[0, 0, 0, 0]] * 3
    assert not masks.dense().any()
    assert not masks.id_map().any()
    assert masks.polygons(1) == []
    assert masks == Masks.from_dense(np.zeros((3, 4, 5), bool))


def test_no_masks() -> None:
    masks = Masks.empty(0, 4, 5)
    assert masks.dense().shape == (0, 4, 5)
    assert masks.bounds().shape == (0, 4)
    assert masks.area().shape == (0,)
    assert masks.rle() == []
    assert masks.id_map().tolist() == [[0] * 5] * 4
    assert masks.iou(Masks.empty(2, 4, 5)).shape == (0, 2)
    assert masks == masks[[]]
    assert len(masks[:3]) == 0


def test_from_runs_removes_empty_runs_and_joins_touching_ones() -> None:
    mask = np.array([0, 0, 0, 1, 1, 1])
    start, end = np.array([0, 2, 5, 5, 8, 9]), np.array([2, 3, 5, 8, 9, 12])
    masks = Masks.from_runs(mask, start, end, 3, 3, 4)
    assert (masks.offset.tolist(), masks.start.tolist(), masks.end.tolist()) == ([0, 1, 2, 2], [0, 5], [3, 12])


def test_from_runs_does_not_join_runs_of_different_masks() -> None:
    masks = Masks.from_runs(np.array([0, 1]), np.array([0, 3]), np.array([3, 6]), 2, 3, 4)
    assert masks.area().tolist() == [3, 3]


def test_equality_looks_at_size_and_pixels() -> None:
    assert _two() == _two()
    assert _two() != _two()[::-1]
    assert Masks.empty(1, 3, 4) != Masks.empty(1, 4, 3)
    assert Masks.empty(1, 3, 4) != Masks.empty(2, 3, 4)
    assert _two() != "masks"


def test_masks_are_not_hashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(_two())


def test_the_last_mask_may_be_named_from_the_end() -> None:
    masks = _two()
    assert masks.window(-1)[:2] == masks.window(1)[:2] == (3, 0)
    assert masks.window(-1)[2].tolist() == masks.window(1)[2].tolist() == [[True]]
    assert [ring.tolist() for ring in masks.polygons(-1)] == [ring.tolist() for ring in masks.polygons(1)]
    assert (masks.window(-2)[2] == masks.window(0)[2]).all()


@pytest.mark.parametrize("index", [2, -3])
def test_a_mask_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError):
        _two().window(index)
    with pytest.raises(IndexError):
        _two().polygons(index)


def test_iou_of_masks_of_different_frames_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"3 x 4.*4 x 3"):
        _two().iou(Masks.empty(1, 4, 3))


def test_id_map_of_another_dtype() -> None:
    id_map = _two().id_map(np.uint8)
    assert id_map.dtype == np.uint8
    assert id_map.tolist() == [[0, 0, 0, 2], [0, 1, 1, 0], [0, 1, 1, 0]]


def test_polygons_are_in_pixels_of_the_frame() -> None:
    assert [ring.tolist() for ring in _two().polygons(0)] == [[[1, 1], [3, 1], [3, 3], [1, 3]]]


def test_memory_follows_the_outline_and_not_the_frame() -> None:
    dense = np.zeros((1, 1000, 1000), bool)
    dense[0, 100:900, 100:900] = True
    assert Masks.from_dense(dense).nbytes < 16 * 800 + 100


def test_indexing_copies_nothing_that_a_caller_could_break() -> None:
    masks = _two()
    selected = masks[:]
    selected.start[:] = 0
    assert masks == _two()


def test_an_empty_list_of_documents_has_no_frame() -> None:
    with pytest.raises(ShapeError, match=r"Masks\.empty"):
        Masks.from_rle([])


def test_documents_of_different_sizes_are_refused() -> None:
    documents = [*Masks.empty(1, 3, 4).rle(), *Masks.empty(1, 4, 3).rle()]
    with pytest.raises(ShapeError, match=r"\(3, 4\), \(4, 3\)"):
        Masks.from_rle(documents)


def test_a_damaged_document_is_refused() -> None:
    (document,) = _two()[[0]].rle()
    with pytest.raises(ShapeError, match="the mask has 20"):
        Masks.from_rle([{**document, "size": [4, 5]}])
    with pytest.raises(ShapeError, match="not a COCO run-length string"):
        Masks.from_rle([{**document, "counts": "!"}])


@pytest.mark.parametrize("document", [{"size": [2, 2]}, {"counts": "04"}, {}])
def test_an_rle_object_without_its_fields_is_named(document: dict[str, object]) -> None:
    with pytest.raises(ShapeError, match='"size" and "counts"'):
        Masks.from_rle([document])
