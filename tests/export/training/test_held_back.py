from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import make_instances
from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.evaluation.agreement import ImageAgreement
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_export.model.registry import CONFIGS
from yolact_export.model.yolact import Yolact, create_model
from yolact_export.training import held_back
from yolact_export.training.held_back import choose_images, compare_held_back, held_back_labels
from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import encode_image, write_image

NAMES = ("cat", "dog")


def _model() -> Yolact:
    return create_model(dataclasses.replace(CONFIGS["yolact_tiny"], num_classes=1 + len(NAMES))).eval()


def _images(losses: list[float]) -> list[ImageAgreement]:
    return [ImageAgreement(f"{i}.png", loss, 3, 2, 0) for i, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "shown"),
    [
        ([], {}),
        ([0.5], {"worst": [0.5]}),
        ([0.0, 0.5, 0.2], {"best": [0.0], "worst": [0.5, 0.2]}),
        ([0.1, 0.9, 0.3, 0.2, 0.8], {"best": [0.1, 0.2], "median": [0.3], "worst": [0.9, 0.8]}),
        ([i / 10 for i in range(11)], {"best": [0.0, 0.1], "median": [0.5, 0.6], "worst": [1.0, 0.9]}),
    ],
)
def test_the_best_those_in_the_middle_and_the_worst(losses: list[float], shown: dict[str, list[float]]) -> None:
    chosen = choose_images(_images(losses))
    assert {rank: [one.loss for which, one in chosen if which == rank] for rank, _ in chosen} == shown
    assert [rank for rank, _ in chosen] == [rank for rank, some in shown.items() for _ in some]


@given(st.lists(st.floats(0, 1), max_size=20))
@examples(100)
def test_no_image_is_shown_twice_and_ranks_are_in_order(losses: list[float]) -> None:
    chosen = choose_images(_images(losses))
    assert len({one.name for _, one in chosen}) == len(chosen) == min(6, len(losses))
    limits = {rank: [one.loss for which, one in chosen if which == rank] for rank in ("best", "median", "worst")}
    order = [loss for some in limits.values() for loss in sorted(some)]
    assert order == sorted(order)
    assert max(losses, default=0) == max(limits["worst"], default=0)


def _square(left: int, side: int, category: int, **more: Any) -> dict[str, Any]:
    ring = [left, 4, left + side, 4, left + side, 4 + side, left, 4 + side]
    box = [left, 4, side, side]
    return {"category_id": category, "segmentation": [ring], "bbox": box, "area": side**2, "iscrowd": 0, **more}


def _data(folder: Path, num_images: int = 1) -> AnnotatedImages:
    """The categories of the file come in another order than the model's, and one is not the model's."""
    crowd = {"iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [0, 100, 48 * 64 - 100]}}
    squares = [_square(2, 8, 7), _square(12, 20, 5), _square(36, 12, 6), _square(50, 12, 7, **crowd)]
    items = [{**square, "image_id": i} for i in range(num_images) for square in squares]
    images = [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in range(num_images)]
    for image in images:
        write_image(folder / str(image["file_name"]), np.full((48, 64, 3), 90, np.uint8))
    categories = [{"id": 5, "name": "dog"}, {"id": 6, "name": "bird"}, {"id": 7, "name": "cat"}]
    items = [{"id": number + 1, **item} for number, item in enumerate(items)]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": items, "categories": categories}), encoding="utf-8")
    return AnnotatedImages.open(CocoAnnotations.from_file(path), folder)


def test_pictures_are_read_with_the_bit_depth_that_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 bits in a file of 16 were shown, and looked at by the model, as if they were black."""
    data = dataclasses.replace(_data(tmp_path), reader=ImageReader(12))
    write_image(tmp_path / "0.png", np.full((48, 64, 3), 2048, np.uint16))
    frames: list[Any] = []

    def draw(frame: Any, *_: Any) -> tuple[str, str]:
        frames.append(frame)
        return "a", "b"

    def segment(frame: Any) -> Instances:
        frames.append(frame)
        return make_instances(48, 64, [])

    monkeypatch.setattr(held_back, "side_by_side", draw)
    monkeypatch.setattr(held_back, "make_segmenter", lambda *_: segment)
    held_back_labels(_model(), data, NAMES)
    assert [int(frame.max()) for frame in frames] == [128, 128]


def test_labels_are_those_of_classes_that_the_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Instances, Instances]] = []

    def draw(frame: Any, labels: Instances, found: Instances, *_: Any) -> tuple[str, str]:
        assert frame.shape == (48, 64, 3)
        drawn.append((labels, found))
        return "first", "second"

    monkeypatch.setattr(held_back, "side_by_side", draw)
    model = _model()
    (picture,) = held_back_labels(model, _data(tmp_path), NAMES)["pictures"]
    assert (picture["name"], picture["reference"], picture["candidate"]) == ("0.png", "first", "second")
    assert picture["num_reference"] == 2
    labels = drawn[0][0]
    assert labels.class_id.tolist() == [1, 0]  # the large dog, the small cat
    assert labels.xyxy.tolist() == [[12, 4, 32, 24], [2, 4, 10, 12]]


def test_images_of_twelve_bits_are_shown_as_they_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[Any] = []
    monkeypatch.setattr(held_back, "side_by_side", lambda frame, *_: frames.append(frame) or ("first", "second"))
    data = dataclasses.replace(_data(tmp_path), reader=ImageReader(bit_depth=12))
    (tmp_path / "0.png").write_bytes(encode_image(np.full((48, 64, 3), 4095, np.uint16), ".png"))
    held_back_labels(_model(), data, NAMES)
    assert [frame.min() for frame in frames] == [255]


def test_of_many_images_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_back, "_MOST_LOOKED_AT", 4)
    looked_at: list[str] = []
    monkeypatch.setattr(
        held_back, "choose_images", lambda images: looked_at.extend(image.name for image in images) or []
    )
    model = _model()
    found = held_back_labels(model, _data(tmp_path, 9), NAMES)
    assert (found["num_images"], found["num_empty"], found["pictures"]) == (3, 0, [])
    assert sorted(looked_at) == ["0.png", "3.png", "6.png"]


def test_a_pruned_model_is_compared_with_what_the_dense_one_found(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((48, 64, 3), 90, np.uint8))
    write_image(tmp_path / "b.png", np.full((48, 64, 3), 90, np.uint8))
    dense = {
        str(tmp_path / "a.png"): make_instances(48, 64, [(4, 4, 30, 40)]),
        str(tmp_path / "b.png"): make_instances(48, 64, []),
    }
    model = _model()
    found = compare_held_back(model, dense, ImageReader(), NAMES)
    assert (found["num_images"], found["truth"]) == (2, "dense model")
    shown = {picture["name"]: picture for picture in found["pictures"]}
    assert shown["a.png"]["num_reference"] == 1
    assert shown["a.png"]["sides"] == ("dense model", "pruned")
    assert shown["a.png"]["reference"].startswith("data:image/jpeg;base64,")
