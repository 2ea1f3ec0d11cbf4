"""Masks that the published YOLACT models really produced, through our codecs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from yolact_runtime.masks.masks import Masks

DETECTIONS = Path(__file__).parents[4] / "shared" / "data" / "yolact_published" / "yolact_base.json"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DETECTIONS.exists(), reason="the data sets are not beside this repository"),
]


@pytest.fixture(scope="module")
def images() -> list[list[dict[str, Any]]]:
    document = json.loads(DETECTIONS.read_text())
    return [image["dets"] for image in document["images"] if image["dets"]][:60]


def test_strings_survive_decoding_and_encoding(images: list[list[dict[str, Any]]]) -> None:
    for detections in images:
        masks = Masks.from_rle([detection["mask"] for detection in detections])
        assert [rle["counts"] for rle in masks.rle()] == [detection["mask"]["counts"] for detection in detections]


def test_areas_bounds_and_overlaps_are_those_of_pycocotools(images: list[list[dict[str, Any]]]) -> None:
    for detections in images:
        rles = [detection["mask"] for detection in detections]
        masks = Masks.from_rle(rles)
        np.testing.assert_array_equal(masks.area(), coco_mask.area(rles))
        xywh = coco_mask.toBbox(rles)
        bounds = masks.bounds()
        filled = masks.area() > 0
        np.testing.assert_array_equal(bounds[filled, 2:] - bounds[filled, :2], xywh[filled, 2:])
        np.testing.assert_array_equal(bounds[filled, :2], xywh[filled, :2])
        overlap = coco_mask.iou(rles, rles, [0] * len(rles))
        np.testing.assert_allclose(masks.iou(masks), overlap, atol=1e-12)


# pycocotools 2.0.11 under NumPy 2 warns about itself.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_dense_masks_are_those_of_pycocotools(images: list[list[dict[str, Any]]]) -> None:
    for detections in images[:10]:
        rles = [detection["mask"] for detection in detections]
        dense = coco_mask.decode(rles).transpose(2, 0, 1).astype(bool)
        masks = Masks.from_rle(rles)
        np.testing.assert_array_equal(masks.dense(), dense)
        assert Masks.from_dense(dense) == masks
