"""Videos, written frame by frame, and read back before they get their final name."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from yolact_plugins.file_errors import describe, explain
from yolact_plugins.files import human_size
from yolact_plugins.staging import StagedFile
from yolact_runtime.errors import MediaError
from yolact_runtime.formats.video_index import read_video_index
from yolact_runtime.media.opencv import opencv
from yolact_runtime.media.video_encoders import Encoder, open_encoder, video_suffix
from yolact_runtime.media.videos import VideoReader

__all__ = ["VideoWriter", "incomplete_path", "video_suffix"]

Frame = npt.NDArray[np.uint8]

_STEM_BYTES = 180
"""Maximum length of the stem in temporary names, which are longer than the requested one: a name may have 255 bytes."""
_LOW_SPACE_BYTES = 4_000_000
_LEAST_PX = 16
"""Minimum side in pixels: codecs do not support smaller ones, and not every player opens them."""


class VideoWriter:
    """A writer of videos that browsers play. A context manager.

    ``.mp4`` is H.264 if there is a program ``ffmpeg`` that encodes it, and else VP9 by OpenCV; ``.webm`` is VP8 by
    OpenCV. On leaving the block without an exception, the file is closed, opened again and its frames are counted; only
    then does it get its name. After an exception, Ctrl-C and SIGTERM included, the frames so far are kept as
    :func:`incomplete_path`, playable, and an older file of the name is not touched.

    Attributes:
        written: The resulting file after leaving the block: the path, that of the incomplete file, or None.
        num_frames: Number of frames written so far.
        codec: Name of the codec, ``H.264``, ``VP9`` or ``VP8``; empty before the first frame.

    Args:
        path: Path with the suffix ``.mp4`` or ``.webm``, in an existing folder; :func:`video_suffix` says which is
            better on this machine.
        fps: Frame rate in frames per second, positive; limited to 0.001 to 1000, without ffmpeg from 1.

    Raises:
        MediaError: The video cannot be written, for example because the disk is full, or cannot be read back. Raised by
            all methods and on leaving the block; the message states the reason.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self, path: Path, fps: float) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise MediaError(f"cannot write {path}: {fps} frames per second")
        self._path = path
        self._fps = min(max(fps, 0.001), 1000.0)
        self._staged: StagedFile | None = None
        self._encoder: Encoder | None = None
        self._first = self._size = (0, 0)
        self.written: Path | None = None
        self.num_frames = 0

    @property
    def codec(self) -> str:
        """Name of the codec of the video."""
        return self._encoder.codec if self._encoder else ""

    def write(self, image: Frame) -> None:
        """Append a frame.

        Args:
            image: Image ``(H, W, 3)`` uint8, blue first; not modified. All frames get the size of the first, with its
                last column or row repeated if they are odd in number or fewer than 16. A frame of another size is
                scaled to fit, between black borders.

        Raises:
            MediaError: The encoder failed.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise MediaError(
                f"cannot write {self._path}: a frame is (H, W, 3) uint8, found {image.dtype} {image.shape}"
            )
        try:
            if self._encoder is None:
                self._first, self._size = image.shape[:2], _padded(image.shape[0], image.shape[1])
                # Encoders open it again by its name, and use its suffix.
                self._staged = StagedFile(self._path, self._path.suffix.lower())
                self._encoder = open_encoder(self._staged.path, self._fps, self._size[1], self._size[0])
            self._encoder.write(np.ascontiguousarray(self._fitted(image)))
        except (MediaError, OSError) as error:
            raise MediaError(f"cannot write {self._path}: {self._reason(error)}") from error
        self.num_frames += 1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._staged is None:
            return
        try:
            if self._encoder is None:
                return
            self._encoder.finish()
            if kind is None:
                self._check(self._staged.path)
                self._staged.commit()
                self.written = self._path
        except (MediaError, OSError) as failure:
            if kind is None:
                raise MediaError(
                    f"cannot write {self._path}: {self._reason(failure)}{self._keep(self._staged)}"
                ) from failure
        finally:
            # After Ctrl-C and every other exception, whether from this class, the caller or while finishing.
            try:
                self._keep(self._staged)
            except (KeyboardInterrupt, SystemExit):
                # This takes no longer than displaying a frame, and a file without a name would be lost.
                self._keep(self._staged)
                raise

    def _fitted(self, image: Frame) -> Frame:
        """Return the image at the video's size.

        Unchanged, with its last row or column repeated, or scaled between borders.
        """
        height, width = image.shape[:2]
        if (height, width) == self._size:
            return image
        cv2 = opencv()
        fitted: Frame
        if (height, width) == self._first:
            more = (0, self._size[0] - height, 0, self._size[1] - width)
            fitted = cv2.copyMakeBorder(image, *more, cv2.BORDER_REPLICATE)
            return fitted
        scale = min(self._size[0] / height, self._size[1] / width)
        inner = (max(round(height * scale), 1), max(round(width * scale), 1))
        top, left = (self._size[0] - inner[0]) // 2, (self._size[1] - inner[1]) // 2
        fitted = np.zeros((*self._size, 3), np.uint8)
        fitted[top : top + inner[0], left : left + inner[1]] = cv2.resize(
            image, (inner[1], inner[0]), interpolation=cv2.INTER_AREA
        )
        return fitted

    def _check(self, path: Path) -> None:
        """Read the file back.

        Raises:
            MediaError: The file is not what was written.
        """
        num_frames, faults = _playable(path)
        if num_frames != self.num_frames or faults:
            found = f"has {num_frames} that can be read back" if num_frames else "cannot be read back"
            raise MediaError("; ".join([f"{self.num_frames} frames were written, but the file {found}", *faults]))

    def _keep(self, staged: StagedFile) -> str:
        """Rename an incomplete file if it plays, and remove it otherwise; describe the result."""
        if not staged.is_open:
            return ""
        num_frames, _ = _playable(staged.path)
        if not num_frames:
            staged.discard()
            return "; nothing is kept"
        place = incomplete_path(self._path)
        try:
            staged.commit(place, flush=False)
        except OSError as error:
            staged.discard()
            return f"; its first {num_frames} frames are lost: {describe(error)}"
        self.written = place
        return f"; its first {num_frames} frames are in {place}"

    def _reason(self, error: Exception) -> str:
        """Describe the error, and whether the disk is full.

        That is likely, and encoders report it badly or not at all.
        """
        if isinstance(error, OSError):
            return explain(error, self._path)
        try:
            free = shutil.disk_usage(self._path.parent).free
        except OSError:
            return str(error)
        return f"{error} (the disk is full: {human_size(free)} are free)" if free < _LOW_SPACE_BYTES else str(error)


def incomplete_path(path: Path) -> Path:
    """Return the name for an interrupted video: ``clip.incomplete.mp4`` for ``clip.mp4``."""
    return path.with_name(f"{_short(path.stem)}.incomplete{path.suffix}")


def _short(stem: str) -> str:
    """Shorten a stem without cutting characters: OpenCV does not write names that are not UTF-8."""
    while len(os.fsencode(stem)) > _STEM_BYTES:
        stem = stem[:-1]
    return stem


def _padded(height: int, width: int) -> tuple[int, int]:
    """Return the size of a video for frames of a size: colour is stored for every second row and column."""
    return max(height + height % 2, _LEAST_PX), max(width + width % 2, _LEAST_PX)


def _playable(path: Path) -> tuple[int, tuple[str, ...]]:
    """Return the number of frames by the index (0 if the first cannot be decoded), and what is wrong with the file."""
    try:
        index = read_video_index(path)
        with VideoReader(path) as reader:
            next(iter(reader))
    except (MediaError, OSError, StopIteration):
        return 0, ()
    return index.num_frames or 0, index.faults
