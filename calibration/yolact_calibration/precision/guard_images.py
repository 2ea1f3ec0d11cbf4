"""Images on which a network is judged: labelled ones, or some of the unlabelled ones that calibration leaves out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.quantisation.calibration_images import CalibrationImages
from yolact_calibration.quantisation.trial import NamedFrames
from yolact_runtime.media.image_reader import ImageReader

__all__ = ["GuardImages"]


@dataclasses.dataclass(frozen=True, eq=False)
class GuardImages:
    """Named images, read one at a time.

    Attributes:
        frames: Images with their names.
        description: Readable description of the images.
        annotations: Labels of the images, or None.
    """

    frames: NamedFrames
    description: str
    annotations: CocoAnnotations | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        return iter(self.frames)

    def frame(self, name: str) -> npt.NDArray[np.uint8]:
        """Read one image again, without reading other files.

        Raises:
            KeyError: There is no image of that name.
        """
        for other, frame in _only(self.frames, [i for i, known in enumerate(_names(self.frames)) if known == name]):
            if other == name:
                return frame
        raise KeyError(name)

    def first(self, count: int) -> GuardImages:
        """Return up to `count` images, evenly spaced, without labels, held in memory for repeated use."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()
        frames = list(_only(self.frames, chosen))
        return GuardImages(frames, f"{len(frames)} images")

    @classmethod
    def labelled(cls, data: AnnotatedImages, limit: int | None) -> GuardImages:
        """Create guard images from images with COCO labels."""
        annotations = data.annotations if limit is None else data.annotations.first(limit)
        files = _Files(tuple((image.file_name, data.path(image)) for image in annotations.images), data.reader)
        return cls(files, f"{len(files)} labelled images", annotations)


@dataclasses.dataclass(frozen=True)
class _Files:
    paths: tuple[tuple[str, Path], ...]
    reader: ImageReader

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
        for name, path in self.paths:
            yield name, self.reader.read(path)


def _names(frames: NamedFrames) -> list[str]:
    """Return the names of all images, without reading the images if possible."""
    if isinstance(frames, _Files):
        return [name for name, _ in frames.paths]
    if isinstance(frames, CalibrationImages):
        return [image.name for image in frames.images]
    return [name for name, _ in frames]


def _only(frames: NamedFrames, indices: Sequence[int]) -> NamedFrames:
    """Return the images at ascending indices, without reading the others if possible."""
    if isinstance(frames, _Files):
        return dataclasses.replace(frames, paths=tuple(frames.paths[index] for index in indices))
    if isinstance(frames, CalibrationImages):
        return dataclasses.replace(frames, images=tuple(frames.images[index] for index in indices), warnings=())
    wanted = set(indices)
    return [item for index, item in enumerate(frames) if index in wanted]
