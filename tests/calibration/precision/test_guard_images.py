from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.training_data import square, write_set
from yolact_calibration.data.dataset import AnnotatedImages
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import read_image

COUNT = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedImages:
    annotations, images = write_set(
        tmp_path_factory.mktemp("set"), [[{"segmentation": square(4, 4, 20 + i)}] for i in range(COUNT)]
    )
    return AnnotatedImages.open(CocoAnnotations.from_file(annotations), images)


@pytest.fixture
def unlabelled(data: AnnotatedImages) -> CalibrationImages:
    return find_calibration_images([str(data.folder)])


def test_labelled_images_have_the_names_of_their_labels(data: AnnotatedImages) -> None:
    guard = GuardImages.labelled(data, None)
    assert [name for name, _ in guard] == [image.file_name for image in data.annotations.images]
    assert guard.annotations is data.annotations
    assert guard.description == "12 labelled images"


def test_a_limit_limits_images_and_labels_alike(data: AnnotatedImages) -> None:
    guard = GuardImages.labelled(data, 5)
    assert guard.annotations is not None
    assert len(guard) == len(list(guard)) == len(guard.annotations) == 5
    assert set(guard.annotations.instances) == {image.image_id for image in guard.annotations.images}


def test_iterating_twice_gives_the_same(data: AnnotatedImages) -> None:
    guard = GuardImages.labelled(data, 3)
    for (name, frame), (again, same) in zip(guard, guard, strict=True):
        assert name == again
        np.testing.assert_array_equal(frame, same)


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [0]), (2, [0, 11]), (3, [0, 6, 11]), (99, list(range(12)))]
)
def test_the_first_are_spread_evenly_and_carry_no_labels(
    count: int, expected: list[int], data: AnnotatedImages
) -> None:
    few = GuardImages.labelled(data, None).first(count)
    assert [name for name, _ in few] == [f"{number}.png" for number in expected]
    assert few.annotations is None


def test_a_few_are_held_in_memory(data: AnnotatedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = count_reads(monkeypatch)
    few = GuardImages.labelled(data, None).first(3)
    for _ in range(4):
        assert len(list(few)) == 3
    assert len(reads) == 3, "the others need not be read, nor these again"


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads: list[Path] = []
    read = ImageReader.read
    monkeypatch.setattr(ImageReader, "read", lambda reader, path: (reads.append(path), read(reader, path))[1])
    return reads


def test_one_image_again_reads_no_other(data: AnnotatedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report asks for eight of thousands."""
    expected = read_image(data.folder / "7.png")
    reads = count_reads(monkeypatch)
    np.testing.assert_array_equal(GuardImages.labelled(data, None).frame("7.png"), expected)
    assert reads == [data.folder / "7.png"]


def test_images_without_labels_and_lists_give_frames_by_name_too(unlabelled: CalibrationImages) -> None:
    name = unlabelled.images[3].name
    expected = read_image(unlabelled.images[3].path)
    for frames in (unlabelled, list(unlabelled)):
        guard = GuardImages(frames, "some")
        np.testing.assert_array_equal(guard.frame(name), expected)
        assert [other for other, _ in guard.first(2)] == [unlabelled.images[0].name, unlabelled.images[-1].name]


def test_an_unknown_name_is_a_key_error(data: AnnotatedImages, unlabelled: CalibrationImages) -> None:
    for guard in (GuardImages.labelled(data, 4), GuardImages(unlabelled, "some"), GuardImages([], "none")):
        with pytest.raises(KeyError, match="nowhere"):
            guard.frame("nowhere.png")
