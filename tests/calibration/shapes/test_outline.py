from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolact_calibration.shapes.outline import CLASS_NAMES, Placement, Window

FRAME = Window(0, 0, 100, 80)
UPRIGHT = Placement(class_id=0, x=50.3, y=40.7, radius_px=30)


def _inside(placement: Placement, window: Window = FRAME) -> npt.NDArray[np.bool_]:
    return placement.level(*window.pixel_centres()) < 0


def _class(name: str, **changes: float) -> Placement:
    return dataclasses.replace(UPRIGHT, class_id=CLASS_NAMES.index(name), **changes)  # type: ignore[arg-type]


placements = st.builds(
    Placement,
    class_id=st.integers(0, len(CLASS_NAMES) - 1),
    x=st.floats(-20, 120),
    y=st.floats(-20, 100),
    radius_px=st.floats(6, 60),
    angle=st.floats(0, 7),
    aspect=st.floats(0.8, 1.25),
    shear=st.floats(-0.2, 0.2),
    inner=st.floats(0.24, 0.34),
)


def test_a_disc_holds_the_pixels_nearer_than_its_radius() -> None:
    expected = [[math.hypot(x + 0.5 - 50.3, y + 0.5 - 40.7) < 30 for x in range(100)] for y in range(80)]
    np.testing.assert_array_equal(_inside(_class("disc")), expected)


def test_a_ring_is_a_disc_without_the_disc_of_its_hole() -> None:
    hole = _inside(_class("disc", radius_px=15))
    np.testing.assert_array_equal(_inside(_class("ring", inner=0.5)), _inside(_class("disc")) & ~hole)
    assert not _inside(_class("ring", inner=0.5))[40, 50]


def test_an_upright_square_holds_whole_rows_and_columns() -> None:
    expected = np.zeros((80, 100), bool)
    half_side = 30 / math.sqrt(2)
    expected[round(40.7 - half_side) : round(40.7 + half_side), round(50.3 - half_side) : round(50.3 + half_side)] = (
        True
    )
    np.testing.assert_array_equal(_inside(_class("square")), expected)


def test_a_cross_is_two_bars() -> None:
    expected = np.zeros((80, 100), bool)
    long, short = 0.94 * 30, 0.3 * 30
    for width, height in ((long, short), (short, long)):
        expected[
            round(40.7 - height) : round(40.7 + height),
            round(50.3 - width) : round(50.3 + width),
        ] = True
    np.testing.assert_array_equal(_inside(_class("cross", inner=0.3)), expected)


STAR_WAIST = math.cos(0.4 * math.pi) / math.cos(0.2 * math.pi)


@pytest.mark.parametrize(
    ("name", "radii", "num_corners", "first"), [("triangle", [1.0], 3, -1), ("star", [1.0, STAR_WAIST], 10, 1)]
)
def test_polygons_agree_with_counting_crossings_of_their_edges(
    name: str, radii: list[float], num_corners: int, first: int
) -> None:
    # The triangle has a corner straight up, the star straight down.
    angles = [2 * math.pi * k / num_corners for k in range(num_corners)]
    corners = [
        (
            50.3 + 30 * radii[k % len(radii)] * math.sin(angle),
            40.7 + first * 30 * radii[k % len(radii)] * math.cos(angle),
        )
        for k, angle in enumerate(angles)
    ]
    x, y = FRAME.pixel_centres()
    crossings = np.zeros((80, 100), int)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 != y2:
            crossings += ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    np.testing.assert_array_equal(_inside(_class(name)), crossings % 2 == 1)


def test_rotation_turns_from_x_towards_y() -> None:
    # The corner of the triangle, straight up at first, points to the right after a quarter turn.
    quarter = _class("triangle", angle=math.pi / 2)
    assert _inside(quarter)[40, 77]
    assert not _inside(quarter)[40, 30]


def test_aspect_and_shear_keep_the_area() -> None:
    window = Window(-100, -100, 200, 200)
    stretched = _class("square", radius_px=60, aspect=1.2, shear=0.15)
    assert _inside(stretched, window).sum() == pytest.approx(2 * 60**2, rel=0.01)
    assert _class("square").to_plane(np.array([50.3 + 15]), np.array([40.7]))[0] == pytest.approx(0.5)
    assert _class("square", aspect=1.2).to_plane(np.array([50.3 + 18]), np.array([40.7]))[0] == pytest.approx(0.5)


@given(placements)
def test_the_window_holds_the_whole_shape(placement: Placement) -> None:
    window = placement.window()
    wider = Window(window.left - 3, window.top - 3, window.right + 3, window.bottom + 3)
    outside = _inside(placement, wider)
    assert outside.any()
    outside[3:-3, 3:-3] = False
    assert not outside.any()


@given(placements)
def test_the_level_is_about_the_distance_from_the_outline(placement: Placement) -> None:
    # Neighbouring pixels are one pixel apart; their levels differ by no more than the stretch allows.
    level = placement.level(*placement.window().pixel_centres())
    assert np.abs(np.diff(level, axis=0)).max() < 1.6
    assert np.abs(np.diff(level, axis=1)).max() < 1.6


@given(st.integers(-30, 120), st.integers(-30, 120), st.integers(-5, 60), st.integers(-5, 60))
def test_a_clipped_window_lies_in_the_frame(left: int, top: int, width: int, height: int) -> None:
    clipped = Window(left, top, left + width, top + height).clipped(80, 100)
    columns = [x for x in range(left, left + width) if 0 <= x < 100]
    rows = [y for y in range(top, top + height) if 0 <= y < 80]
    assert [*range(100)][clipped.slices[1]] == columns
    assert [*range(80)][clipped.slices[0]] == rows
    assert clipped.empty == (not columns or not rows)


@pytest.mark.parametrize("window", [Window(3, -4, 1003, 96), Window(0, 0, 20_000, 3), Window(5, 5, 5, 9)])
def test_strips_are_the_window_in_pieces(window: Window) -> None:
    strips = list(window.strips())
    y = np.concatenate([strip.pixel_centres()[1] for strip in strips])
    np.testing.assert_array_equal(y, window.pixel_centres()[1])
    assert all((strip.left, strip.right) == (window.left, window.right) for strip in strips)
