"""The images that a network is judged by: labelled ones, or some of the unlabelled ones that calibration leaves out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_calibration.coco import CocoAnnotations
from yolact_calibration.dataset import AnnotatedImages
from yolact_calibration.trial import NamedFrames
from yolact_runtime.media import read_image

__all__ = ["GuardImages"]


@dataclasses.dataclass(frozen=True, eq=False)
class GuardImages:
    """Images by name, read one at a time.

    Attributes:
        frames: The images.
        description: For people.
        annotations: Their labels, or None.
    """

    frames: NamedFrames
    description: str
    annotations: CocoAnnotations | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        return iter(self.frames)

    def frame(self, name: str) -> npt.NDArray[np.uint8]:
        """One image again.

        Raises:
            KeyError: There is none of that name.
        """
        for other, frame in self.frames:
            if other == name:
                return frame
        raise KeyError(name)

    def first(self, count: int) -> GuardImages:
        """Some of them, spread evenly, without labels; held in memory, because they are looked at many times."""
        chosen = set(np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist())
        frames = [item for index, item in enumerate(self.frames) if index in chosen]
        return GuardImages(frames, f"{len(frames)} images")

    @classmethod
    def labelled(cls, data: AnnotatedImages, limit: int | None) -> GuardImages:
        """Images with COCO labels."""
        annotations = data.annotations if limit is None else data.annotations.first(limit)
        files = _Files(tuple((image.file_name, data.path(image)) for image in annotations.images))
        return cls(files, f"{len(files)} labelled images", annotations)


@dataclasses.dataclass(frozen=True)
class _Files:
    paths: tuple[tuple[str, Path], ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        for name, path in self.paths:
            yield name, read_image(path)
