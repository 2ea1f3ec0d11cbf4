"""Annotated image files as the endless, repeatable sequence of samples that a training reads."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.data.augment import (
    AugmentOptions,
    Window,
    choose_window,
    distort_colours,
    normalise,
    sample_image,
    sample_masks,
)
from yolact_calibration.data.batch import Batch, Truth
from yolact_calibration.errors import DatasetError, MediaError, TrainingError, YolactError
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage, CocoInstance, boxes_xyxy
from yolact_calibration.labels.fields import Id
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.manifest import InputSpec

__all__ = [
    "AnnotatedImages",
    "SampleSequence",
    "Samples",
    "iterate_batches",
    "learnable_images",
    "told_of_dead_workers",
]

Float = npt.NDArray[np.float32]
# Objects with a side below this number of input pixels teach nothing: the published training drops them, too.
_MIN_SIDE_PX = 4.0


def learnable_images(annotations: CocoAnnotations) -> tuple[CocoImage, ...]:
    """Return the images that have an outlined instance which is not a crowd: the others have nothing to match."""
    return tuple(
        image
        for image in annotations.images
        if not all(map(_is_ignored, annotations.instances.get(image.image_id, ())))
    )


def _is_ignored(item: CocoInstance) -> bool:
    """Return whether an instance is not used for training: a crowd, or a box without an outline."""
    return item.is_crowd or item.segmentation is None


class SampleSequence(Dataset[tuple[torch.Tensor, Truth]]):
    """Endless sequence of training samples: sample `k` is image ``order(epoch)[k % n]``.

    Its augmentation depends on the seed and `k` only, so an interrupted training resumes with the samples that it would
    have seen.
    """

    def __init__(self, images: AnnotatedImages, spec: InputSpec, augment: AugmentOptions, seed: int) -> None:
        self.images = images
        self.spec = spec
        self.augment = augment
        self.seed = seed
        self._annotated = learnable_images(images.annotations)
        if not self._annotated:
            raise DatasetError(
                f"{images.annotations.source}: every instance is a crowd or has no outline, so there is "
                f"nothing to learn; annotate outlines of single objects"
            )
        self._masks: dict[Id, Masks] = {}

    @property
    def epoch_length(self) -> int:
        """Number of images in an epoch: those with an instance to learn from."""
        return len(self._annotated)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, Truth]:
        epoch, place = divmod(k, self.epoch_length)
        index = int(_order(self.seed, epoch, self.epoch_length)[place])
        rng = np.random.default_rng([self.seed, 1, k])
        return self._sample(self._annotated[index], rng)

    def _sample(self, image: CocoImage, rng: np.random.Generator) -> tuple[torch.Tensor, Truth]:
        frame = self.images.reader.read(self.images.path(image))
        if frame.shape[:2] != (image.height, image.width):
            raise DatasetError(
                f"{self.images.path(image)} is {frame.shape[1]} x {frame.shape[0]} pixels, its annotations say "
                f"{image.width} x {image.height}; annotate images with an EXIF orientation as they are displayed"
            )
        items = self.images.annotations.instances[image.image_id]
        boxes = boxes_xyxy(items)
        is_ignored = np.array(list(map(_is_ignored, items)))
        window = choose_window(image.height, image.width, boxes[~is_ignored], self.augment, rng)
        pixels, filled = sample_image(frame, window, self.spec.height, self.spec.width)
        if self.augment.colour:
            pixels = distort_colours(pixels, rng)
        masks = self._masks.get(image.image_id)
        if masks is None:
            masks = self._masks[image.image_id] = self.images.annotations.masks(image)
        dense = sample_masks(masks.dense(), window, self.spec.height, self.spec.width)
        category = {category_id: c for c, category_id in enumerate(self.images.annotations.category_ids)}
        class_id = np.array([category[item.category_id] for item in items], np.int64)
        outside = _centre_outside(boxes, window) if window.is_crop else np.zeros(len(items), bool)
        truth = _truth(dense, class_id, is_ignored | outside)
        return torch.from_numpy(normalise(pixels, self.spec, filled)), truth


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def _centre_outside(boxes: Float, window: Window) -> npt.NDArray[np.bool_]:
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = np.array([window.left, window.top])
    high = low + np.array([window.width, window.height])
    outside: npt.NDArray[np.bool_] = ((centre <= low) | (centre >= high)).any(axis=1)
    return outside


def _truth(dense: npt.NDArray[np.bool_], class_id: npt.NDArray[np.int64], ignored: npt.NDArray[np.bool_]) -> Truth:
    """Return the truth of one input's masks: tight boxes, and ignored regions for visible parts of ignored objects."""
    height, width = dense.shape[1:]
    boxes = _tight_boxes(dense)
    side = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    kept = ~ignored & (side >= _MIN_SIDE_PX)
    scale = np.array([width, height, width, height], np.float32)
    return Truth(
        xyxy=torch.from_numpy(boxes[kept] / scale),
        class_id=torch.from_numpy(class_id[kept]),
        mask=torch.from_numpy(dense[kept]),
        ignored_xyxy=torch.from_numpy(boxes[~kept & (side > 0)] / scale),
    )


def _tight_boxes(dense: npt.NDArray[np.bool_]) -> Float:
    """Return ``(n, 4)`` float32 xyxy in pixels, right and bottom exclusive; zeros for empty masks."""
    columns: npt.NDArray[np.bool_] = np.logical_or.reduce(dense, axis=1)
    rows: npt.NDArray[np.bool_] = np.logical_or.reduce(dense, axis=2)
    filled: npt.NDArray[np.bool_] = np.logical_or.reduce(columns, axis=1)
    low = [columns.argmax(axis=1), rows.argmax(axis=1)]
    high = [dense.shape[2] - columns[:, ::-1].argmax(axis=1), dense.shape[1] - rows[:, ::-1].argmax(axis=1)]
    boxes: Float = (np.stack([*low, *high], axis=1) * filled[:, None]).astype(np.float32)
    return boxes


class Samples(Protocol):
    """Endless sequence of samples, each of which depends on its index only."""

    def __getitem__(self, k: int) -> tuple[torch.Tensor, Truth | None]:
        """Return image ``(3, S, S)`` of index `k`, and its truth if it has labels."""


class _Steps(Dataset["Batch | YolactError"]):
    """Data set whose item `i` is the batch of step `i`, so that a worker prepares whole batches."""

    def __init__(self, samples: Samples, batch_size: int) -> None:
        self._samples = samples
        self._batch_size = batch_size

    def __getitem__(self, step: int) -> Batch | YolactError:
        first = step * self._batch_size
        try:
            return Batch.of([self._samples[k] for k in range(first, first + self._batch_size)], step)
        except (DatasetError, MediaError) as error:
            # If a worker raised it, the message would be the worker's traceback.
            return error


@contextlib.contextmanager
def told_of_dead_workers() -> Iterator[None]:
    """Turn the death of a worker process that prepares batches into an error with a readable message.

    The loader is informed by a signal, so its error appears wherever the training is at that moment.

    Raises:
        TrainingError: A worker process has died.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        # Errors of samples arrive as objects. This is the loader's own message for a killed worker, or the broken
        # connection on which the worker was sending a batch.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that prepares batches has died, perhaps because memory ran out ({error}); try fewer --workers, "
            f"or --workers 0, which prepares batches in the training's own process"
        ) from error


def iterate_batches(
    samples: Samples, batch_size: int, first_step: int, last_step: int, num_workers: int
) -> Iterator[Batch]:
    """Yield the batches of steps ``first_step .. last_step - 1``.

    Args:
        samples: Samples to combine.
        batch_size: Number of images in a batch.
        first_step: Number of the first step, from 0.
        last_step: One past the last step.
        num_workers: Number of processes that prepare batches; 0 prepares them in this one. The batches are the same.

    Raises:
        DatasetError, MediaError: An image cannot be used.
        TrainingError: A process that prepares batches has died.
    """
    loader = DataLoader(
        _Steps(samples, batch_size),
        batch_size=None,
        sampler=range(first_step, last_step),
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
    )
    batches = iter(loader)
    while True:
        with told_of_dead_workers():
            batch = next(batches, None)
        if batch is None:
            return
        if isinstance(batch, YolactError):
            raise batch
        yield batch
