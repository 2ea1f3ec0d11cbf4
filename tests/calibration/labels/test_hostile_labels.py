"""What the reader makes of files in which anything may be wrong: a sentence, or numbers that are right."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hostile_labels import CLASS_NAMES, HOSTILE_VALUES, hostile_documents, nested, valid_document
from support.properties import examples
from support.scenes import make_instances
from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.accuracy import AccuracyMeter
from yolact_calibration.labels.coco import CocoAnnotations, boxes_xyxy


def require_sound(annotations: CocoAnnotations) -> None:
    """Every number is finite and every size is one; masks can be drawn, and accuracy measured."""
    for image in annotations.images:
        assert type(image.height) is type(image.width) is int
        assert image.height > 0
        assert image.width > 0
        assert image.file_name
        items = annotations.instances.get(image.image_id, ())
        masks = annotations.masks(image)
        assert (len(masks), masks.height, masks.width) == (len(items), image.height, image.width)
        assert np.isfinite(boxes_xyxy(items)).all()
        for item in items:
            assert all(map(math.isfinite, item.bbox))
            assert min(item.bbox[2:]) >= 0
            assert item.area is None or 0 <= item.area < math.inf
            assert item.category_id in {*annotations.category_ids}
            assert type(item.is_crowd) is bool
    for key in (*annotations.category_ids, *(image.image_id for image in annotations.images)):
        assert type(key) in (int, str)
    assert all(type(name) is str and name for name in annotations.category_names)
    assert all("\n" not in finding and len(finding) < 1000 for finding in annotations.findings)


def outcome(document: Any) -> str:
    """``"read"`` or ``"refused"``; anything else is an error of the test that asked."""
    try:
        annotations = CocoAnnotations.from_document(document, "labels.json")
    except DatasetError as error:
        message = str(error)
        assert message.startswith("labels.json: ")
        assert "\n" not in message
        assert "\x1b" not in message
        assert len(message) < 1000
        return "refused"
    require_sound(annotations)
    try:
        meter = AccuracyMeter(annotations, CLASS_NAMES)
    except DatasetError:
        return "refused"
    assert len(meter.findings) < 10
    return "read"


def test_the_file_that_is_changed_is_sound() -> None:
    annotations = CocoAnnotations.from_document(valid_document(), "labels.json")
    assert annotations.findings == ()
    assert annotations.num_instances == 4
    found = {image.image_id: make_instances(24, 32, [(2, 2, 20, 14)]) for image in annotations.images}
    meter = AccuracyMeter(annotations, CLASS_NAMES)
    for image_id, instances in found.items():
        meter.add(image_id, instances)
    assert meter.measure().bbox["AP"] is not None


def test_every_field_with_every_hostile_value_is_right_or_refused() -> None:
    outcomes: Counter[str] = Counter()
    for kind, document in hostile_documents():
        try:
            outcomes[outcome(document)] += 1
        except Exception as error:
            raise AssertionError(f"{kind}: {type(error).__name__}: {error}") from error
    # The test could pass on files of which all are refused, or none.
    assert outcomes["refused"] > 1000
    assert outcomes["read"] > 150


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        (("annotations", 0, "iscrowd"), {"null", "false", "true", "zero"}),
        (
            ("annotations", 0, "area"),
            {"null", "zero", "fraction", "whole float", "1e-320", "four billion", "ten million"},
        ),
        (("annotations", 0, "bbox"), set()),
        (("annotations", 0, "bbox", 2), {"zero", "fraction", "whole float", "1e-320", "ten million"}),
        (("annotations", 0, "image_id"), {"whole float"}),
        (("annotations", 0, "segmentation"), {"null", "empty list"}),
        (("images", 0, "height"), {"whole float"}),
        (("images", 0, "file_name"), {"text", "text of a number"}),
        (("categories", 0, "name"), {"text", "text of a number", "zero", "negative", "four billion", "ten million"}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_only_values_that_mean_something_are_taken(path: tuple[Any, ...], kinds: set[str]) -> None:
    taken = set()
    for kind, value in HOSTILE_VALUES.items():
        document = valid_document()
        # The other annotations do not decide about this one.
        del document["annotations"][1:]
        target: Any = document
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value
        try:
            CocoAnnotations.from_document(document, "x")
        except DatasetError:
            continue
        taken.add(kind)
    assert taken == kinds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**40, -1, 1, 2]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@examples(300)
@given(data=st.data())
def test_several_fields_at_once_are_right_or_refused(data: st.DataObject) -> None:
    document = valid_document()
    for _ in range(data.draw(st.integers(1, 4))):
        records = document[data.draw(st.sampled_from(["images", "categories", "annotations"]))]
        record = data.draw(st.sampled_from(records))
        field = data.draw(st.sampled_from(sorted(record)))
        value = data.draw(JSON)
        if field == "segmentation" and data.draw(st.booleans()):
            value = [data.draw(st.lists(JSON | st.floats(-100, 100), max_size=8))]
        record[field] = value
    outcome(document)


@pytest.mark.parametrize("depth", [900, 100_000])
def test_no_depth_is_too_much(depth: int, tmp_path: Path) -> None:
    document = json.dumps(valid_document()).replace('"area": 180.0', f'"area": {"[" * depth}{"]" * depth}', 1)
    path = tmp_path / "labels.json"
    path.write_text(document)
    with pytest.raises(DatasetError, match=r"area is a list of 1|nested too deep"):
        CocoAnnotations.from_file(path)


def test_a_list_is_nested_as_deep_as_it_says() -> None:
    assert nested(2) == [[[]]]


def test_a_file_with_words_for_what_is_no_number_names_the_record(tmp_path: Path) -> None:
    document = valid_document()
    document["annotations"][1]["bbox"][2] = float("nan")
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(document))
    assert "NaN" in path.read_text()
    with pytest.raises(DatasetError, match=r"annotations\[1\] \(id 12\): bbox is \[2, 2, nan, 12.25\]"):
        CocoAnnotations.from_file(path)
