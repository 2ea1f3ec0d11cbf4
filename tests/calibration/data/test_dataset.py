from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from support.training_data import square, write_scenes, write_set
from yolact_calibration.data.augment import AugmentOptions
from yolact_calibration.data.batch import Batch, Truth
from yolact_calibration.data.dataset import AnnotatedImages, SampleSequence, iterate_batches, learnable_images
from yolact_calibration.errors import DatasetError, MediaError, TrainingError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.media.images import read_image, write_image
from yolact_runtime.model.manifest import InputSpec

SPEC = InputSpec(64, 64, (104.0, 117.0, 124.0), (57.0, 57.0, 58.0), "RGB")


def open_set(paths: tuple[Path, Path]) -> AnnotatedImages:
    return AnnotatedImages.open(CocoAnnotations.from_file(paths[0]), paths[1])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> AnnotatedImages:
    return open_set(write_scenes(tmp_path_factory.mktemp("scenes") / "set", 6))


def equal(a: Truth, b: Truth) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def assert_equal_batches(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.step == b.step
        assert torch.equal(a.image, b.image)
        assert all(equal(x, y) for x, y in zip(a.truths, b.truths, strict=True))


def test_without_augmentation_a_sample_is_the_image_as_the_runtime_feeds_it(scenes: AnnotatedImages) -> None:
    samples = SampleSequence(scenes, SPEC, AugmentOptions.none(), 0)
    annotations = scenes.annotations
    expected = {image.image_id: preprocess(read_image(scenes.path(image)), SPEC)[0] for image in annotations.images}
    seen = []
    for k in range(samples.epoch_length):
        image, truth = samples[k]
        distance = {key: np.abs(value - image.numpy()).max() for key, value in expected.items()}
        image_id = min(distance, key=lambda key: distance[key])
        assert distance[image_id] < 1e-4
        seen.append(image_id)
        (entry,) = annotations.only([image_id]).images
        masks = annotations.masks(entry)
        np.testing.assert_array_equal(truth.mask.numpy(), masks.dense())
        np.testing.assert_allclose(truth.xyxy.numpy() * 64, masks.bounds(), atol=1e-4)
        category = [item.category_id for item in annotations.instances[image_id]]
        assert [annotations.category_ids[c] for c in truth.class_id.tolist()] == category
        assert truth.xyxy.dtype == torch.float32
        assert (truth.class_id.dtype, truth.mask.dtype) == (torch.int64, torch.bool)
        assert len(truth.ignored_xyxy) == 0
    assert sorted(seen) == [image.image_id for image in annotations.images]


def test_a_sample_depends_on_its_number_and_the_seed_only(scenes: AnnotatedImages) -> None:
    first, second = (SampleSequence(scenes, SPEC, AugmentOptions(), 3) for _ in range(2))
    forward = {k: first[k] for k in range(14)}
    backward = {k: second[k] for k in reversed(range(14))}
    for k, (image, truth) in forward.items():
        assert torch.equal(image, backward[k][0])
        assert equal(truth, backward[k][1])
    other = SampleSequence(scenes, SPEC, AugmentOptions(), 4)
    assert not any(torch.equal(forward[k][0], other[k][0]) for k in range(6))


def test_every_epoch_has_every_image_in_another_order(scenes: AnnotatedImages) -> None:
    samples = SampleSequence(scenes, SPEC, AugmentOptions.none(), 0)
    epochs = [[samples[k][0].sum().item() for k in range(first, first + 6)] for first in (0, 6, 12, 18)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_image_is_augmented_differently_in_every_epoch(scenes: AnnotatedImages) -> None:
    samples = SampleSequence(scenes, SPEC, AugmentOptions(), 0)
    images = [samples[k][0] for k in range(24)]
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_boxes_are_tight_around_masks_under_any_augmentation(scenes: AnnotatedImages) -> None:
    samples = SampleSequence(scenes, SPEC, AugmentOptions(), 1)
    num_objects = num_ignored = 0
    for k in range(60):
        _, truth = samples[k]
        num_ignored += len(truth.ignored_xyxy)
        for box, mask in zip(truth.xyxy, truth.mask, strict=True):
            y, x = mask.nonzero(as_tuple=True)
            tight = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]) / 64
            torch.testing.assert_close(box, tight)
            assert float((box[2:] - box[:2]).min()) * 64 >= 4
            num_objects += 1
    assert num_objects > 60
    assert num_ignored > 5


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_are_the_same_whoever_prepares_them(scenes: AnnotatedImages, num_workers: int) -> None:
    samples = SampleSequence(scenes, SPEC, AugmentOptions(), 0)
    batches = list(iterate_batches(samples, 3, 2, 6, num_workers))
    expected = [Batch.of([samples[k] for k in range(3 * step, 3 * step + 3)], step) for step in range(2, 6)]
    assert_equal_batches(batches, expected)
    assert batches[0].image.shape == (3, 3, 64, 64)


def test_a_sequence_can_be_sent_to_another_process(scenes: AnnotatedImages) -> None:
    samples = SampleSequence(scenes, SPEC, AugmentOptions(), 0)
    assert torch.equal(pickle.loads(pickle.dumps(samples))[7][0], samples[7][0])


def test_crowds_and_specks_are_ignored_regions(tmp_path: Path) -> None:
    objects = [
        {"segmentation": square(4, 4, 20)},
        {"segmentation": square(30, 30, 30), "iscrowd": 1},
        {"segmentation": square(50, 4, 3), "category_id": 20},
    ]
    image, truth = SampleSequence(open_set(write_set(tmp_path / "a", [objects])), SPEC, AugmentOptions.none(), 0)[0]
    assert image.shape == (3, 64, 64)
    assert truth.class_id.tolist() == [0]
    np.testing.assert_allclose(truth.xyxy.numpy() * 64, [[4, 4, 24, 24]], atol=1)
    np.testing.assert_allclose(truth.ignored_xyxy.numpy() * 64, [[30, 30, 60, 60], [50, 4, 53, 7]], atol=1)


def test_what_a_crop_leaves_of_an_object_whose_centre_is_outside_is_ignored(tmp_path: Path) -> None:
    objects = [{"segmentation": square(2, 2, 28)}, {"segmentation": square(20, 20, 40), "category_id": 20}]
    data = open_set(write_set(tmp_path / "a", [objects]))
    samples = SampleSequence(data, SPEC, AugmentOptions(colour=False, expand=1.0, mirror=False), 0)
    kinds = set()
    for k in range(80):
        _, truth = samples[k]
        assert len(truth.class_id) + len(truth.ignored_xyxy) <= 2
        assert len(truth.class_id) >= 1
        kinds.add((tuple(truth.class_id.tolist()), len(truth.ignored_xyxy)))
    assert {((0, 1), 0), ((0,), 1), ((1,), 1)} <= kinds


def test_images_of_crowds_only_are_not_learned_from(tmp_path: Path) -> None:
    crowd = {"segmentation": square(4, 4, 20), "iscrowd": 1}
    data = open_set(write_set(tmp_path / "a", [[crowd], [], [{"segmentation": square(4, 4, 20)}, crowd]]))
    assert [image.image_id for image in learnable_images(data.annotations)] == [2]
    assert SampleSequence(data, SPEC, AugmentOptions(), 0).epoch_length == 1
    with pytest.raises(DatasetError, match="every instance is a crowd or has no outline"):
        SampleSequence(open_set(write_set(tmp_path / "b", [[crowd], []])), SPEC, AugmentOptions(), 0)


def test_missing_images_are_counted_before_any_work(tmp_path: Path) -> None:
    annotations, images = write_set(tmp_path / "a", [[{"segmentation": square(4, 4, 9)}]] * 5)
    for name in ("0.png", "1.png", "2.png", "3.png"):
        (images / name).unlink()
    with pytest.raises(DatasetError, match=r"4 of the 5 images of .* are not in .*: 0\.png, 1\.png, 2\.png, …\. Is it"):
        open_set((annotations, images))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_of_another_size_is_refused_in_one_sentence(tmp_path: Path, num_workers: int) -> None:
    annotations, images = write_set(tmp_path / "a", [[{"segmentation": square(4, 4, 9)}]])
    write_image(images / "0.png", np.zeros((64, 48, 3), np.uint8))
    samples = SampleSequence(open_set((annotations, images)), SPEC, AugmentOptions(), 0)
    with pytest.raises(DatasetError, match=r"0\.png is 48 x 64 pixels, its annotations say 64 x 64") as caught:
        list(iterate_batches(samples, 1, 0, 1, num_workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path: Path, num_workers: int) -> None:
    annotations, images = write_set(tmp_path / "a", [[{"segmentation": square(4, 4, 9)}]])
    (images / "0.png").write_bytes(b"no image")
    samples = SampleSequence(open_set((annotations, images)), SPEC, AugmentOptions(), 0)
    with pytest.raises(MediaError, match=r"cannot read .*0\.png") as caught:
        list(iterate_batches(samples, 1, 0, 1, num_workers))
    assert "\n" not in str(caught.value)


def test_the_digest_tells_data_apart(tmp_path: Path) -> None:
    objects = [[{"segmentation": square(4, 4, 9)}]] * 3
    annotations, images = write_set(tmp_path / "a", objects)
    data = open_set((annotations, images))
    digest = data.check()
    assert digest == open_set((annotations, images)).check()
    assert digest != AnnotatedImages.open(data.annotations.first(2), images).check()
    document = json.loads(annotations.read_text())
    document["annotations"][0]["iscrowd"] = 1
    changed = annotations.with_name("changed.json")
    changed.write_text(json.dumps(document))
    assert digest != open_set((changed, images)).check()
    write_image(images / "1.png", np.zeros((64, 64, 3), np.uint8))
    assert digest != open_set((annotations, images)).check()


class Killing:
    """Samples of which the third takes its process with it, as the kernel does when memory runs out."""

    def __getitem__(self, k: int) -> tuple[torch.Tensor, Truth | None]:
        if k == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3, 8, 8), None


def test_a_process_that_dies_is_told_in_a_sentence() -> None:
    with pytest.raises(TrainingError, match=r"a process that prepares batches has died.* --workers 0") as caught:
        list(iterate_batches(Killing(), 1, 0, 6, 1))
    assert "\n" not in str(caught.value)


def test_boxes_without_outlines_are_ignored_regions(tmp_path: Path) -> None:
    path, images = write_set(
        tmp_path / "a", [[{"segmentation": square(4, 4, 20)}, {"segmentation": square(30, 30, 20)}]]
    )
    document = json.loads(path.read_text())
    document["annotations"][1]["segmentation"] = []
    path.write_text(json.dumps(document))
    _, truth = SampleSequence(open_set((path, images)), SPEC, AugmentOptions.none(), 0)[0]
    assert truth.class_id.tolist() == [0]
    np.testing.assert_allclose(truth.xyxy.numpy() * 64, [[4, 4, 24, 24]], atol=1)
    np.testing.assert_allclose(truth.ignored_xyxy.numpy() * 64, [[30, 30, 50, 50]], atol=1)
    document["annotations"][0]["segmentation"] = None
    path.write_text(json.dumps(document))
    assert learnable_images(CocoAnnotations.from_file(path)) == ()
