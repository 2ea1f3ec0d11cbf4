from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.html_checker import read_page
from yolact_calibration.report.bar_charts import draw_bars, draw_histogram
from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.chart_text import text_width
from yolact_calibration.report.html_page import finite

any_number = st.none() | st.floats() | st.integers()
NAMES = ["weights", "activations"]


@given(st.lists(st.tuples(st.text(max_size=30), st.lists(any_number, min_size=2, max_size=2)), max_size=4))
def test_any_bars_stay_in_the_picture(groups: list[tuple[str, list[float | None]]]) -> None:
    axis = Axis.covering("points", [value for _, values in groups for value in values], from_zero=True)
    found = read_page(draw_bars("Title", axis, NAMES, groups).replace("None", "").replace("nan", ""))
    # What is smaller is drawn as zero.
    if not any(abs(finite(value) or 0) > 1e-30 for _, values in groups for value in values):
        assert not found.all("svg")
        assert found.all("p")[0].text.startswith("Nothing to show: ")
        return
    height = float(found.all("svg")[-1].attributes["viewbox"].split()[3])
    for bar in found.all("rect"):
        x, y, width, length = (float(bar.attributes[key]) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= 481
        assert 0 <= y <= y + length <= height
    for name in found.all("text"):
        if name.attributes["text-anchor"] == "end":
            shown = name.text.removesuffix(found.elements[found.elements.index(name) + 1].text)
            assert float(name.attributes["x"]) >= text_width(shown)


def test_bars_begin_at_zero_and_undefined_ones_are_missing() -> None:
    axis = Axis.covering("points", [-1, 2], from_zero=True)
    found = read_page(draw_bars("Title", axis, NAMES, [("res2", [2.0, -1.0]), ("res3", [None, 0.0])]))
    long, negative, none = [bar for bar in found.all("rect") if bar.text]
    assert float(long.attributes["width"]) == pytest.approx(2 * float(negative.attributes["width"]), abs=0.2)
    zero = float(long.attributes["x"])
    assert float(negative.attributes["x"]) + float(negative.attributes["width"]) == pytest.approx(zero, abs=0.11)
    assert float(none.attributes["width"]) == 1
    assert long.text == "res2, weights: 2.00"
    assert found.texts("li") == NAMES
    # The legend is filled as the bars are.
    swatches = [bar.attributes["class"] for bar in found.all("rect") if not bar.text]
    assert swatches == [long.attributes["class"], negative.attributes["class"]] == ["bar c0", "bar c1"]
    assert "points" in found.texts("text")


def test_long_names_are_cut_and_told_in_full() -> None:
    name = "prediction head of the third level <b>"
    found = read_page(draw_bars("Title", Axis.covering("x", [1], from_zero=True), NAMES, [(name, [1, 1])]))
    shown = next(element for element in found.all("text") if "…" in element.text)
    assert shown.text.startswith("prediction head…")
    assert name in shown.text


@pytest.mark.parametrize(
    ("values", "why"),
    [([0.0, 0], "every value is 0"), ([0.0, None], "every value is 0"), ([None], "there is no value")],
)
def test_bars_without_any_length_are_a_line_that_says_so(values: list[float | None], why: str) -> None:
    found = read_page(draw_bars("Box AP", Axis.covering("x", values, from_zero=True), NAMES, [("res2", values)]))
    assert found.texts("figcaption") == ["Box AP"]
    assert found.texts("p") == [f"Nothing to show: {why}."]
    assert not found.all("svg")


@pytest.mark.parametrize("name", ["fpn downsample", "WWWWWWWWWWWWWW", "日本語の名前", "mask head"])
def test_names_are_whole_in_the_widest_font(name: str) -> None:
    found = read_page(draw_bars("Title", Axis.covering("x", [1], from_zero=True), NAMES, [(name, [1, 1])]))
    label = next(one for one in found.all("text") if name[:4] in one.text)
    shown = label.text.removesuffix(name)
    assert float(label.attributes["x"]) >= text_width(shown)
    assert text_width("fpn downsample") >= 0.633 * 14 * len("fpn downsample")  # in DejaVu Sans it is that wide


def draw(values: np.ndarray, bins: int, low: float | None = None, high: float | None = None) -> str:
    counts, edges = np.histogram(values, bins)
    return draw_histogram(edges.tolist(), counts.tolist(), low, high)


def test_a_histogram_of_many_bins_is_small() -> None:
    values = np.random.default_rng(0).gamma(0.5, 2, 10_000)
    picture = draw(values, 2048, 0, 5)
    assert len(picture) < 2500
    found = read_page(picture)
    bars = next(path for path in found.all("path") if path.attributes["class"] == "bar")
    assert 10 < bars.attributes["d"].count("M") <= 48
    assert "kept 0 to 5.00" in found.texts("title")[0]


def test_clips_lie_where_the_range_ends_and_what_is_cut_is_shaded() -> None:
    found = read_page(draw(np.arange(100), 10, 24.75, 74.25))
    clips = [path.attributes["d"] for path in found.all("path") if path.attributes["class"] == "clip"]
    assert clips == ["M40.0 0v34", "M120.0 0v34"]
    assert [rect.attributes["width"] for rect in found.all("rect")] == ["40.0", "40.0"]
    assert not read_page(draw(np.arange(100), 10, None, None)).all("rect")


def test_ranges_wider_than_the_values_are_marked_at_the_ends() -> None:
    found = read_page(draw(np.arange(100), 10, -1e9, 1e9))
    assert [path.attributes["d"] for path in found.all("path")][1:] == ["M0.0 0v34", "M160.0 0v34"]
    assert not found.all("rect")


def test_merged_bins_of_unlike_width_are_comparable() -> None:
    # 49 equal bins become 25, the last of which is half as wide as the others.
    picture = draw_histogram(list(range(50)), [100] * 49, None, None)
    assert len(set(re.findall(r"v-([\d.]+)", picture))) == 1


@pytest.mark.parametrize(
    ("edges", "counts"),
    [
        ([], []),
        ([0.0, 1.0], []),
        ([0.0, 1.0, 2.0], [1]),
        ([0.0, 0.0], [3]),
        ([1.0, 0.0], [3]),
        ([0.0, math.nan], [3]),
        ([0.0, 1.0, math.inf], [3, 4]),
    ],
)
def test_what_is_no_histogram_is_not_drawn(edges: list[float], counts: list[float]) -> None:
    assert draw_histogram(edges, counts, 0, 1) == ""


@pytest.mark.parametrize("counts", [[0, 0], [math.nan, 1e300], [10**400, 1]])
def test_any_counts_can_be_drawn(counts: list[float]) -> None:
    read_page(draw_histogram([-1e-300, 0, 1e300], counts, None, 0.5))
