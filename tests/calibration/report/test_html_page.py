from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.html_checker import read_page
from yolact_calibration.report.html_page import (
    UNDEFINED,
    definitions,
    draw_page,
    figure,
    finite,
    points,
    section,
    text,
)


def test_the_page_lets_the_browser_load_and_run_nothing() -> None:
    found = read_page(draw_page("a & b", "<p>c</p>", ".x { color: red; }"))
    policy = next(meta for meta in found.all("meta") if "http-equiv" in meta.attributes)
    assert policy.attributes["content"].startswith("default-src 'none';")
    assert found.texts("title") == ["a & b"]
    assert ".x { color: red; }" in found.texts("style")[0]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '" onload="x', "a&b", "日本語 ü", "' <b>"])
def test_text_comes_back_as_it_was(name: str) -> None:
    found = read_page(draw_page(name, f'<p title="{text(name)}">{text(name)}</p>'))
    paragraph = found.all("p")[0]
    assert paragraph.text == paragraph.attributes["title"] == name
    assert set(paragraph.attributes) == {"title"}


def test_names_that_are_no_unicode_and_control_characters_can_be_written() -> None:
    broken = b"caf\xe9\x00\n.png".decode("utf-8", "surrogateescape")
    assert text(broken) == "caf?  .png"
    draw_page(broken, text(broken)).encode()


def test_what_is_no_number_is_undefined() -> None:
    for value in (None, "3", True, math.nan, math.inf, -math.inf, [1], {}):
        assert finite(value) is None
        assert figure(value, "ms") == UNDEFINED
    assert text(None) == UNDEFINED
    assert finite(10**400) == -finite(-(10**400)) == 1e30  # type: ignore[operator]  # it is a number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (551.04, "551"),
        (41.04, "41.0"),
        (3.391, "3.39"),
        (0.012345, "0.0123"),
        (123456, "123456"),
        (-2.5, "−2.50"),  # noqa: RUF001
        (1e9, "1.00e+09"),
        (1e-7, "1.00e−07"),  # noqa: RUF001
    ],
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_figures_with_decimals_and_units() -> None:
    assert figure(0.5, decimals=2) == "0.50"
    assert figure(-0.001, decimals=2) == "0.00"
    assert figure(3, "ms", decimals=0) == "3\N{NO-BREAK SPACE}ms"


@given(st.floats() | st.integers())
def test_any_number_has_a_short_figure(value: float) -> None:
    assert 1 <= len(figure(value)) <= 11
    assert 1 <= len(figure(value, decimals=2)) <= 12


def test_points_have_their_interval_below() -> None:
    assert points([0.4, -0.1, 0.9]) == "0.40<small>−0.10 to 0.90</small>"  # noqa: RUF001
    assert points([0.4]) == points([0.4, None, 0.9]) == "0.40"
    assert points(None) == points([]) == points([None, None, None]) == UNDEFINED


def test_definitions() -> None:
    found = read_page(definitions([("a<", "<code>b</code>")]))
    assert (found.texts("dt"), found.texts("dd")) == (["a<"], ["b"])


def test_a_section_without_a_body_is_left_out() -> None:
    found = read_page(section("Peers, side by side", "<p>a</p>"))
    assert [heading.attributes["id"] for heading in found.all("h2")] == ["peers-side-by-side"]
    assert section("Peers", "") == ""
