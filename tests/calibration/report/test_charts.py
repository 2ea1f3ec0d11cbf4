from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.html_checker import Page, read_page
from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.charts import Limit, Point, Series, draw_plot

Style = Literal["line", "steps", "points", "front"]
any_number = st.floats() | st.integers()


def draw(*series: Series, limit: Limit | None = None) -> Page:
    points = [point for one in series for point in one.points]
    x = Axis.covering("time, ms", [point.x for point in points], from_zero=True)
    y = Axis.covering("loss", [end for point in points for end in (point.y, point.low, point.high)])
    return read_page(draw_plot("Title", x, y, series, limit))


@pytest.mark.parametrize("style", ["line", "steps", "points", "front"])
@given(points=st.lists(st.tuples(any_number, any_number, st.none() | any_number), max_size=6))
def test_anything_is_drawn_inside_the_picture(style: Style, points: list[tuple[float, float, float | None]]) -> None:
    found = draw(Series("a", [Point(x, y, end, end, "name") for x, y, end in points], style, 2.5))
    for line in found.corners() + found.corners("polygon"):
        assert all(0 <= x <= 480 and 0 <= y <= 300 for x, y in line)
    for mark in found.all("circle"):
        assert 0 <= float(mark.attributes["cx"]) <= 480
        assert 0 <= float(mark.attributes["cy"]) <= 300


def test_axes_have_titles_and_the_picture_a_text() -> None:
    found = draw(Series("a", [Point(1, 2)]))
    assert {"time, ms", "loss"} <= set(found.texts("text"))
    assert found.texts("title")[0] == "Title: loss, over time, ms"
    assert found.texts("figcaption") == ["Title"]


def test_a_line_goes_straight_and_steps_go_level() -> None:
    points = [Point(0, 1), Point(1, 3), Point(2, 2)]
    (straight,) = draw(Series("", points)).corners()
    (steps,) = draw(Series("", points, "steps")).corners()
    assert len(straight) == 3
    assert steps[0] == straight[0]
    assert steps[1] == (straight[1][0], straight[0][1])
    assert steps[2] == straight[1]


def test_what_was_undone_is_off_the_line_which_goes_on() -> None:
    points = [Point(0, 3), Point(1, 1, is_hollow=True), Point(2, 2), Point(3, 9, is_hollow=True)]
    found = draw(Series("", points, "steps"))
    assert [mark.attributes["class"] for mark in found.all("circle")] == ["mark", "hollow", "mark", "hollow"]
    (line,) = found.corners()
    hollow = found.all("circle")[1].attributes
    assert (float(hollow["cx"]), float(hollow["cy"])) not in line
    assert line[-1][0] == float(found.all("circle")[3].attributes["cx"])
    assert line[-1][1] == line[-2][1]


def test_intervals_limits_and_names() -> None:
    found = draw(Series("a", [Point(1, 2, 1.5, 3, "FP<32>")], "points"), limit=Limit(2.5, "allowed: 2.5"))
    assert len([path for path in found.all("path") if path.attributes["class"] == "span"]) == 1
    assert {"FP<32>", "allowed: 2.5"} <= set(found.texts("text"))
    assert "a FP<32>: loss: 2.00 (1.50 to 3.00); time, ms: 1.00" in found.texts("title")
    assert not draw(Series("a", [Point(1, 2, None, 3)], "points")).all("path")


def test_series_with_a_name_are_in_the_legend() -> None:
    assert draw(Series("", [Point(0, 1)])).all("ul") == []
    found = draw(
        Series("first", [Point(0, 1)]), Series("second", [Point(0, 2)], "steps"), Series("", [Point(0, 3)], "front")
    )
    assert found.texts("li") == ["first", "second"]


def test_series_differ_by_more_than_their_colour() -> None:
    found = draw(*(Series(str(i), [Point(0, i), Point(1, i)], "steps") for i in range(4)))
    lines = [element for element in found.all("polyline") if len(element.attributes["points"].split()) > 2]
    assert len({line.attributes.get("stroke-dasharray") for line in lines}) == 4
    assert found.all("circle")
    assert {len(corners) for corners in found.corners("polygon")} == {3, 4}


def test_names_of_near_points_do_not_hide_each_other() -> None:
    found = draw(Series("", [Point(551 + i, 0.656 - i / 1e5, name=f"FP{i}") for i in range(4)], "points"))
    places = [
        (float(element.attributes["x"]), float(element.attributes["y"]))
        for element in found.all("text")
        if element.text.startswith("FP")
    ]
    assert len(places) == 4
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= 480 - 3 * 7
        assert all(abs(x - a) >= 3 * 7 or abs(y - b) >= 15 for a, b in places[:i])


def test_undefined_points_are_left_out() -> None:
    found = draw(Series("", [Point(0, math.nan), Point(math.inf, 1), Point(1, 1)], "steps"))
    assert len(found.all("circle")) == 1
    assert draw(Series("", [])).all("polyline") == []


def test_a_line_is_broken_where_a_point_is_undefined_and_steps_are_not() -> None:
    points = [Point(0, 1), Point(1, 2), Point(1, math.nan), Point(5, 3), Point(5, math.nan), Point(8, 2), Point(9, 1)]
    found = draw(Series("", points))
    assert [len(line) for line in found.corners()] == [2, 1, 2]
    # The stretch of one point is marked, and the end.
    assert len(found.all("circle")) == 2
    assert len(draw(Series("", points, "steps")).corners()) == 1
    # At the beginning and at the end there is nothing to break.
    assert len(draw(Series("", [Point(0, math.nan), Point(1, 1), Point(2, 1), Point(3, math.nan)])).corners()) == 1


@pytest.mark.parametrize(
    ("heights", "why"), [([], "there is no value"), ([math.nan], "there is no value"), ([0.0, 0.0], "every value is 0")]
)
def test_a_plot_without_anything_to_see_is_a_line_that_says_so(heights: list[float], why: str) -> None:
    found = draw(Series("loss", [Point(i, y) for i, y in enumerate(heights)]))
    assert found.texts("p") == [f"Nothing to show: {why}."]
    assert not found.all("svg")
