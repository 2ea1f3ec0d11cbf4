"""What is doubtful about labels is told with a count and the ids, and what is sound is not doubted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_calibration.evaluation.label_truth import truth_objects
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.doubts import find_doubts

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
SOUND: dict[str, Any] = {"bbox": [10, 10, 20, 20], "area": 400, "segmentation": [SQUARE]}


def labels(*entries: dict[str, Any], height: int = 40, width: int = 60) -> CocoAnnotations:
    shared = {"image_id": 1, "category_id": 1}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": i, **shared, **entry} for i, entry in enumerate(entries, start=1)],
    }
    return CocoAnnotations.from_document(document, "labels.json")


def findings(*entries: dict[str, Any]) -> list[str]:
    """Without drawing everything, as a training looks; an evaluation finds the same."""
    annotations = labels(*entries)
    found = list(find_doubts(annotations).findings())
    evaluated = truth_objects(annotations, {1: 1}, {1: 1, 2: 2})[1]
    assert [
        sentence for sentence in evaluated if "without an area" not in sentence and "boxes only" not in sentence
    ] == found
    return found


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (SOUND, None),
        (SOUND | {"iscrowd": 1}, "all annotations (1) are crowds"),
        (SOUND | {"segmentation": [[x + 100 for x in SQUARE]]}, "an outline that covers no pixel of the image"),
        (SOUND | {"segmentation": [[10, 10, 20, 10, 30, 10]]}, "an outline that covers no pixel of the image"),
        (SOUND | {"segmentation": {"size": [40, 60], "counts": [2400]}}, "an outline that covers no pixel"),
        ({"bbox": [0.1, 0.2, 0.3, 0.4]}, "fractions of its width and height"),
        ({"bbox": [30, 20, 50, 35]}, "a quarter or more is outside of the image"),
        ({"bbox": [100, 100, 20, 20]}, "a quarter or more is outside of the image"),
        ({"bbox": [-1, -1, 62, 42]}, None),
        ({"bbox": [50, 30, 11, 11]}, None),
        (SOUND | {"segmentation": [[20, 20, 50, 20, 50, 38, 20, 38]], "area": 540}, "not around the outline"),
    ],
)
def test_what_is_doubtful_is_told_and_what_is_sound_is_not(entry: dict[str, Any], words: str | None) -> None:
    found = findings(entry)
    assert len(found) == (words is not None)
    assert all(words in sentence for sentence in found if words is not None)
    assert all("1 in a.png" in sentence or "crowds" in sentence for sentence in found)


def test_no_annotation_at_all_is_told() -> None:
    (sentence,) = findings()
    assert "these images have no annotations" in sentence


def test_an_annotation_that_is_there_twice_is_told_and_neighbours_are_not() -> None:
    other = SOUND | {"segmentation": [[10, 10, 30, 10, 30, 30]], "area": 200}
    (sentence,) = findings(SOUND, SOUND | {"category_id": 2}, other, SOUND | {"iscrowd": 1}, SOUND, SOUND)
    assert sentence.startswith("2 annotations with the category, box and outline of another one in the same image")
    assert sentence.endswith(": 5 in a.png, 6 in a.png")
    assert len(findings({"bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]})) == 1


POINT = st.tuples(st.integers(-20, 80), st.integers(-20, 60))


@examples(150)
@given(rings=st.lists(st.lists(POINT, min_size=3, max_size=6, unique=True), min_size=1, max_size=2))
def test_which_outlines_cover_pixels_is_known_without_drawing_most_of_them(rings: list[list[tuple[int, int]]]) -> None:
    """Exactly where little is inside; an outline around a corner of the image may pass for a covering one."""
    outline = [[float(x) for point in ring for x in point] for ring in rings]
    annotations = labels(SOUND | {"segmentation": outline})
    num_pixels = int(annotations.masks(annotations.images[0]).area()[0])
    num_drawn = find_doubts(annotations).num_drawn
    if num_pixels:
        assert num_drawn == 1
    points = np.clip(np.concatenate([np.reshape(ring, (-1, 2)) for ring in outline]), 0, [60, 40])
    if not num_pixels and (np.ptp(points, axis=0) < 8).any():
        assert num_drawn == 0
