"""Image and video files, and drawn text: the only module of the runtime that uses OpenCV.

The segmenter does not import it; a robot that feeds frames from its camera driver needs no OpenCV.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import write_atomically
from yolact_runtime.errors import MediaError, MissingDependencyError

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "VideoReader",
    "VideoWriter",
    "encode_image",
    "read_image",
    "text_coverage",
    "write_image",
]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mpeg", ".webm"})

Frame = npt.NDArray[np.uint8]
_LOG_LEVEL_SILENT = 0
"""Of OpenCV; version 4 has no name for it in Python."""


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv-python-headless", "Reading and writing images and videos", "video"
        ) from error
    # Its warnings would repeat our errors, without the file's name. OpenCV 5 moved the function.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_log_level(_LOG_LEVEL_SILENT)
    return cv2


def read_image(path: Path) -> Frame:
    """``(H, W, 3)`` uint8, blue first, turned upright by its EXIF orientation; gray is repeated, alpha is dropped.

    Raises:
        MediaError: The file is missing, unreadable or not an image.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = _opencv()
    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        raise MediaError(f"cannot read {path}: {error.strerror or error}") from error
    if not len(content):
        raise MediaError(f"cannot read {path}: the file is empty")
    try:
        # OpenCV limits decoded images to 2**30 pixels and raises beyond.
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise MediaError(f"cannot read {path}: {error.err}") from error
    if image is None:
        raise MediaError(f"cannot read {path}: not an image that OpenCV can decode, or cut short")
    frame: Frame = image
    return frame


def encode_image(image: Frame, suffix: str, *, jpeg_quality: int = 95) -> bytes:
    """The content of a file with ``(H, W, 3)`` uint8, blue first, in the format of the suffix.

    Args:
        image: Not modified.
        suffix: With the dot, such as ``.png``.
        jpeg_quality: 0 to 100; only JPEG has it.

    Raises:
        MediaError: OpenCV does not know that format.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = _opencv()
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in {".jpg", ".jpeg"} else []
    try:
        encoded, content = cv2.imencode(suffix, image, options)
    except cv2.error as error:
        raise MediaError(f"cannot encode an image as {suffix or 'a file without a suffix'}: {error.err}") from error
    if not encoded:
        raise MediaError(f"cannot encode an image: OpenCV does not know the format {suffix}")
    result: bytes = content.tobytes()
    return result


def write_image(path: Path, image: Frame) -> None:
    """Write ``(H, W, 3)`` uint8, blue first, in the format of the suffix; a whole file or nothing.

    Raises:
        MediaError: OpenCV cannot write that format, or the file cannot be written.
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        write_atomically(path, encode_image(image, path.suffix))
    except MediaError as error:
        raise MediaError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise MediaError(f"cannot write {path}: {error.strerror or error}") from error


class VideoReader:
    """Frames of a video file, in order. A context manager.

    Attributes:
        fps: Frames per second as the file states, or 30 where it states nothing useful.
        num_frames: As the file states: an estimate, for progress only. None where it states nothing.

    Raises:
        MediaError: The file cannot be opened as a video.
    """

    def __init__(self, path: Path) -> None:
        cv2 = _opencv()
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
    cv2 = _opencv()
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
        cv2 = _opencv()
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


def text_coverage(text: str, height_px: int) -> npt.NDArray[np.float32]:
    """One line of text as ``(rows, columns)`` float32 in ``[0, 1]``: how much of each pixel the letters cover.

    Args:
        text: ASCII is drawn; other characters become question marks (OpenCV's built-in font has no others).
        height_px: Height of a capital letter.
    """
    cv2 = _opencv()
    font = cv2.FONT_HERSHEY_SIMPLEX
    thickness = max(1, round(height_px / 9))
    scale = cv2.getFontScaleFromHeight(font, height_px, thickness)
    (width, height), baseline = cv2.getTextSize(text, font, scale, thickness)
    if not text:
        # OpenCV 4 makes nothing a column wide.
        width = 0
    canvas = np.zeros((height + baseline, width), np.uint8)
    cv2.putText(canvas, text, (0, height), font, scale, 255, thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / np.float32(255)
