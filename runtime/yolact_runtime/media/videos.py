"""Video files, read frame by frame with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import counted, is_utf8
from yolact_plugins.staging import scratch_folder
from yolact_runtime.errors import MediaError
from yolact_runtime.formats.file_format import VIDEO_SUFFIXES
from yolact_runtime.formats.file_probe import why_not_regular
from yolact_runtime.formats.video_index import read_video_index
from yolact_runtime.media.opencv import opencv

__all__ = ["VideoFrame", "VideoReader"]

Frame = npt.NDArray[np.uint8]

_MAX_HOLE = 300
"""Maximum number of consecutive packets that cannot be decoded before a video without an index counts as ended.

Ten seconds of frames. At the true end each attempt takes 20 to 50 microseconds.
"""
_AT_THE_END = 10
"""Number of attempts after the last frame of an index: there may be one more, and decoders delay some."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml", b"<MPD", b"[playlist]", b"[Reference]")
"""Beginnings of texts that FFmpeg would follow to other files, or to the network."""


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    Attributes:
        image: Image ``(H, W, 3)`` uint8, blue first, turned upright; owned by the caller.
        number: Position in the video, from 0; frames that could not be decoded are counted.
        time_s: Presentation time in seconds from the beginning, never before that of the previous frame: the
            container's time, or number / fps if it states none.
    """

    image: Frame
    number: int
    time_s: float


class VideoReader:
    """The frames of a video file, in order. A context manager that can be iterated over once.

    A frame that cannot be decoded does not end the video: the frames after it are read, and `faults` describes what is
    missing. Damage that a decoder conceals, such as flipped bits inside a frame, is not detected: OpenCV does not
    report it.

    Attributes:
        fps: Frame rate that the file states, or 30 if it states nothing useful.
        num_frames: Number of frames from the index, if the file has one; else the file's own statement, an estimate for
            progress only; None if there is none.

    Args:
        path: Path of a regular file. Its name is never interpreted as a pattern or an address.

    Raises:
        MediaError: The file cannot be opened as a video.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self, path: Path) -> None:
        cv2 = opencv()
        self._path = path
        self._refuse_what_is_no_file()
        try:
            self._index = read_video_index(path)
        except OSError as error:
            raise MediaError(f"cannot read {path}: {error.strerror or error}") from error
        self._stack = ExitStack()
        self._capture = self._open(cv2)
        self._stack.callback(self._capture.release)
        # The default of OpenCV 5; 4.11 returns the image of a rotated camera lying on its side.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 0 < fps < 1000 else 30.0
        estimate = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        count = int(estimate) if 0 < estimate < 1e12 else None
        self.num_frames = count if self._index.num_frames is None else self._index.num_frames
        self._num_read = 0
        self._num_undecoded = 0
        self._first_hole = ""
        self._ended = False

    @property
    def faults(self) -> tuple[str, ...]:
        """Descriptions of missing parts, as sentences without the file's name; empty if nothing is missing.

        Covers frames that could not be decoded and parts beyond the end of the file, as far as it was read; after the
        last frame, also frames that an exact index promises (MP4, AVI) but the file does not contain.
        """
        faults = list(self._index.faults)
        if self._num_undecoded:
            faults.append(
                f"{counted(self._num_undecoded, 'frame')} could not be decoded, the first one {self._first_hole}"
            )
        promised = self._index.num_frames
        if self._ended and promised is not None and self._num_read + self._num_undecoded < promised:
            faults.append(f"its index promises {promised} frames, and {self._num_read} could be read")
        return tuple(faults)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames.

        Raises:
            MediaError: No frame can be decoded.
        """
        cv2 = opencv()
        position = _Position(self.fps, self._index.times_s)
        failed = 0
        while failed < self._patience():
            try:
                read, image = self._capture.read()
            except cv2.error:  # A frame of a format or size that OpenCV does not handle.
                read, image = False, None
            if not read:
                failed += 1
                continue
            if failed:
                self._note_hole(failed, position)
            position.advance(failed, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            failed = 0
            self._num_read += 1
            yield VideoFrame(image, position.number, position.time_s)
        self._ended = True
        if not self._num_read:
            faults = "".join(f"; {fault}" for fault in self._index.faults)
            codec = int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
            named = f" (its codec is {codec.decode()})" if codec.isalnum() else ""
            raise MediaError(
                f"cannot read {self._path}: it opens as a video but holds no frame that this OpenCV can "
                f"decode{named}{faults}"
            )

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def _patience(self) -> int:
        """Return the number of consecutive failures that end the video; OpenCV cannot tell its end from a hole."""
        promised = self._index.num_frames
        if promised is None:
            return _MAX_HOLE
        missing = promised - self._num_read - self._num_undecoded
        return _AT_THE_END + max(missing, 0)

    def _note_hole(self, failed: int, position: _Position) -> None:
        self._num_undecoded += failed
        if not self._first_hole:
            self._first_hole = (
                f"after frame {position.number} at {position.time_s:.2f} s" if self._num_read else "at the beginning"
            )

    def _refuse_what_is_no_file(self) -> None:
        """Reject what is not a file.

        Opening a FIFO would block forever, and a playlist would make FFmpeg read other files.
        """
        try:
            if reason := why_not_regular(self._path.stat().st_mode):
                raise MediaError(f"cannot read {self._path}: {reason}")
            with self._path.open("rb") as file:
                head = file.read(64)
        except (OSError, ValueError) as error:
            raise MediaError(f"cannot read {self._path}: {getattr(error, 'strerror', None) or error}") from error
        if not head:
            raise MediaError(f"cannot read {self._path}: the file is empty")
        if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(_PLAYLISTS):
            raise MediaError(
                f"cannot read {self._path}: it is a playlist, which names videos; use the videos themselves"
            )

    def _open(self, cv2: Any) -> Any:
        path = self._path.absolute()  # A name such as http:a.mp4 is not an address with a slash before it.
        name = str(path)
        if "%" in name or not is_utf8(path):
            # OpenCV accepts names only as text, and treats a name with % as a pattern for many files.
            folder = self._stack.enter_context(scratch_folder("video"))
            link = folder / f"video{self._path.suffix if self._path.suffix in VIDEO_SUFFIXES else ''}"
            link.symlink_to(path)
            name = str(link)
        ffmpeg = cv2.CAP_FFMPEG
        backend = ffmpeg if cv2.videoio_registry.hasBackend(ffmpeg) else cv2.CAP_ANY
        capture = cv2.VideoCapture(name, backend)
        if not capture.isOpened():
            self._stack.close()
            reasons = "".join(f"; {fault}" for fault in self._index.faults)
            raise MediaError(
                f"cannot read {self._path}: not a video that this OpenCV can decode{reasons or ', or cut short'}"
            )
        return capture


class _Position:
    """Number and time of the frames of a video, while it is read."""

    def __init__(self, fps: float, times_s: npt.NDArray[np.float64] | None) -> None:
        self._fps = fps
        self._times_s = times_s
        self.number = -1
        self.time_s = -math.inf

    def advance(self, skipped: int, time_s: float) -> None:
        """Go to the next frame, after `skipped` undecodable ones; `time_s` is the container's time."""
        least = self.number + 1
        self.number = least + skipped
        if not math.isfinite(time_s) or time_s < 0 or time_s <= self.time_s:
            time_s = max(self.number / self._fps, self.time_s)
        elif self._times_s is not None:
            # Decoders delay frames: the number of failures before this frame is not the number of missing frames before
            # it. Times are rounded in many places, by less than a quarter of a frame.
            self.number = max(least, int(np.searchsorted(self._times_s, time_s - 0.25 / self._fps)))
        self.time_s = time_s
