"""Video files and cameras, read and written with OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import MediaError
from yolact_runtime.media.opencv import opencv

__all__ = ["VIDEO_SUFFIXES", "VideoReader", "VideoWriter", "read_camera"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".webm"})

Frame = npt.NDArray[np.uint8]


class VideoReader:
    """Frames of a video file, in order. A context manager.

    Attributes:
        fps: Frames per second as the file states, or 30 where it states nothing useful.
        num_frames: As the file states: an estimate, for progress only. None where it states nothing.

    Raises:
        MediaError: The file cannot be opened as a video.
    """

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        if not path.is_file():
            raise MediaError(f"cannot read {path}: no such file")
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise MediaError(f"cannot read {path}: not a video that this OpenCV can decode")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 0 < fps < 1000 else 30.0
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.num_frames = count if count > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        """``(H, W, 3)`` uint8, blue first; each frame belongs to the caller."""
        count = 0
        while True:
            read, frame = self._capture.read()
            if not read:
                break
            count += 1
            yield frame
        if not count:
            raise MediaError(f"cannot read {self._path}: it opens as a video but holds no frame that can be decoded")

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._capture.release()


def read_camera(number: int, count: int, skip: int = 0) -> list[Frame]:
    """Frames of a camera.

    Args:
        number: 0 is the first.
        count: How many.
        skip: Frames before, that are dropped.

    Returns:
        ``(H, W, 3)`` uint8, blue first; each belongs to the caller.

    Raises:
        MediaError: There is no such camera, or it stops giving frames.
    """
    cv2 = opencv()
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise MediaError(f"there is no camera {number} that OpenCV can open; is it plugged in, and not in use?")
        frames: list[Frame] = []
        for taken in range(skip + count):
            read, frame = capture.read()
            if not read:
                raise MediaError(f"camera {number} gave {taken} frame(s) and then none; {skip + count} are needed")
            frames.append(frame)
        return frames[skip:]
    finally:
        capture.release()


class VideoWriter:
    """Writes an MP4 file frame by frame. A context manager; the file has its final name only once it is complete."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        self._fps = fps
        self._writer: Any = None

    def write(self, frame: Frame) -> None:
        """Append ``(H, W, 3)`` uint8, blue first; all frames have the size of the first."""
        cv2 = opencv()
        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter_fourcc(*"mp4v"), self._fps, size)
            if not self._writer.isOpened():
                raise MediaError(f"cannot write {self._path}: this OpenCV has no MPEG-4 encoder")
        self._writer.write(frame)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if kind is None:
            try:
                self._partial.replace(self._path)
            except OSError as failure:
                raise MediaError(f"cannot write {self._path}: {failure.strerror or failure}") from failure
        else:
            self._partial.unlink(missing_ok=True)
