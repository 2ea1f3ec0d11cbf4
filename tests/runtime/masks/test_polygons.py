from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis.extra import numpy as st_numpy

from support.properties import examples
from yolact_runtime.masks.polygons import trace

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.int64]
masks = st_numpy.arrays(bool, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12))


def _mask(*rows: str) -> Mask:
    return np.array([[letter == "#" for letter in row] for row in rows])


def _fill_even_odd(rings: list[Ring], height: int, width: int) -> Mask:
    """Crossings to the left of every pixel, counted modulo two."""
    inside = np.zeros((height, width), bool)
    for ring in rings:
        for (x, y), (next_x, next_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x == next_x:
                inside[min(y, next_y) : max(y, next_y), x:] ^= True
    return inside


def _signed_area(ring: Ring) -> float:
    """Positive when clockwise on the screen (y grows downwards)."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _assert_well_formed(ring: Ring) -> None:
    assert ring.dtype == np.int64
    step = np.roll(ring, -1, axis=0) - ring
    horizontal = step[:, 1] == 0
    assert (horizontal ^ (step[:, 0] == 0)).all()  # every side has a length, along one axis
    assert (horizontal != np.roll(horizontal, 1)).all()  # and every vertex is a turn


@examples(300)
@given(masks)
def test_filling_the_rings_gives_the_mask_back(mask: Mask) -> None:
    rings = trace(mask)
    assert (_fill_even_odd(rings, *mask.shape) == mask).all()
    assert sum(_signed_area(ring) for ring in rings) == mask.sum()
    for ring in rings:
        _assert_well_formed(ring)


@examples(150)
@given(masks)
def test_there_is_one_clockwise_ring_for_each_part_and_one_anticlockwise_for_each_hole(mask: Mask) -> None:
    # Pixels that touch at a corner are two parts; so a hole reaches through such a corner.
    areas = [_signed_area(ring) for ring in trace(mask)]
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1
    around = cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=8)[0] - 1
    assert sum(area > 0 for area in areas) == parts
    assert sum(area < 0 for area in areas) == around - 1


def test_one_pixel() -> None:
    assert [ring.tolist() for ring in trace(_mask("..", ".#"))] == [[[1, 1], [2, 1], [2, 2], [1, 2]]]


def test_a_full_mask_is_its_frame() -> None:
    assert [ring.tolist() for ring in trace(np.ones((3, 5), bool))] == [[[0, 0], [5, 0], [5, 3], [0, 3]]]


def test_only_turns_are_listed() -> None:
    (ring,) = trace(_mask("##..", "####"))
    assert ring.tolist() == [[0, 0], [2, 0], [2, 1], [4, 1], [4, 2], [0, 2]]


def test_a_hole_runs_the_other_way() -> None:
    outer, hole = trace(_mask("###", "#.#", "###"))
    assert _signed_area(outer) == 9
    assert _signed_area(hole) == -1
    assert hole[0].tolist() == [1, 1]


@pytest.mark.parametrize("rows", [("#.", ".#"), (".#", "#.")])
def test_diagonal_neighbours_are_two_rings(rows: tuple[str, ...]) -> None:
    rings = trace(_mask(*rows))
    assert [len(ring) for ring in rings] == [4, 4]
    assert [_signed_area(ring) for ring in rings] == [1, 1]


def test_a_hole_that_touches_the_outside_at_a_corner() -> None:
    mask = _mask("##.", "#.#", "###")
    rings = trace(mask)
    assert (_fill_even_odd(rings, 3, 3) == mask).all()
    assert [_signed_area(ring) for ring in rings] == [7]


def test_an_island_in_a_hole() -> None:
    mask = np.ones((7, 7), bool)
    mask[1:-1, 1:-1] = False
    mask[3, 3] = True
    assert sorted(_signed_area(ring) for ring in trace(mask)) == [-25, 1, 49]


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (4, 3)])
def test_an_empty_mask_has_no_ring(shape: tuple[int, int]) -> None:
    assert trace(np.zeros(shape, bool)) == []


def test_a_chessboard() -> None:
    mask = np.indices((9, 9)).sum(axis=0) % 2 == 0
    rings = trace(mask)
    assert len(rings) == mask.sum()
    assert (_fill_even_odd(rings, 9, 9) == mask).all()
