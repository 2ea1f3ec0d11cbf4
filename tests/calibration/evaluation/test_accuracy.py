from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.coco_oracle import pycocotools_figures, random_data_set, results_of
from support.properties import examples
from support.scenes import make_instances
from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.accuracy import Accuracy, AccuracyMeter, measure_accuracy
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

DATA = Path(__file__).parents[4] / "shared" / "data"
TOLERANCE = 1e-6

needs_data = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.exists(), reason="the data sets are not beside this repository"),
]


def _annotations(document: Any) -> CocoAnnotations:
    return CocoAnnotations.from_document(document, "labels.json")


def _require_close(mine: Mapping[str, float | None], theirs: Mapping[str, float | None]) -> None:
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        if value is None:
            assert mine[name] is None, name
        else:
            assert mine[name] == pytest.approx(value, abs=TOLERANCE), name


def _require_equal(document: Any, predictions: Mapping[int, Instances], accuracy: Accuracy, ids: list[int]) -> None:
    """Every figure, whole and by class, is that of pycocotools."""
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    for kind, mine in (("bbox", accuracy.bbox), ("segm", accuracy.segm)):
        whole, by_category = pycocotools_figures(document, results_of(kind, predictions, ids), kind)
        _require_close(mine, whole)
        assert set(accuracy.by_class[kind]) == set(names.values())
        for category_id, figures in by_category.items():
            _require_close(accuracy.by_class[kind][names[category_id]], figures)


def _square_set(num_images: int = 1, **entry: Any) -> Any:
    """One 20 x 20 instance of "cat" at (10, 10) in each 60 x 40 image; `entry` changes it."""
    instance = {
        "category_id": 1,
        "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]],
        "bbox": [10, 10, 20, 20],
        "area": 400.0,
        "iscrowd": 0,
    } | entry
    ids = range(1, num_images + 1)
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in ids],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{**instance, "id": i, "image_id": i} for i in ids],
    }


# --- the figures are those of pycocotools -----------------------------------------------------------------------------


@examples(40)
@given(seed=st.integers(0, 2**32 - 1), num_images=st.integers(1, 8), ties=st.booleans(), rescored=st.booleans())
def test_random_data_sets(seed: int, num_images: int, ties: bool, rescored: bool) -> None:
    document, predictions, names = random_data_set(seed, num_images, ties=ties, rescored=rescored)
    accuracy = measure_accuracy(_annotations(document), predictions, names)
    _require_equal(document, predictions, accuracy, [7, 3, 12, 1, 5])
    assert accuracy.num_images == num_images


def test_the_random_data_sets_hold_what_they_promise() -> None:
    """The test above could pass on data in which nothing happens."""
    values, crowds = [], 0
    for seed in range(12):
        document, predictions, names = random_data_set(seed)
        accuracy = measure_accuracy(_annotations(document), predictions, names)
        figures = [*accuracy.bbox.values(), *accuracy.segm.values()]
        values += [value for value in figures if value is not None]
        crowds += sum(entry["iscrowd"] for entry in document["annotations"])
        assert accuracy.by_class["segm"]["ghost"]["AP"] is None
    assert np.std(values) > 0.1
    assert np.mean(values) > 0.1
    assert crowds > 10


def test_more_than_a_hundred_detections_of_a_class() -> None:
    document, predictions, names = random_data_set(3, 2, ties=False, max_found=14)
    image_id = next(iter(predictions))
    some = predictions[image_id]
    many = some[np.arange(130) % len(some)]
    many = dataclasses.replace(
        many, confidence=np.linspace(1, 0.5, 130).astype(np.float32), class_id=np.zeros(130, np.int32)
    )
    predictions = {**predictions, image_id: many}
    accuracy = measure_accuracy(_annotations(document), predictions, names)
    _require_equal(document, predictions, accuracy, [7, 3, 12, 1, 5])


def test_no_detections_at_all() -> None:
    document, _, names = random_data_set(4)
    accuracy = measure_accuracy(_annotations(document), {}, names)
    _require_equal(document, {}, accuracy, [7, 3, 12, 1, 5])
    assert accuracy.segm["AP"] == 0.0


def test_no_truth_at_all_is_undefined_and_not_minus_one() -> None:
    document, predictions, names = random_data_set(5)
    document = {**document, "annotations": []}
    accuracy = measure_accuracy(_annotations(document), predictions, names)
    assert set(accuracy.bbox.values()) == {None}
    assert json.loads(json.dumps(accuracy.document(), allow_nan=False))["segm"]["AP"] is None


def test_the_order_in_which_images_are_added_does_not_matter() -> None:
    document, predictions, names = random_data_set(6, 8)
    backwards = dict(reversed(predictions.items()))
    one, other = (measure_accuracy(_annotations(document), side, names) for side in (predictions, backwards))
    assert one.document() == other.document()


def _published(model: str) -> list[Any]:
    document = json.loads((DATA / "yolact_published" / f"{model}.json").read_text())
    return list(document["images"])


def _published_set(truth: str, model: str) -> tuple[Any, dict[int, Instances], list[str]]:
    """The confident detections of one published model as labels, all of another as detections."""
    sides = {name: {image["image_id"]: image["dets"] for image in _published(name)} for name in (truth, model)}
    names = sorted({det["category"] for side in sides.values() for dets in side.values() for det in dets})
    document: Any = {"images": [], "annotations": [], "categories": []}
    document["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    predictions = {}
    for image_id, dets in sides[truth].items():
        others = sides[model].get(image_id, [])
        height, width = next(det["mask"]["size"] for det in [*dets, *others])
        document["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width})
        for det in dets:
            if det["score"] > 0.3:
                entry = {"image_id": image_id, "category_id": names.index(det["category"]) + 1, "bbox": det["bbox"]}
                area = int(Masks.from_rle([det["mask"]]).area()[0])
                entry |= {"id": len(document["annotations"]) + 1, "area": area, "segmentation": det["mask"]}
                document["annotations"].append(entry | {"iscrowd": 0})
        if others:
            xywh = np.array([det["bbox"] for det in others], np.float32)
            predictions[image_id] = Instances(
                np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
                Masks.from_rle([det["mask"] for det in others]),
                np.array([det["score"] for det in others], np.float32),
                np.array([names.index(det["category"]) for det in others], np.int32),
            )
    return document, predictions, names


@pytest.mark.parametrize(
    ("truth", "model"),
    [("yolact_base", "yolact_resnet50"), ("yolact_darknet53", "yolact_im700")],
    ids=["resnet50 by base", "im700 by darknet53"],
)
@needs_data[0]
@needs_data[1]
def test_detections_of_the_published_models(truth: str, model: str) -> None:
    document, predictions, names = _published_set(truth, model)
    accuracy = measure_accuracy(_annotations(document), predictions, names)
    _require_equal(document, predictions, accuracy, list(range(1, len(names) + 1)))
    assert accuracy.segm["AP"] is not None
    assert 0.3 < accuracy.segm["AP"] < 0.95


@pytest.mark.parametrize("file", ["coco_redist/instances_train2017.json", "dsb_small/instances_val.json"])
@needs_data[0]
@needs_data[1]
def test_real_labels_with_moved_labels_as_detections(file: str) -> None:
    document = json.loads((DATA / file).read_text())
    annotations = CocoAnnotations.from_file(DATA / file).first(40)
    kept = {image.image_id for image in annotations.images}
    document["images"] = [image for image in document["images"] if image["id"] in kept]
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] in kept]
    random = np.random.default_rng(0)
    predictions = {}
    for image in annotations.images:
        entries = [e for e in annotations.instances.get(image.image_id, ()) if random.random() < 0.9]
        if not entries:
            continue
        xywh = np.array([entry.bbox for entry in entries], np.float32) + random.normal(0, 2, (len(entries), 4))
        masks = annotations.only([image.image_id]).masks(image).dense()[: len(entries)]
        masks = np.stack([np.roll(mask, random.integers(-2, 3, 2), axis=(0, 1)) for mask in masks])
        classes = [annotations.category_ids.index(entry.category_id) for entry in entries]
        predictions[image.image_id] = Instances(
            np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32),
            Masks.from_dense(masks),
            random.random(len(entries)).astype(np.float32),
            np.array(classes, np.int32),
        )
    accuracy = measure_accuracy(annotations, predictions, annotations.category_names)
    _require_equal(document, predictions, accuracy, list(annotations.category_ids))


# --- what the figures are of ------------------------------------------------------------------------------------------


def test_perfect_detections_are_exactly_1() -> None:
    accuracy = measure_accuracy(_annotations(_square_set()), {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat"])
    assert accuracy.bbox["AP"] == accuracy.segm["AP"] == 1.0
    assert accuracy.segm["AP_small"] == 1.0
    assert accuracy.segm["AP_large"] is None


def test_boxes_keep_their_fractions() -> None:
    # IoU 19.4 / 20 = 0.97 reaches every threshold; truncated to 19 / 20 it would be 0.95.
    boxes = [(10.0, 10.0, 29.4, 30.0)]
    document = _square_set()
    by_float = measure_accuracy(_annotations(document), {1: make_instances(40, 60, boxes)}, ["cat"])
    assert by_float.bbox["AP"] == 1.0
    # 18.9 / 20 is below the last threshold, 18.9 truncated would be below the last two.
    boxes = [(10.0, 10.0, 28.1, 30.0)]
    by_float = measure_accuracy(_annotations(document), {1: make_instances(40, 60, boxes)}, ["cat"])
    assert by_float.bbox["AP"] == pytest.approx(0.9)


def test_masks_are_ranked_by_mask_confidence() -> None:
    """The wrong mask comes first by box score and last by mask score."""
    boxes = [(32.0, 10.0, 52.0, 30.0), (10.0, 10.0, 30.0, 30.0)]
    for scores, expected in ((None, 0.5), ([0.1, 0.8], 1.0)):
        found = {1: make_instances(40, 60, boxes, mask_confidence=scores)}
        accuracy = measure_accuracy(_annotations(_square_set()), found, ["cat"])
        assert accuracy.segm["AP"] == pytest.approx(expected)
        assert accuracy.bbox["AP"] == pytest.approx(0.5)


def test_a_detection_without_box_area_is_left_out_and_one_without_mask_counts() -> None:
    flat = [(32.0, 10.0, 32.0, 30.0), (10.0, 10.0, 30.0, 30.0)]
    accuracy = measure_accuracy(_annotations(_square_set()), {1: make_instances(40, 60, flat)}, ["cat"])
    assert accuracy.segm["AP"] == 1.0
    outside = [(62.0, 10.0, 70.0, 30.0), (10.0, 10.0, 30.0, 30.0)]
    accuracy = measure_accuracy(_annotations(_square_set()), {1: make_instances(40, 60, outside)}, ["cat"])
    assert accuracy.segm["AP"] == pytest.approx(0.5)


def test_the_area_of_the_annotation_decides_the_range() -> None:
    found = {1: make_instances(40, 60, [(10, 10, 30, 30)])}
    accuracy = measure_accuracy(_annotations(_square_set(area=2000.0)), found, ["cat"])
    assert (accuracy.segm["AP_small"], accuracy.segm["AP_medium"]) == (None, 1.0)


def test_a_missing_area_is_the_masks_and_is_said() -> None:
    document = _square_set(num_images=3)
    for entry in document["annotations"]:
        del entry["area"], entry["iscrowd"]
    accuracy = measure_accuracy(_annotations(document), {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat", "dog"])
    assert accuracy.segm["AP_small"] == pytest.approx(accuracy.segm["AP"])
    assert accuracy.findings == ("3 annotations without an area; the number of pixels of their masks is used",)


def test_an_annotation_with_the_id_0_can_be_found() -> None:
    document = _square_set()
    document["annotations"][0]["id"] = 0
    accuracy = measure_accuracy(_annotations(document), {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat"])
    assert accuracy.bbox["AP"] == 1.0


def test_the_annotations_are_not_written_to() -> None:
    document = _square_set()
    annotations = _annotations(document)
    before = json.dumps(document)
    measure_accuracy(annotations, {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat"])
    assert json.dumps(document) == before


def test_the_document() -> None:
    found = {1: make_instances(40, 60, [(10, 10, 30, 30)])}
    accuracy = measure_accuracy(_annotations(_square_set(num_images=2)), found, ["cat", "dog"])
    document = json.loads(json.dumps(accuracy.document(), allow_nan=False))
    assert set(document) == {"bbox", "segm", "images", "instances"}
    assert document["images"] == 2
    assert document["instances"] == {"cat": 2, "dog": 0}
    assert document["segm"]["AP"] == pytest.approx(51 / 101)
    assert document["segm"]["by_class"]["cat"]["AP50"] == pytest.approx(51 / 101)
    assert document["segm"]["by_class"]["dog"]["AP"] is None
    assert list(document["bbox"])[:6] == ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cat", "Cat", " CAT ", "c-a t", "C_at"])
def test_classes_are_matched_by_name(name: str) -> None:
    found = {1: make_instances(40, 60, [(10, 10, 30, 30)], class_id=[1])}
    accuracy = measure_accuracy(_annotations(_square_set()), found, ["DOG", name])
    assert accuracy.by_class["segm"]["cat"]["AP"] == 1.0
    assert accuracy.findings == ()


def test_classes_that_the_data_set_does_not_have_do_not_count_and_are_said() -> None:
    found = {1: make_instances(40, 60, [(32, 10, 52, 30), (10, 10, 30, 30)], class_id=[0, 1])}
    accuracy = measure_accuracy(_annotations(_square_set()), found, ["zebra", "cat", "dog"])
    assert accuracy.segm["AP"] == 1.0
    (finding,) = accuracy.findings
    assert finding.startswith("1 of the model's 3 classes are not in the data set")
    assert "zebra" in finding


def test_a_category_that_is_no_class_of_the_model_counts_as_not_found_and_is_said() -> None:
    document = _square_set(num_images=2)
    document["annotations"][1]["category_id"] = 2
    accuracy = measure_accuracy(_annotations(document), {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat"])
    assert accuracy.segm["AP"] == 0.5
    assert accuracy.by_class["segm"]["dog"]["AP"] == 0.0
    (finding,) = accuracy.findings
    assert "1 of the data set's 2 categories are unknown to the model" in finding
    assert "dog" in finding


@pytest.mark.parametrize(
    ("class_names", "categories", "message"),
    [
        (["person", "car"], ["cat", "dog"], "no class in common; the model has person, car, the data set cat, dog"),
        (["hot dog"], ["hot-dog", "Hotdog"], '"hot dog" could be each of the categories hot-dog, Hotdog'),
        (["hot-dog", "Hotdog"], ["hot dog"], '"hot dog" could be each of the model\'s classes hot-dog, Hotdog'),
        (["hot dog", "Hotdog"], ["hot dog"], '"hot dog" could be each of the model\'s classes'),
    ],
)
def test_classes_that_cannot_be_matched(class_names: list[str], categories: list[str], message: str) -> None:
    document = _square_set()
    document["categories"] = [{"id": i, "name": name} for i, name in enumerate(categories, start=1)]
    with pytest.raises(DatasetError, match=message.replace("(", r"\(")):
        AccuracyMeter(_annotations(document), class_names)


def test_an_exact_name_decides() -> None:
    document = _square_set()
    document["categories"] = [{"id": 1, "name": "hot dog"}, {"id": 2, "name": "Hotdog"}]
    found = {1: make_instances(40, 60, [(10, 10, 30, 30)])}
    accuracy = measure_accuracy(_annotations(document), found, ["hot dog"])
    assert accuracy.by_class["segm"]["hot dog"]["AP"] == 1.0


# --- what does not belong together ------------------------------------------------------------------------------------


def test_an_image_that_the_data_set_does_not_have() -> None:
    with pytest.raises(DatasetError, match=r"the image 9, which labels\.json does not have"):
        measure_accuracy(_annotations(_square_set()), {9: make_instances(40, 60, [])}, ["cat"])


def test_an_image_of_another_size() -> None:
    with pytest.raises(DatasetError, match=r"1\.png has 40 x 60 pixels where labels\.json says 60 x 40"):
        measure_accuracy(_annotations(_square_set()), {1: make_instances(60, 40, [])}, ["cat"])


def test_an_image_that_is_added_twice() -> None:
    meter = AccuracyMeter(_annotations(_square_set()), ["cat"])
    meter.add(1, make_instances(40, 60, []))
    with pytest.raises(DatasetError, match="given twice"):
        meter.add(1, make_instances(40, 60, []))


def test_a_class_without_a_name() -> None:
    with pytest.raises(DatasetError, match="a detection of class 1, and the model has 1 class names"):
        measure_accuracy(_annotations(_square_set()), {1: make_instances(40, 60, [(0, 0, 5, 5)], [1])}, ["cat"])


def test_scores_that_are_no_numbers() -> None:
    instances = make_instances(40, 60, [(10, 10, 30, 30)])
    instances.confidence[0] = np.nan
    with pytest.raises(DatasetError, match="not a finite number"):
        measure_accuracy(_annotations(_square_set()), {1: instances}, ["cat"])


def test_labels_with_boxes_only_give_box_figures_and_no_others() -> None:
    found = {1: make_instances(40, 60, [(10, 10, 30, 30)])}
    accuracy = measure_accuracy(_annotations(_square_set(segmentation=None)), found, ["cat", "dog"])
    assert accuracy.has_boxes_only
    assert accuracy.bbox["AP"] == 1.0
    assert set(accuracy.segm.values()) == {None}
    assert accuracy.document()["segm"] is None
    assert accuracy.document()["bbox"]["by_class"]["cat"]["AP"] == 1.0
    assert accuracy.findings == (
        "the labels have boxes only (1 annotation without a segmentation): there is no mask AP",
    )


def test_a_box_among_outlines_is_counted_and_judges_no_mask() -> None:
    """What is found in the box without an outline is neither right nor wrong as a mask, and right as a box."""
    document = _square_set()
    box = {"id": 2, "image_id": 1, "category_id": 1, "bbox": [35, 5, 20, 30], "area": 600.0}
    document["annotations"].append(box)
    found = {1: make_instances(40, 60, [(35, 5, 55, 35), (10, 10, 30, 30)])}
    accuracy = measure_accuracy(_annotations(document), found, ["cat", "dog"])
    assert (accuracy.bbox["AP"], accuracy.segm["AP"]) == (1.0, 1.0)
    assert accuracy.num_instances["cat"] == 2
    (finding,) = accuracy.findings
    assert finding.startswith("1 of 2 annotations with a box and no segmentation")
    missed = measure_accuracy(_annotations(document), {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat", "dog"])
    assert missed.bbox["AP"] == pytest.approx(51 / 101)
    assert missed.segm["AP"] == 1.0


def test_an_outline_that_covers_no_pixel_is_counted() -> None:
    document = _square_set(segmentation=[[100, 100, 120, 100, 120, 120]])
    accuracy = measure_accuracy(_annotations(document), {1: make_instances(40, 60, [(10, 10, 30, 30)])}, ["cat", "dog"])
    assert accuracy.segm["AP"] == 0.0
    (finding,) = accuracy.findings
    assert finding.startswith("1 annotation with an outline that covers no pixel of the image")


def test_ids_may_be_text_and_change_nothing() -> None:
    found = {1: make_instances(40, 60, [(10, 10, 30, 30)])}
    expected = measure_accuracy(_annotations(_square_set(2)), found, ["cat", "dog"])
    document = _square_set(2)
    for entry in document["images"]:
        entry["id"] = f"frame {entry['id']}"
    for entry in document["categories"]:
        entry["id"] = f"c{entry['id']}"
    for entry in document["annotations"]:
        entry |= {"image_id": f"frame {entry['image_id']}", "category_id": f"c{entry['category_id']}"}
    by_text = measure_accuracy(_annotations(document), {"frame 1": found[1]}, ["cat", "dog"])
    assert by_text.document() == expected.document()
