from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.coco import CocoAnnotations, CocoImage, boxes_xyxy, rasterise
from yolact_runtime.masks.masks import Masks

IMAGE = CocoImage(1, "a.png", 12, 16)
TRIANGLE = [[1.5, 2, 9, 3.25, 4, 10]]
TWO_RINGS = [[0, 0, 5, 0, 5, 5, 0, 5], [8, 6, 14, 6, 14, 11]]


def document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 12, "width": 16},
            {"id": 3, "file_name": "a.png", "height": 20, "width": 10},
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "segmentation": TRIANGLE},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 5, 5.5], "segmentation": TWO_RINGS},
        ],
    }


def oracle(polygons: Any) -> str:
    """The run lengths that COCO's own code makes of polygons."""
    rle = coco.merge(coco.frPyObjects(polygons, IMAGE.height, IMAGE.width))
    return str(rle["counts"], "ascii")


def test_a_file_is_read_as_it_is_except_that_images_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document()))
    annotations = CocoAnnotations.from_file(path)
    assert annotations.source == str(path)
    assert annotations.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert annotations.images == (CocoImage(3, "a.png", 20, 10), CocoImage(7, "b.png", 12, 16))
    assert (annotations.category_ids, annotations.category_names) == ((5, 2), ("dog", "cat"))
    assert [item["id"] for item in annotations.instances[7]] == [1, 2]
    assert 3 not in annotations.instances
    assert len(annotations) == 2
    np.testing.assert_array_equal(boxes_xyxy(annotations.instances[7]), np.float32([[1, 2, 4, 6], [0, 0, 5, 5.5]]))


def test_a_selection_keeps_only_its_images_and_their_instances() -> None:
    annotations = CocoAnnotations.from_document(document(), "x")
    assert [image.image_id for image in annotations.first(1).images] == [3]
    assert annotations.first(1).instances == {}
    chosen = annotations.only([7, 99])
    assert [image.image_id for image in chosen.images] == [7]
    assert set(chosen.instances) == {7}
    assert len(annotations) == 2


@pytest.mark.parametrize("segmentation", [TRIANGLE, TWO_RINGS, [[0, 0, 16, 0, 16, 12, 0, 12]]])
def test_polygons_are_rasterised_as_coco_does(segmentation: Any) -> None:
    assert rasterise([segmentation], IMAGE).rle()[0]["counts"] == oracle(segmentation)


def test_run_lengths_are_read_compressed_and_not(tmp_path: Path) -> None:
    dense = np.random.default_rng(0).random((2, 12, 16)) < 0.5
    compressed = Masks.from_dense(dense).rle()
    flat = [int(value) for value in np.flatnonzero(np.diff(np.r_[0, dense[0].T.ravel(), 0]))]
    counts = np.diff([0, *flat, 12 * 16]).tolist()
    plain = {"size": [12, 16], "counts": counts}
    masks = rasterise([*compressed, plain], IMAGE)
    np.testing.assert_array_equal(masks.dense(), np.stack([*dense, dense[0]]))
    assert rasterise([plain], IMAGE) == rasterise([json.loads(json.dumps(compressed[0]))], IMAGE)


def test_an_image_without_instances_has_no_masks() -> None:
    annotations = CocoAnnotations.from_document(document(), "x")
    masks = annotations.masks(annotations.images[0])
    assert (len(masks), masks.height, masks.width) == (0, 20, 10)
    assert len(annotations.masks(annotations.images[1])) == 2
    assert boxes_xyxy([]).shape == (0, 4)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [1, 2, 3, 4, 5, 6],
        [["1", "2", "3", "4", "5", "6"]],
        "polygon",
        {"size": [12, 16]},
        {"size": [12, 16], "counts": 5},
        {"size": [16, 12], "counts": "0"},
        {"size": [12, 16], "counts": "not RLE"},
        {"size": [12, 16], "counts": "52"},
    ],
    ids=str,
)
def test_what_is_no_segmentation_is_refused_with_the_images_name(segmentation: Any) -> None:
    with pytest.raises(DatasetError, match=r"a\.png: "):
        rasterise([TRIANGLE, segmentation], IMAGE)


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *keys, last, value = path

    def change(target: Any) -> None:
        for key in keys:
            target = target[key]
        target[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("images", []), "no images"),
        (_set("images", 0, "id", 3), "two images have the same id"),
        (_set("images", 0, "height", None), "a field is missing or of the wrong kind"),
        (_set("categories", []), "found 0 of them"),
        (_set("categories", 1, "name", "dog"), "all different"),
        (_set("categories", 1, "id", 5), "all different"),
        (_set("annotations", 0, "image_id", 8), "annotation 1 refers to image 8"),
        (_set("annotations", 0, "category_id", 1), "annotation 1 refers to image 7 and category 1"),
        (_set("annotations", 0, "bbox", [1, 2, 3]), "annotation 1: bbox has four numbers"),
        (_set("annotations", 0, {}), "a field is missing or of the wrong kind"),
        (_set("annotations", 5), "a field is missing or of the wrong kind"),
    ],
)
def test_contradictions_are_found_when_a_file_is_read(change: Callable[[Any], None], message: str) -> None:
    broken = copy.deepcopy(document())
    change(broken)
    with pytest.raises(DatasetError, match=message) as caught:
        CocoAnnotations.from_document(broken, "some.json")
    assert str(caught.value).startswith("some.json: ")


@pytest.mark.parametrize(("content", "message"), [(b"{", "not JSON"), (b"[]", "found a list"), (b"{}", "found none")])
def test_a_file_of_another_kind_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        CocoAnnotations.from_file(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read the annotations .*gone\.json: No such file"):
        CocoAnnotations.from_file(tmp_path / "gone.json")
