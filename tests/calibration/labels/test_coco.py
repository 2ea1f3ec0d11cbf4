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
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage, boxes_xyxy

IMAGE = CocoImage(7, "b.png", 12, 16)
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


def changed(**fields: Any) -> CocoAnnotations:
    """The file with other fields of its first annotation."""
    other = copy.deepcopy(document())
    other["annotations"][0] |= fields
    return CocoAnnotations.from_document(other, "some.json")


# --- what is read -----------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_is_except_that_images_are_sorted(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document()))
    annotations = CocoAnnotations.from_file(path)
    assert annotations.source == str(path)
    assert annotations.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert annotations.images == (CocoImage(3, "a.png", 20, 10), CocoImage(7, "b.png", 12, 16))
    assert (annotations.category_ids, annotations.category_names) == ((5, 2), ("dog", "cat"))
    assert [item.annotation_id for item in annotations.instances[7]] == [1, 2]
    assert 3 not in annotations.instances
    assert (len(annotations), annotations.num_instances, annotations.num_outlines) == (2, 2, 2)
    np.testing.assert_array_equal(boxes_xyxy(annotations.instances[7]), np.float32([[1, 2, 4, 6], [0, 0, 5, 5.5]]))


def test_a_document_is_left_as_it_was() -> None:
    mine = document()
    CocoAnnotations.from_document(mine, "x")
    assert mine == document()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_windows_editors_may_have_saved_the_file(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document()).replace('"cat"', '"Kätzchen"'), encoding=encoding)
    assert CocoAnnotations.from_file(path).category_names == ("dog", "Kätzchen")


def test_a_selection_keeps_only_its_images_and_their_instances() -> None:
    annotations = CocoAnnotations.from_document(document(), "x")
    assert [image.image_id for image in annotations.first(1).images] == [3]
    assert annotations.first(1).instances == {}
    chosen = annotations.only([7, 99])
    assert [image.image_id for image in chosen.images] == [7]
    assert set(chosen.instances) == {7}
    assert len(annotations) == 2


def test_masks_are_drawn_as_coco_does() -> None:
    annotations = CocoAnnotations.from_document(document(), "x")
    masks = annotations.masks(annotations.images[1])
    for rle, polygons in zip(masks.rle(), (TRIANGLE, TWO_RINGS), strict=True):
        assert rle["counts"] == coco.merge(coco.frPyObjects(polygons, 12, 16))["counts"].decode()
    empty = annotations.masks(annotations.images[0])
    assert (len(empty), empty.height, empty.width) == (0, 20, 10)
    assert boxes_xyxy([]).shape == (0, 4)


def test_ids_are_the_same_as_numbers_and_as_text() -> None:
    other = document()
    other["images"][0]["id"] = "7"
    other["categories"][0]["id"] = 5.0
    other["annotations"][0] |= {"image_id": 7.0, "category_id": "2"}
    other["annotations"][1] |= {"image_id": "7", "category_id": "5", "id": "002"}
    annotations = CocoAnnotations.from_document(other, "x")
    assert annotations.instances[7][0] == changed().instances[7][0]
    # Text that is no number as JSON writes it is an id of its own.
    assert annotations.instances[7][1].annotation_id == "002"


def test_text_ids_come_after_numbers() -> None:
    other = document()
    other["images"].append({"id": "img_7", "file_name": "c.png", "height": 5, "width": 5})
    other["annotations"].append({"image_id": "img_7", "category_id": 2, "bbox": [0, 0, 1, 1]})
    annotations = CocoAnnotations.from_document(other, "x")
    assert [image.image_id for image in annotations.images] == [3, 7, "img_7"]
    assert annotations.instances["img_7"][0].annotation_id is None


@pytest.mark.parametrize(("value", "expected"), [(None, False), (0, False), ("0", False), (False, False), (1, True)])
def test_a_crowd_is_a_flag_and_null_is_none(value: Any, expected: bool) -> None:
    assert changed(iscrowd=value).instances[7][0].is_crowd is expected


def test_null_is_the_default_of_optional_fields() -> None:
    item = changed(iscrowd=None, area=None, segmentation=None, id=None).instances[7][0]
    assert (item.is_crowd, item.area, item.segmentation, item.annotation_id) == (False, None, None, None)


def test_an_instance_without_an_outline_has_the_pixels_of_its_box() -> None:
    annotations = changed(segmentation=None, bbox=[1, -2, 3, 1e7])
    dense = annotations.masks(annotations.images[1]).dense()[0]
    assert dense[:, 1:4].all()
    assert dense.sum() == 3 * 12
    assert (annotations.num_instances, annotations.num_outlines, annotations.has_boxes_only) == (2, 1, False)


@pytest.mark.parametrize("nothing", [None, [], [[]]], ids=str)
def test_labels_with_boxes_only_know_it(nothing: Any) -> None:
    other = document()
    for entry in other["annotations"]:
        entry["segmentation"] = nothing
    assert CocoAnnotations.from_document(other, "x").has_boxes_only
    assert not CocoAnnotations.from_document({**other, "annotations": []}, "x").has_boxes_only


# --- stray pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", [[3, 4], [3, 4, 5, 6], [3, 4, 3, 4, 3, 4], [3, 4, 5, 6, 7], [1, 1, 2, 2, 1, 1, 2, 2]])
def test_a_stray_piece_beside_a_good_outline_is_left_out_and_counted(stray: list[float]) -> None:
    annotations = changed(segmentation=[*TRIANGLE, stray])
    assert annotations.findings == (
        "left out: 1 piece with fewer than 3 different points beside the outlines of 1 annotation: 1 in b.png",
    )
    plain = changed()
    assert plain.findings == ()
    assert annotations.masks(annotations.images[1]) == plain.masks(plain.images[1])


def test_annotations_of_nothing_but_stray_pieces_are_counted_and_named_with_their_images() -> None:
    other = document()
    for number, entry in enumerate(other["annotations"], start=40):
        entry |= {"id": number, "segmentation": [[1, 2]]}
    other["annotations"].append({"image_id": 3, "category_id": 2, "bbox": [0, 0, 1, 1], "segmentation": [[1, 2, 3, 4]]})
    with pytest.raises(DatasetError, match=r"3 annotations .* points and lines only") as caught:
        CocoAnnotations.from_document(other, "some.json")
    assert "40 in b.png, 41 in b.png, [2] in a.png" in str(caught.value)


def test_an_outline_whose_points_coincide_is_read_as_coco_has_some() -> None:
    annotations = changed(segmentation=[[2, 3, 2, 3, 4, 3, 4, 3, 2, 3]])
    assert annotations.findings == ()
    assert annotations.masks(annotations.images[1]).area()[0] == 0


# --- what is refused --------------------------------------------------------------------------------------------------


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
        (_set("images", []), "the list of images is empty"),
        (_set("images", {}), "images is an empty object; it must be a list of objects"),
        (_set("images", 0, "id", 3), "two images have the same id, 3"),
        (_set("images", 0, "id", "3"), "two images have the same id, 3"),
        (_set("images", 0, "file_name", "a.png"), "the images 7 and 3 are the same file, 'a.png'"),
        (
            _set("images", 0, "height", None),
            r"images\[0\] \(id 7\): height is null; it must be a whole number of pixels",
        ),
        (_set("images", 1, "width", 1.5), r"images\[1\] \(id 3\): width is 1.5"),
        (
            _set("images", 0, {"id": 1, "file_name": "c", "height": 2**20, "width": 2**20}),
            "exceed the maximum of 1073741824",
        ),
        (_set("images", 0, "file_name", "a\0b"), r"file_name is 'a\\x00b'; it must be the path of an image"),
        (_set("images", 0, "id", 2**63), "an id must be a whole number of at most 64 bits, or text"),
        (_set("images", 0, "id", True), "id is true; an id must be"),
        (_set("categories", []), "the list of categories is empty"),
        (_set("categories", 1, "id", 5), "two categories have the same id, 5"),
        (_set("categories", 1, "name", ""), r"categories\[1\] \(id 2\): name is ''"),
        (_set("categories", 1, "name", "dog"), "two categories with annotations have the same name, 'dog'"),
        (
            _set("annotations", 0, "image_id", 8),
            r"annotations\[0\] \(id 1\): image_id is 8, which is not the id of an image",
        ),
        (_set("annotations", 0, "category_id", 1), "category_id is 1, which is not the id of a category"),
        (_set("annotations", 0, "bbox", [1, 2, 3]), r"bbox is \[1, 2, 3\]; bbox must be four numbers"),
        (_set("annotations", 0, "bbox", [1, 2, -3, 4]), "width and height 0 or more"),
        (_set("annotations", 0, "bbox", [1, 2, 3, float("inf")]), r"bbox is \[1, 2, 3, inf\]"),
        (_set("annotations", 0, "area", -1), "area is -1; it must be a number from 0 to"),
        (_set("annotations", 0, "area", float("nan")), "area is nan; it must be a number from 0 to"),
        (_set("annotations", 0, "iscrowd", 2), "iscrowd is 2; it must be 0, 1 or null"),
        (_set("annotations", 0, {}), r"annotations\[0\]: image_id is missing"),
        (_set("annotations", 0, [1]), r"annotations\[0\]: found \[1\]; it must be an object with fields"),
        (_set("annotations", 5), "annotations is 5; it must be a list of objects"),
    ],
)
def test_contradictions_are_found_when_a_file_is_read(change: Callable[[Any], None], message: str) -> None:
    broken = copy.deepcopy(document())
    change(broken)
    with pytest.raises(DatasetError, match=message) as caught:
        CocoAnnotations.from_document(broken, "some.json")
    assert str(caught.value).startswith("some.json: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "found an empty list"),
        (b"{}", "found none"),
        (b'{"images": 1, "info": 2}', "found 'images', 'info'"),
        (b"\xff\xfe\x00", "not text"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value[:20]),
)
def test_a_file_of_another_kind_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        CocoAnnotations.from_file(path)


IMAGES = '"images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 6}]'
CATEGORIES = '"categories": [{"id": 1, "name": "cat"}]'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "These are results (detections)"),
        ('[{"id": 1, "data": {"image": "a"}, "annotations": []}]', "Label Studio's own export"),
        ('{"version": "5", "shapes": [], "imagePath": "a.png", "imageData": null}', "LabelMe's file of one image"),
        ('{"_via_settings": {}, "_via_img_metadata": {}}', "VGG Image Annotator"),
        ('{"a.png12": {"filename": "a.png", "size": 12, "regions": []}}', "VGG Image Annotator"),
        (f"{{{IMAGES}, {CATEGORIES}}}", "a list of images without labels"),
        (f'{{{IMAGES}, "annotations": [{{"id": 1, "image_id": 1, "caption": "a cat"}}]}}', "these are captions"),
        (f'{{{IMAGES}, {CATEGORIES}, "annotations": [{{"image_id": 1, "caption": "a"}}]}}', "This is a caption"),
        (f'{{{IMAGES}, {CATEGORIES}, "annotations": [{{"image_id": 1, "segments_info": []}}]}}', "panoptic kind"),
        (
            '{"images": [{"id": 1, "coco_url": "http://a/b.jpg", "height": 4, "width": 6}], "annotations": [], '
            f"{CATEGORIES}}}",
            "LVIS has coco_url only",
        ),
        ('{"a": 1}', "found 'a'"),
        ("[[{}]]", "found a list of 1"),
    ],
)
def test_files_of_other_tools_are_called_what_they_are(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DatasetError, match=r"^.*x\.json: ") as caught:
        CocoAnnotations.from_file(tmp_path / "x.json")
    assert words in str(caught.value)


def test_a_device_without_an_end_is_no_file() -> None:
    with pytest.raises(DatasetError, match="cannot read the annotations /dev/zero: it is a device"):
        CocoAnnotations.from_file(Path("/dev/zero"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.json: No such file"):
        CocoAnnotations.from_file(tmp_path / "gone.json")
