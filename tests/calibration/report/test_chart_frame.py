from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.html_checker import read_page
from yolact_calibration.report.chart_frame import CHART_WIDTH, Axis, draw_figure, draw_lower_side

numbers = st.lists(st.none() | st.floats() | st.integers())


@given(numbers, st.booleans(), st.booleans())
def test_an_axis_covers_its_values_with_few_round_ticks(
    values: list[float | None], from_zero: bool, is_count: bool
) -> None:
    axis = Axis.covering("x", values, from_zero=from_zero, is_count=is_count)
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 11
    assert (axis.ticks[0], axis.ticks[-1]) == (axis.low, axis.high)
    assert all(after > before for before, after in itertools.pairwise(axis.ticks))
    assert len(axis.labels()) == len(axis.ticks)
    slack = 1e-6 * (axis.high - axis.low)
    for value in values:
        if isinstance(value, float) and abs(value) < 1e30:
            assert axis.low - slack <= value <= axis.high + slack
            assert 0 <= axis.place(value) <= 1
    if from_zero:
        assert axis.low <= 0 <= axis.high


@given(numbers)
def test_a_logarithmic_axis_covers_positive_values_by_decades(values: list[float | None]) -> None:
    axis = Axis.logarithmic("x", values)
    assert 0 < axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 11
    assert all(0 <= axis.place(value) <= 1 for value in (-1.0, 0.0, 1.0, 1e40))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0, 551], ["0", "100", "200", "300", "400", "500", "600"]),
        ([0.646, 0.656], ["0.646", "0.648", "0.650", "0.652", "0.654", "0.656"]),
        ([-0.1, 1.25], ["−0.2", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0", "1.2", "1.4"]),  # noqa: RUF001
        ([0, 6e9], ["0", "1e+09", "2e+09", "3e+09", "4e+09", "5e+09", "6e+09"]),
    ],
)
def test_labels(values: list[float], labels: list[str]) -> None:
    assert Axis.covering("x", values).labels() == labels


@given(numbers)
def test_labels_differ(values: list[float | None]) -> None:
    labels = Axis.covering("x", values).labels()
    assert len(set(labels)) == len(labels)


def test_counts_have_whole_ticks() -> None:
    assert Axis.covering("step", [0, 2], is_count=True).labels() == ["0", "1", "2"]


def test_one_value_lies_in_the_middle() -> None:
    assert Axis.covering("x", [8.0]).place(8.0) == pytest.approx(0.5)
    assert Axis.covering("x", [0.0], from_zero=True).low == 0


def test_place() -> None:
    assert [Axis.covering("x", [0, 10]).place(value) for value in (-5, 0, 5, 10, 99)] == [0, 0, 0.5, 1, 1]
    assert Axis.logarithmic("x", [1, 100]).place(10) == pytest.approx(0.5)


def test_labels_of_the_lower_side_do_not_touch() -> None:
    axis = Axis.covering("x", [1.23456e12, 1.23457e12])
    drawn = draw_lower_side(axis, lambda value: 60 + 400 * axis.place(value), 60, 250)
    labels = [element for element in read_page(drawn).all("text") if element.text != "x"]
    assert 1 <= len(labels) < len(axis.ticks)
    middles = [float(label.attributes["x"]) for label in labels]
    assert all(b - a > 7 * len(labels[0].text) for a, b in itertools.pairwise(middles))
    assert middles[-1] + 3.5 * len(labels[-1].text) <= CHART_WIDTH


def test_a_figure_says_what_it_is() -> None:
    found = read_page(
        draw_figure("A <title>", [("b & c", "<svg aria-hidden='true'></svg>")], "what & why", 100, "<g/>")
    )
    assert found.texts("figcaption") == ["A <title>"]
    assert found.texts("li") == ["b & c"]
    assert found.texts("title") == ["what & why"]
