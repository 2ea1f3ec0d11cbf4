from __future__ import annotations

import pytest

from support.html_checker import Page, read_page
from yolact_calibration.report.training_curve import draw_curve
from yolact_calibration.training.training_state import Curve


def make_curve(num_steps: int, scale: float = 1.0) -> Curve:
    curve = Curve.empty()
    for step in range(num_steps):
        curve.add_step({"box": scale / (step + 1), "class": 2 * scale / (step + 1)})
    if num_steps:
        curve.add_accuracy(num_steps, {"mask AP": 0.625, "box AP": 0.5})
    return curve


def require_inside(page: Page) -> None:
    for x, y in (corner for line in page.corners() for corner in line):
        assert 0 <= x <= 480
        assert 0 <= y <= 300


@pytest.mark.parametrize("num_steps", [1, 2, 50, 1000])
def test_the_page_stands_alone_and_its_lines_stay_in_the_picture(num_steps: int) -> None:
    found = read_page(draw_curve(make_curve(num_steps), "model.pth"))
    assert found.texts("li") == ["box", "class", "mask AP", "box AP"]
    assert found.texts("p") == [
        f"{num_steps} step{'s' * (num_steps != 1)}. Accuracy at the end: mask AP 0.625, box AP 0.500."
    ]
    assert found.texts("figcaption") == ["Loss terms", "Accuracy on images not trained on"]
    assert {"training step", "loss", "average precision"} <= set(found.texts("text"))
    assert len(found.corners()) == 4 + 4  # the curves and their samples in the legends
    require_inside(found)


def test_predictions_and_the_provenance_of_the_page() -> None:
    address = "data:image/jpeg;base64,AAAA"
    picture = {"name": "a.png", "rank": "worst", "loss": 0.5, "reference": address, "candidate": address}
    held_back = {"num_images": 1, "num_empty": 0, "truth": "labels", "pictures": [picture]}
    made = {"date": "2026-11-27 21:30 UTC", "command": "yolact-finetune base.pth"}
    found = read_page(draw_curve(make_curve(3), "m.pth", held_back, made))
    assert found.texts("h2") == ["Predictions on held-back images", "How this page was made"]
    assert len(found.all("img")) == 2
    assert found.texts("dd") == ["2026-11-27 21:30 UTC", "yolact-finetune base.pth"]


def test_names_are_escaped() -> None:
    curve = Curve({"<b>": [1.0]}, [(1, {"a&b": 0.5})])
    found = read_page(draw_curve(curve, "<script>.pth"))
    assert found.texts("li") == ["<b>", "a&b"]
    assert found.texts("h1") == found.texts("title")[:1] == ["<script>.pth"]


@pytest.mark.parametrize(
    "curve",
    [
        Curve.empty(),
        Curve({"box": [0.0, 0.0]}, []),
        Curve({"box": [1.0, float("nan"), float("inf"), 2.0]}, [(4, {"mask AP": float("nan")})]),
        make_curve(3, 1e-9),
        make_curve(3, 1e6),
    ],
)
def test_any_scale_can_be_drawn(curve: Curve) -> None:
    require_inside(read_page(draw_curve(curve, "x")))


def test_larger_values_are_higher() -> None:
    found = read_page(draw_curve(Curve({"box": [10.0, 1.0, 0.1]}, []), "x"))
    heights = [y for _, y in found.corners()[-1]]
    assert heights == sorted(heights)
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)  # logarithmic
