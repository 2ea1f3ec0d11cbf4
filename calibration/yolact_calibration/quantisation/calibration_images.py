"""Calibration images: found, screened by content, and read one at a time. Labels are not needed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_calibration.data.frame_files import frames_of
from yolact_calibration.errors import DatasetError, MediaError
from yolact_calibration.quantisation.observer import frame_digest
from yolact_runtime.formats.file_format import FileKind
from yolact_runtime.formats.file_probe import kind_of_file
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.inputs import Inputs, find_inputs
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["CalibrationImage", "CalibrationImages", "find_calibration_images"]

Frame = npt.NDArray[np.uint8]
_FEWEST, _ENOUGH = 8, 32
"""Numbers of usable images below which a calibration is refused, and below which it is reported as doubtful."""
# Difference of grey levels between the darkest and the brightest pixel of a channel. A covered camera's noise is less.
_LEAST_CONTRAST = 8


@dataclasses.dataclass(frozen=True)
class CalibrationImage:
    """Usable frame of an image file, a video or an archive.

    Attributes:
        path: Path of the file.
        position: Position of the frame in the file, from 0.
        name: Readable name of the frame.
        digest: Result of :func:`~yolact_calibration.quantisation.observer.frame_digest`.
    """

    path: Path
    position: int
    name: str
    digest: str


@dataclasses.dataclass(frozen=True)
class CalibrationImages:
    """Usable frames without duplicates; iterating reads them again, one at a time, as ``(name, frame)``.

    Attributes:
        images: Frames, those of one file in succession, by ascending position.
        warnings: Sentences about files that were left out, and why.
        reader: Reader for the files.
    """

    images: tuple[CalibrationImage, ...]
    warnings: tuple[str, ...]
    reader: ImageReader = dataclasses.field(default_factory=ImageReader, compare=False)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        first = 0
        while first < len(self.images):
            path = self.images[first].path
            end = first
            while end < len(self.images) and self.images[end].path == path:
                end += 1
            yield from _read(path, self.images[first:end], self.reader)
            first = end

    def hold_back(self, count: int) -> tuple[CalibrationImages, CalibrationImages]:
        """Split off `count` images.

        The choice depends only on the content of the images, so another order of the files calibrates on the same ones.

        Returns:
            The remaining images, with the warnings, and the `count` images for judging the result.
        """
        held = {image.digest for image in sorted(self.images, key=lambda image: image.digest)[:count]}
        rest = tuple(image for image in self.images if image.digest not in held)
        return dataclasses.replace(self, images=rest), dataclasses.replace(
            self, images=tuple(image for image in self.images if image.digest in held), warnings=()
        )

    def digest(self) -> str:
        """Return the SHA-256 of the set of decoded images, hexadecimal; order, names and file formats do not matter."""
        return hashlib.sha256("\n".join(sorted(image.digest for image in self.images)).encode()).hexdigest()


def find_calibration_images(
    words: Sequence[str],
    *,
    frames_per_video: int = 64,
    most: int | None = None,
    bit_depth: int | None = None,
    usual_bit_depth: int | None = None,
    reporter: Reporter = SILENT,
) -> CalibrationImages:
    """Find images and screen every one.

    Unreadable, blank and pixel-identical images are left out with a warning.

    Args:
        words: Folders, glob patterns and files as on a command line: images, videos, and ``.npz`` archives of uint8
            arrays ``(N, H, W, 3)`` or ``(H, W, 3)``, BGR. See :func:`yolact_runtime.media.inputs.find_inputs`.
        frames_per_video: Maximum number of frames from each video, evenly spaced.
        most: Maximum number of files, chosen at even intervals; None uses all.
        bit_depth: Significant bits of 16-bit images, which overrides what the files state.
        usual_bit_depth: Significant bits of 16-bit images that do not state them.
        reporter: Reporter that shows the progress.

    Raises:
        DatasetError: A word matches nothing, or fewer than 8 images are usable.
        UsageError: A bit depth is invalid.
    """
    found = _find_files(words)
    files = list(dict.fromkeys([*found.images, *found.videos, *found.archives]))
    if most is not None and len(files) > most:
        files = [files[index] for index in np.linspace(0, len(files) - 1, most).round().astype(int)]
    notes = list(found.left_out)
    screening = _Screening(ImageReader(bit_depth, usual_bit_depth, notes.append), notes)
    for path in reporter.progress(files, "looked at", len(files)):
        screening.look_at(path, frames_per_video)
    return screening.finish(" ".join(words))


class _Screening:
    def __init__(self, reader: ImageReader, notes: list[str]) -> None:
        self._reader = reader
        self._notes = notes
        self._images: dict[str, CalibrationImage] = {}
        self._warnings: list[str] = []
        self._counts = {"unreadable": 0, "blank": 0, "duplicate": 0}

    def look_at(self, path: Path, frames_per_video: int) -> None:
        most = frames_per_video if kind_of_file(path) is FileKind.VIDEO else None
        seen: list[tuple[CalibrationImage, bool]] = []
        stride = 1
        try:
            for position, (name, frame) in enumerate(frames_of(path, self._reader)):
                if position % stride:
                    continue
                seen.append((CalibrationImage(path, position, name, frame_digest(frame)), _is_blank(frame)))
                # A video's stated length is an estimate, so thin out instead: keep every second frame.
                if most is not None and len(seen) > most:
                    seen, stride = seen[::2], 2 * stride
        except MediaError as error:
            self._leave_out("unreadable", str(error))
        for image, blank in seen:
            self._judge(image, blank)

    def finish(self, asked: str) -> CalibrationImages:
        found = len(self._images)
        if found < _FEWEST:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._counts.items() if count)
            first = self._warnings[0].removeprefix("left out: ") if kinds else ""
            several = sum(self._counts.values()) > 1
            example = f"; {kinds}{', the first one' if several else ''}: {first}" if kinds else ""
            raise DatasetError(
                f"{asked}: {found} usable image{'' if found == 1 else 's'} found{example}. Calibration needs at least "
                f"{_FEWEST}, better {_ENOUGH} or more: give a folder or a video of what the camera sees, without labels"
            )
        if found < _ENOUGH:
            self._warnings.append(
                f"{found} images are few for a calibration, and rare values may be missing from the ranges; give "
                f"{_ENOUGH} or more"
            )
        warnings = (*self._notes, *self._warnings)
        return CalibrationImages(tuple(self._images.values()), warnings, self._reader)

    def _judge(self, image: CalibrationImage, blank: bool) -> None:
        if blank:
            self._leave_out("blank", f"{image.name} is blank: all its pixels are alike")
        elif image.digest in self._images:
            self._leave_out(
                "duplicate", f"{image.name} is the same as {self._images[image.digest].name}, pixel for pixel"
            )
        else:
            self._images[image.digest] = image

    def _leave_out(self, kind: str, reason: str) -> None:
        self._counts[kind] += 1
        self._warnings.append(f"left out: {reason}")


def _find_files(words: Sequence[str]) -> Inputs:
    found = find_inputs(words, archives=True)
    for word, reason in found.failures:
        raise DatasetError(f'"{word}": {reason}')
    return found


def _is_blank(frame: Frame) -> bool:
    # Reduce whole rows first: NumPy is slow at reducing to three numbers.
    high, low = frame.max(axis=0).max(axis=0), frame.min(axis=0).min(axis=0)
    return bool((high.astype(int) - low < _LEAST_CONTRAST).all())


def _read(path: Path, images: Sequence[CalibrationImage], reader: ImageReader) -> Iterator[tuple[str, Frame]]:
    chosen = {image.position: image.name for image in images}
    for position, (_, frame) in enumerate(islice(frames_of(path, reader), images[-1].position + 1)):
        if position in chosen:
            yield chosen[position], frame
