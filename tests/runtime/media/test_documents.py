from __future__ import annotations

import json

import numpy as np
import pytest

from support.scenes import make_instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.documents import image_document

NAMES = ("cat", "dog")
BOXES = [(0.0, 0.0, 4.0, 3.0), (2.126, 1.0, 5.0, 6.0)]


def test_the_document_of_an_image() -> None:
    instances = make_instances(6, 8, BOXES, class_id=[1, 0])
    document = image_document("a/b.png", instances, NAMES)
    masks = instances.mask.rle()
    assert document == {
        "file": "a/b.png",
        "height": 6,
        "width": 8,
        "instances": [
            {"class_id": 1, "class_name": "dog", "confidence": 0.9, "xyxy": [0.0, 0.0, 4.0, 3.0], "mask": masks[0]},
            {"class_id": 0, "class_name": "cat", "confidence": 0.89, "xyxy": [2.13, 1.0, 5.0, 6.0], "mask": masks[1]},
        ],
    }


def test_mask_confidence_appears_only_when_there_is_one() -> None:
    instances = make_instances(6, 8, BOXES, mask_confidence=[0.1234567, 1.5])
    first, second = image_document("x", instances, NAMES)["instances"]
    assert (first["mask_confidence"], second["mask_confidence"]) == (0.123457, 1.5)


def test_it_survives_json_and_the_masks_come_back() -> None:
    instances = make_instances(6, 8, BOXES, class_id=[1, 0], mask_confidence=[0.5, 0.25])
    document = image_document("x", instances, NAMES)
    back = json.loads(json.dumps(document, allow_nan=False))
    assert back == document
    assert Masks.from_rle([entry["mask"] for entry in back["instances"]]) == instances.mask


def test_an_image_without_instances() -> None:
    assert image_document("x", make_instances(6, 8, []), NAMES) == {
        "file": "x",
        "height": 6,
        "width": 8,
        "instances": [],
    }


@pytest.mark.parametrize("field", ["class_id", "confidence"])
def test_numbers_are_pythons_own(field: str) -> None:
    (entry,) = image_document("x", make_instances(6, 8, BOXES[:1]), NAMES)["instances"]
    assert not isinstance(entry[field], np.generic)
