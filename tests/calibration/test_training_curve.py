from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from yolact_calibration.training_curve import draw_curve
from yolact_calibration.training_state import Curve

_VOID = {"meta", "br"}


class Checker(HTMLParser):
    """Raises where tags do not close in the order they opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.points: list[tuple[float, float]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        points = dict(attrs).get("points") if tag == "polyline" else None
        for pair in (points or "").split():
            x, y = map(float, pair.split(","))
            self.points.append((x, y))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def make_curve(num_steps: int, scale: float = 1.0) -> Curve:
    curve = Curve.empty()
    for step in range(num_steps):
        curve.add_step({"box": scale / (step + 1), "class": 2 * scale / (step + 1)})
    if num_steps:
        curve.add_accuracy(num_steps, {"mask AP": 0.625, "box AP": 0.5})
    return curve


@pytest.mark.parametrize("num_steps", [1, 2, 50, 1000])
def test_the_page_stands_alone_and_its_lines_stay_in_the_picture(num_steps: int) -> None:
    page = draw_curve(make_curve(num_steps), "model.pth")
    assert not re.search(r"http|src=|href=|@import|url\(", page)
    found = read(page)
    assert {"box", "class", "mask AP", "box AP"} <= set(found.text)
    assert f"{num_steps} steps." in found.text
    assert any("mask AP 0.625" in text for text in found.text)
    assert len(found.points) >= 4
    assert all(0 <= x <= 860 and 0 <= y <= 280 for x, y in found.points)


def test_names_are_escaped() -> None:
    curve = Curve({"<b>": [1.0]}, [(1, {"a&b": 0.5})])
    found = read(draw_curve(curve, "<script>.pth"))
    assert "script" not in " ".join(found.open)
    assert {"<b>", "a&b", "<script>.pth"} <= set(found.text)


@pytest.mark.parametrize(
    "curve", [Curve.empty(), Curve({"box": [0.0, 0.0]}, []), make_curve(3, 1e-9), make_curve(3, 1e6)]
)
def test_any_scale_can_be_drawn(curve: Curve) -> None:
    found = read(draw_curve(curve, "x"))
    assert all(0 <= x <= 860 and 0 <= y <= 280 for x, y in found.points)


def test_larger_values_are_higher() -> None:
    found = read(draw_curve(Curve({"box": [10.0, 1.0, 0.1]}, []), "x"))
    heights = [y for _, y in found.points]
    assert heights == sorted(heights)
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)  # logarithmic
