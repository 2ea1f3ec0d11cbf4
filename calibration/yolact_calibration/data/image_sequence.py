"""Images without labels: their search, and the endless sequence of samples that a recovery reads."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from yolact_calibration.data.augment import AugmentOptions, choose_window, distort_colours, normalise, sample_image
from yolact_calibration.errors import DatasetError
from yolact_plugins.files import counted
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.inputs import find_inputs
from yolact_runtime.model.manifest import InputSpec

__all__ = ["ImageSequence", "UnlabelledImages", "find_unlabelled"]


@dataclasses.dataclass(frozen=True)
class UnlabelledImages:
    """Image files without labels.

    Attributes:
        paths: Paths of the files in order, without duplicates.
        warnings: Sentences about files that were left out, and why.
        reader: Reader for these files.
    """

    paths: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
    reader: ImageReader = dataclasses.field(default_factory=ImageReader, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    def hold_back(self, fraction: float, seed: int) -> tuple[UnlabelledImages, UnlabelledImages]:
        """Split off a random `fraction` of the images, at least one.

        Returns:
            The images to work with, and the held-back images for evaluating the result.
        """
        count = max(1, round(len(self) * fraction))
        order = np.random.default_rng([seed, 7]).permutation(len(self)).tolist()
        held, rest = sorted(order[:count]), sorted(order[count:])
        return self._only(rest), self._only(held)

    def _only(self, indices: Sequence[int]) -> UnlabelledImages:
        return dataclasses.replace(self, paths=tuple(self.paths[i] for i in indices), warnings=())

    def digest(self) -> str:
        """Return the SHA-256 of the files' contents, hexadecimal; names and folders do not matter."""
        total = hashlib.sha256()
        for path in self.paths:
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()

    def tensors(self, spec: InputSpec, count: int, batch_size: int = 4) -> list[torch.Tensor]:
        """Preprocess the first `count` images as the runtime does: batches ``(B, 3, H, W)`` float32."""
        chosen = self.paths[:count]
        tensors = [torch.from_numpy(preprocess(self.reader.read(path), spec)) for path in chosen]
        return [torch.cat(tensors[first : first + batch_size]) for first in range(0, len(tensors), batch_size)]


def find_unlabelled(words: Sequence[str], least: int, reader: ImageReader | None = None) -> UnlabelledImages:
    """Find the images of folders, glob patterns and files.

    Args:
        words: Paths and patterns as on a command line.
        least: Minimum number of images.
        reader: Reader for the images; None creates one with default settings.

    Raises:
        DatasetError: A word matches nothing, or there are too few images.
    """
    found = find_inputs(words)
    if found.failures:
        word, reason = found.failures[0]
        raise DatasetError(f'"{word}": {reason}')
    if len(found.images) < least:
        raise DatasetError(
            f"{' '.join(words)}: {counted(len(found.images), 'image')} found, but at least {least} are needed for a "
            f"meaningful result; give more, as the camera sees them. Labels are not needed"
        )
    warnings = list(found.left_out)
    if found.videos:
        count = counted(len(found.videos), "video")
        warnings.append(f"left out, because images are needed: {count}, {found.videos[0]} first")
    return UnlabelledImages(found.images, tuple(warnings), reader or ImageReader())


class ImageSequence(Dataset[tuple[torch.Tensor, None]]):
    """Endless sequence of samples for a recovery, whose augmentation depends on the index and the seed only."""

    def __init__(self, images: UnlabelledImages, spec: InputSpec, augment: AugmentOptions, seed: int) -> None:
        self.images = images
        self.spec = spec
        self.augment = augment
        self.seed = seed

    def __getitem__(self, k: int) -> tuple[torch.Tensor, None]:
        epoch, place = divmod(k, len(self.images))
        # Permuting thousands of numbers takes a fraction of the time of reading an image.
        index = int(np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.images))[place])
        rng = np.random.default_rng([self.seed, 1, k])
        frame = self.images.reader.read(self.images.paths[index])
        height, width = frame.shape[:2]
        # The whole image takes the place of the object that a crop must overlap.
        window = choose_window(height, width, np.array([[0, 0, width, height]], np.float32), self.augment, rng)
        pixels, filled = sample_image(frame, window, self.spec.height, self.spec.width)
        if self.augment.colour:
            pixels = distort_colours(pixels, rng)
        return torch.from_numpy(normalise(pixels, self.spec, filled)), None

    def __iter__(self) -> Iterator[tuple[torch.Tensor, None]]:
        raise TypeError("an endless sequence is read by index")
