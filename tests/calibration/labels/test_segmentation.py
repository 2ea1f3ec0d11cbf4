from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from support.properties import examples
from yolact_calibration.labels.fields import FieldError
from yolact_calibration.labels.segmentation import draw, read_segmentation
from yolact_runtime.masks.masks import Masks

HEIGHT, WIDTH = 12, 16
TRIANGLE = [[1.5, 2, 9, 3.25, 4, 10]]
COORDINATE = st.one_of(st.integers(-5, 25), st.floats(-5, 25))
RING = st.lists(COORDINATE, min_size=3, max_size=12).flatmap(
    lambda xs: st.lists(COORDINATE, min_size=len(xs), max_size=len(xs)).map(
        lambda ys: [value for pair in zip(xs, ys, strict=True) for value in pair]
    )
)


def drawn(*segmentations: Any) -> Masks:
    read = [read_segmentation(value, HEIGHT, WIDTH)[0] for value in segmentations]
    return draw([value for value in read if value is not None], HEIGHT, WIDTH)


@examples(150)
@given(rings=st.lists(RING, min_size=1, max_size=3))
def test_polygons_are_drawn_as_coco_does(rings: list[list[float]]) -> None:
    """Also where pieces were left out as no outlines: they cover no pixel."""
    floats = [[float(value) for value in ring] for ring in rings]
    assert drawn(rings).rle()[0]["counts"] == coco.merge(coco.frPyObjects(floats, HEIGHT, WIDTH))["counts"].decode()


def test_run_lengths_are_read_compressed_and_not() -> None:
    dense = np.random.default_rng(0).random((2, HEIGHT, WIDTH)) < 0.5
    compressed = Masks.from_dense(dense).rle()
    flat = [int(value) for value in np.flatnonzero(np.diff(np.r_[0, dense[0].T.ravel(), 0]))]
    plain = {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *flat, HEIGHT * WIDTH]).tolist()}
    as_bytes = {**compressed[1], "counts": str(compressed[1]["counts"]).encode()}
    masks = drawn(*compressed, plain, as_bytes)
    np.testing.assert_array_equal(masks.dense(), np.stack([*dense, dense[0], dense[1]]))
    assert drawn(plain) == drawn(json.loads(json.dumps(compressed[0])))


def test_numbers_with_a_fraction_of_zero_are_whole() -> None:
    plain = {"size": [float(HEIGHT), WIDTH], "counts": [2.0, 3, HEIGHT * WIDTH - 5]}
    assert drawn(plain).area().tolist() == [3]


@pytest.mark.parametrize("nothing", [None, [], [[]], [[], []]], ids=str)
def test_nothing_is_no_outline(nothing: Any) -> None:
    assert read_segmentation(nothing, HEIGHT, WIDTH) == (None, 0)


def test_pieces_are_judged_one_by_one() -> None:
    kept, num_stray = read_segmentation([[1, 2], *TRIANGLE, [3, 3, 3, 3, 3, 3], []], HEIGHT, WIDTH)
    assert num_stray == 2
    assert kept is not None
    assert [list(ring) for ring in kept] == TRIANGLE
    assert read_segmentation([[1, 2], [1, 2, 3, 4]], HEIGHT, WIDTH) == ((), 2)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([1, 2, 3, 4, 5, 6], "segmentation is a list of 6; it must be a list of polygons"),
        ([["1", "2", "3", "4", "5", "6"]], "has the coordinate '1' at index 0"),
        ([[1, 2, 3, 4, 5, True]], "has the coordinate true at index 5"),
        ([[1, 2, 3, 4, 5, float("nan")]], "has the coordinate nan at index 5"),
        ([[1, 2, 3, 4, 5, 10**400]], "has the coordinate a number of 1329 bits at index 5"),
        ([[[1, 2], [3, 4], [5, 6]]], r"has the coordinate \[1, 2\] at index 0"),
        ([[0, 0, 9e6, 0, 9e6, 9e6]], "an outline of 2.7e\\+07 pixels"),
        ("polygon", "segmentation is 'polygon'"),
        (5, "segmentation is 5"),
        ({}, "a mask of size null"),
        ({"size": [HEIGHT, WIDTH]}, "has the counts null"),
        ({"size": [HEIGHT, WIDTH], "counts": 5}, "has the counts 5"),
        ({"size": [WIDTH, HEIGHT], "counts": "0"}, r"a mask of size \[16, 12\] in an image of \[12, 16\]"),
        ({"size": [HEIGHT, WIDTH], "counts": "not RLE"}, "segmentation: "),
        ({"size": [HEIGHT, WIDTH], "counts": "52"}, "run-length counts add up to 7 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "run lengths of 3 pixels, but the image has 192"),
        ({"size": [HEIGHT, WIDTH], "counts": [200, -8]}, "has the run length 200"),
        ({"size": [HEIGHT, WIDTH], "counts": [192, None]}, "has the run length null"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "run lengths of 0 pixels"),
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation: Any, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        read_segmentation(segmentation, HEIGHT, WIDTH)
