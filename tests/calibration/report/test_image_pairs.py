from __future__ import annotations

from typing import Any

import pytest

from support.html_checker import read_page
from support.precision_documents import make_document
from yolact_calibration.report.image_pairs import draw_changed_images, draw_held_back

DOCUMENT = make_document(num_tensors=1, num_images=2)
ADDRESS = "data:image/jpeg;base64,AAAA"


def test_images_lie_side_by_side_with_a_text() -> None:
    found = read_page(draw_changed_images(DOCUMENT["worst_images"]))
    assert [image.attributes["alt"] for image in found.all("img")[:2]] == [
        "00000.png, FP32",
        "00000.png, INT8",
    ]
    assert found.texts("figcaption")[0].startswith("00000.png: mean IoU 0.79, ")
    assert "new" not in found.texts("figcaption")[0]
    assert found.texts("figcaption")[1].endswith(", 1 new")


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "https://example.org/a.png",
        "data:image/svg+xml;base64,AAAA",
        "data:text/html;base64,AAAA",
        'data:image/png;base64,AA" onerror="x',
        "data:image/png;base64,",
    ],
)
def test_only_pictures_that_lie_in_the_page_are_shown(address: str | None) -> None:
    found = read_page(draw_changed_images([{"name": "a", "reference": address, "candidate": address}]))
    assert not found.all("img")
    assert found.texts("span") == ["FP32: no picture", "INT8: no picture"]
    found = read_page(draw_changed_images([{"name": "a", "reference": address, "sides": ["FP32", "FP16 <b>"]}]))
    assert found.texts("span") == ["FP32: no picture", "FP16 <b>: no picture"]


def test_no_images() -> None:
    assert draw_changed_images(None) == ""
    assert "No image changed." in draw_changed_images([])


def _picture(name: str, rank: str, **facts: Any) -> dict[str, Any]:
    shown = {"reference": ADDRESS, "candidate": ADDRESS, "sides": ("labels", "found")}
    return {
        "name": name,
        "rank": rank,
        "loss": 0.25,
        "num_reference": 1,
        "num_matched": 1,
        "num_extra": 0,
        **shown,
        **facts,
    }


def test_held_back_images_are_grouped_by_rank_and_the_rule_is_stated() -> None:
    pictures = [_picture("c.png", "worst", num_reference=3, num_extra=2), _picture("a.png", "best")]
    found = read_page(draw_held_back({"num_images": 12, "num_empty": 1, "truth": "labels", "pictures": pictures}))
    assert found.texts("h3") == ["Best", "Worst"]
    assert found.texts("figcaption") == [
        "a.png: mean IoU 0.75, 1 of 1 object found",
        "c.png: mean IoU 0.75, 1 of 3 objects found, 2 false",
    ]
    assert [image.attributes["alt"] for image in found.all("img")[:2]] == ["a.png, labels", "a.png, found"]
    (rule,) = found.texts("p")
    assert rule.startswith("12 images that the model was not trained on, ranked by mean mask IoU against the labels: ")
    assert "1 of them shows no object, which is what was found, and is not ranked." in rule


def test_nothing_on_any_held_back_image() -> None:
    drawn = draw_held_back({"num_images": 1, "num_empty": 1, "truth": "labels", "pictures": []})
    assert read_page(drawn).texts("p") == ["There is nothing to see on 1 image: no object, and no detection."]
