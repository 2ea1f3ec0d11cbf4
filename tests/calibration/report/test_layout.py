"""Charts and pages as a browser lays them out, with any names and any numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import Phase, given
from hypothesis import strategies as st

from support.browser import Browser
from support.page_faults import faults, faults_everywhere
from support.precision_documents import make_document
from support.properties import examples
from yolact_calibration.report.bar_charts import draw_bars, draw_histogram
from yolact_calibration.report.chart_frame import Axis
from yolact_calibration.report.charts import Limit, Point, Series, draw_plot
from yolact_calibration.report.html_page import definitions, draw_page, figure, text
from yolact_calibration.report.html_table import Column, table
from yolact_calibration.report.precision_report import draw_precision_report

_LETTERS = st.sampled_from([*"iWm@ .,-_/<&\"'0", *"éüß", *"日本語", *"אב", "🎈", "\u0301", "\u202e"])
NAMES = (
    st.text(_LETTERS, max_size=12)
    | st.text(_LETTERS, min_size=30, max_size=90)
    | st.sampled_from(["", "fpn downsample", "W" * 80, "backbone.layer3.22.conv2.weight_quantized", "a b " * 30])
)
"""Of classes, files, layers, networks: short, long, in any script, with and without a place to break."""
NUMBERS = (
    st.none()
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.floats(-100, 100)
    | st.sampled_from([0.0, 1e-30, -1e-9, 1e30, 123456.789, 1.0])
)

_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Pages are not made smaller when one is at fault: that would take minutes, and the fault names its element."""


def _page(body: str) -> str:
    return draw_page("layout", body)


@st.composite
def _bars(draw: st.DrawFn) -> str:
    names = draw(st.lists(NAMES, min_size=1, max_size=6))
    rows = st.lists(NUMBERS, min_size=len(names), max_size=len(names))
    groups = draw(st.lists(st.tuples(NAMES, rows), min_size=1, max_size=5))
    axis = Axis.covering(draw(NAMES), [value for _, values in groups for value in values], from_zero=True)
    return draw_bars(draw(NAMES), axis, names, groups)


_POINTS = st.builds(
    Point,
    NUMBERS.map(lambda x: math.nan if x is None else x),
    NUMBERS.map(lambda x: math.nan if x is None else x),
    NUMBERS,
    NUMBERS,
    st.just("") | NAMES,
    st.booleans(),
)
_SERIES = st.builds(
    Series, NAMES, st.lists(_POINTS, max_size=6), st.sampled_from(["line", "steps", "points", "front"]), st.just(0.0)
)  # fmt: skip


@st.composite
def _plots(draw: st.DrawFn) -> str:
    series = draw(st.lists(_SERIES, min_size=1, max_size=7))
    points = [point for one in series for point in one.points]
    ends = [end for point in points for end in (point.y, point.low, point.high)]
    limit = draw(st.none() | st.builds(Limit, st.floats(-200, 200), NAMES))
    is_logarithmic, from_zero = draw(st.booleans()), draw(st.booleans())
    x = Axis.covering(draw(NAMES), [point.x for point in points], from_zero=from_zero, is_count=draw(st.booleans()))
    title = draw(NAMES)
    y = Axis.logarithmic(title, ends) if is_logarithmic else Axis.covering(title, ends, from_zero=from_zero)
    return draw_plot(draw(NAMES), x, y, series, limit)


@st.composite
def _tables(draw: st.DrawFn) -> str:
    columns = draw(st.lists(st.builds(Column, NAMES, st.booleans()), min_size=1, max_size=14))
    edges = [0.0, 1.0, 2.0, 5.0]
    histogram = st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(lambda c: draw_histogram(edges, c, 0.5, 4.0))
    cells = NAMES.map(text) | NUMBERS.map(figure) | NAMES.map(lambda name: f"<code>{text(name)}</code>") | histogram
    row = st.lists(cells, min_size=len(columns), max_size=len(columns))
    return table(draw(NAMES), columns, draw(st.lists(row, min_size=1, max_size=4)))


@pytest.mark.parametrize("kind", [_bars(), _plots(), _tables()], ids=["bars", "plots", "tables"])
def test_nothing_is_cut_or_hidden_whatever_the_names_and_numbers(kind: Any, browser: Browser) -> None:
    @given(kind, st.sampled_from([320, 390, 768, 1280]), st.booleans())
    @examples(30, phases=_PHASES)
    def holds(drawn: str, width: int, is_dark: bool) -> None:
        assert faults(browser, _page(f'<div class="charts">{drawn}</div>'), width, is_dark=is_dark) == []

    holds()


def test_charts_tables_and_definitions_fit_on_paper(browser: Browser) -> None:
    @given(_bars(), _plots(), _tables(), st.lists(st.tuples(NAMES, NAMES.map(text)), max_size=3))
    @examples(8, phases=_PHASES)
    def holds(bars: str, plot: str, drawn: str, entries: list[tuple[str, str]]) -> None:
        body = f'<div class="charts">{bars}{plot}</div>{drawn}{definitions(entries)}'
        assert faults_everywhere(browser, _page(body)) == {}

    holds()


def test_a_precision_report_is_whole_everywhere(browser: Browser) -> None:
    assert faults_everywhere(browser, draw_precision_report(make_document(num_tensors=20))) == {}


def test_the_check_finds_what_it_is_for(browser: Browser) -> None:
    cut = '<svg viewBox="0 0 100 40" role="img"><text x="60" y="20">a long label</text></svg>'
    over = '<svg viewBox="0 0 400 40" role="img"><text x="0" y="20">one</text><text x="9" y="20">two</text></svg>'
    for body, told in (
        (cut, "outside of its picture"),
        (over, "lies on"),
        ('<div style="width: 2000px">wide</div>', "reaches from"),
        ('<p style="overflow: hidden; white-space: nowrap; width: 20px">cut off</p>', "is cut"),
        ('<div class="scroll"><div style="width: 2000px">wide</div></div>', "no word of columns aside"),
        ('<p style="color: #999">faint</p>', "contrast 2.85"),
    ):
        assert any(told in line for line in faults(browser, _page(body))), told
