from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from support.training_data import write_scenes
from yolact_calibration.data.augment import AugmentOptions
from yolact_calibration.data.image_sequence import ImageSequence, UnlabelledImages, find_unlabelled
from yolact_calibration.errors import DatasetError
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import read_image
from yolact_runtime.model.manifest import InputSpec

SPEC = InputSpec(48, 64, (103.9, 116.8, 123.7), (57.4, 57.1, 58.4))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 6)[1]


def test_an_image_without_augmentation_is_what_the_runtime_feeds(folder: Path) -> None:
    images = find_unlabelled([str(folder)], 1)
    sample, truth = ImageSequence(images, SPEC, AugmentOptions.none(), seed=0)[0]
    assert truth is None
    expected = [torch.from_numpy(preprocess(read_image(path), SPEC))[0] for path in images.paths]
    assert any(torch.allclose(sample, tensor, atol=1e-4) for tensor in expected)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(folder: Path) -> None:
    sequence = ImageSequence(find_unlabelled([str(folder)], 1), SPEC, AugmentOptions.none(), seed=3)
    epochs = [[sequence[k][0].sum().item() for k in range(first, first + 6)] for first in (0, 6, 12)]
    assert len(set(epochs[0])) == 6
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_a_sample_depends_on_its_number_and_the_seed_only(folder: Path) -> None:
    images = find_unlabelled([str(folder)], 1)
    first, second = (ImageSequence(images, SPEC, AugmentOptions(), seed=1) for _ in range(2))
    forwards = [first[k][0] for k in range(8)]
    backwards = [second[k][0] for k in reversed(range(8))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not torch.equal(forwards[0], ImageSequence(images, SPEC, AugmentOptions(), seed=2)[0][0])
    assert forwards[0].shape == (3, 48, 64)
    assert bool(torch.stack(forwards).isfinite().all())


def test_the_digest_follows_contents_and_not_places(folder: Path, tmp_path: Path) -> None:
    images = find_unlabelled([str(folder)], 1)
    copied = find_unlabelled([str(shutil.copytree(folder, tmp_path / "copy"))], 1)
    assert copied.digest() == images.digest()
    assert UnlabelledImages(images.paths[:-1]).digest() != images.digest()


def test_images_held_back_are_not_worked_with(folder: Path) -> None:
    images = find_unlabelled([str(folder)], 1)
    rest, held = images.hold_back(0.3, seed=5)
    assert len(held) == 2
    assert sorted([*rest.paths, *held.paths]) == sorted(images.paths)
    assert images.hold_back(0.3, seed=5)[1] == held
    assert len(images.hold_back(0.001, seed=5)[1]) == 1


def test_tensors_are_batches_of_the_first_images(folder: Path) -> None:
    tensors = find_unlabelled([str(folder)], 1).tensors(SPEC, count=5, batch_size=2)
    assert [tuple(tensor.shape) for tensor in tensors] == [(2, 3, 48, 64), (2, 3, 48, 64), (1, 3, 48, 64)]
    assert tensors[0].dtype == torch.float32
    assert np.isfinite(tensors[0].numpy()).all()


def test_too_few_images_and_words_that_stand_for_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="6 images found, but at least 7 are needed"):
        find_unlabelled([str(folder)], 7)
    with pytest.raises(DatasetError, match="contains no image"):
        find_unlabelled([str(tmp_path)], 1)


def test_what_is_left_out_is_told_and_the_bit_depth_reaches_the_images(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8), 4095, np.uint16))
    (tmp_path / "notes.txt").write_text("no picture")
    images = find_unlabelled([str(tmp_path)], 1, ImageReader(12))
    assert images.warnings == ("1 file is left out: 1 that is neither image nor video (notes.txt)",)
    (tensor,) = images.tensors(SPEC, 1)
    np.testing.assert_array_equal(tensor[0], preprocess(np.full((8, 8, 3), 255, np.uint8), SPEC)[0])
    for part in images.hold_back(0.3, seed=0):
        assert part.reader is images.reader
