"""What about labels makes figures doubtful, although each annotation by itself is sound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.evaluation.label_truth import truth_objects
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.doubts import _overlaps

BOX = st.tuples(*[st.integers(0, 40)] * 4)


def _findings(**changes: object) -> tuple[str, ...]:
    """About two annotations of a square of 10 x 10 pixels, of which the second is changed."""
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    sound = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 10, 10], "area": 100, "segmentation": square}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"id": 8, **sound}, {"id": 9, **sound, **changes}],
    }
    annotations = CocoAnnotations.from_document(document, "labels.json")
    return truth_objects(annotations, {1: 1}, {1: 1})[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bbox": [4, 6, 12, 9]},  # drawn by hand
        {"area": 60},  # of another way to count
        {"area": None, "segmentation": None},
        {"iscrowd": 1},
    ],
)
def test_labels_as_people_draw_them(changes: dict[str, object]) -> None:
    assert not [text for text in _findings(**changes) if "that is not" in text]


@pytest.mark.parametrize("box", [[5, 5, 15, 15], [0, 0, 10, 10], [0.1, 0.1, 0.4, 0.4], [5, 5, 0, 0], [-1, 5, 10, 10]])
def test_a_box_somewhere_else(box: list[float]) -> None:
    """Corners in place of sizes, a box without its place, fractions of the image."""
    (finding,) = (text for text in _findings(bbox=box) if text.startswith("1 annotation with a box "))
    assert finding.endswith(": 9 in a.png")


@pytest.mark.parametrize("area", [0, 0.1, 24, 401, 1e6])
def test_an_area_of_something_else(area: float) -> None:
    start = "1 annotation with an area that differs from that of the outline by more than a factor of 4"
    (finding,) = (text for text in _findings(area=area) if text.startswith(start))
    assert finding.endswith(": 9 in a.png")


def test_images_without_any_annotation() -> None:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [],
    }
    annotations = CocoAnnotations.from_document(document, "labels.json")
    (finding,) = truth_objects(annotations, {1: 1}, {1: 1})[1]
    assert "every figure is undefined" in finding


@given(st.lists(st.tuples(BOX, BOX), min_size=1, max_size=5))
@examples(150)
def test_overlaps_are_those_of_counted_pixels(pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    first, second = (np.array([[x, y, x + w, y + h] for x, y, w, h in boxes]) for boxes in zip(*pairs, strict=True))
    canvas = np.zeros((len(pairs), 2, 80, 80), bool)
    for i, boxes in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        for k, (left, top, right, bottom) in enumerate(boxes):
            canvas[i, k, top:bottom, left:right] = True
    shared = canvas.all(axis=1).sum(axis=(1, 2))
    union = canvas.any(axis=1).sum(axis=(1, 2))
    expected = [a / b if b else 0 for a, b in zip(shared, union, strict=True)]
    assert _overlaps(first.astype(float), second.astype(float)) == pytest.approx(expected)
