"""Encoders of videos that browsers play: H.264 by an ffmpeg process, or VP8 and VP9 by OpenCV."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import is_utf8
from yolact_runtime.errors import MediaError
from yolact_runtime.media.decoder_messages import messages_caught
from yolact_runtime.media.opencv import opencv

__all__ = ["Encoder", "open_encoder", "video_suffix"]

Frame = npt.NDArray[np.uint8]

_H264_ENCODERS = {"libx264": ("-preset", "veryfast", "-crf", "20"), "libopenh264": ("-b:v", "6M")}
"""Encoders of ffmpeg that need no special hardware, best first, with their options.

With this preset 1080p takes twice the time of OpenCV's MPEG-4, and a third of the space.
"""
_OPENCV_CODECS = {".mp4": ("VP9", "vp09"), ".webm": ("VP8", "VP80")}
_LEAST_RATE = 1.0
"""Minimum rate of OpenCV's encoders in frames per second; at lower rates a frame gets far too few bits."""
_TAGS = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "smpte170m"}
_PART_OF_FFMPEG = re.compile(r"^(\[[^\]]*\] ?)+")
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
"""Linux has it; Python names it from 3.10 on, but not on all systems."""


class Encoder(Protocol):
    """An encoder that writes frames of one size to a file.

    Attributes:
        codec: Common name of the codec.
    """

    codec: str

    def write(self, image: Frame) -> None:
        """Encode a frame, ``(H, W, 3)`` uint8, blue first, contiguous.

        Raises:
            MediaError: The encoder has ended, usually because it cannot write; the message states the reason.
        """

    def finish(self) -> None:
        """Write the remaining data and close the file; a second call does nothing.

        Raises:
            MediaError: The encoder failed; the message states the reason.
        """


def video_suffix() -> str:
    """Return the suffix of videos that this machine writes best: ``.mp4`` with ffmpeg (H.264), else ``.webm`` (VP8)."""
    return ".mp4" if _h264_encoder() else ".webm"


def open_encoder(path: Path, fps: float, width: int, height: int) -> Encoder:
    """Open the encoder for a file.

    Args:
        path: Path to write: ``.mp4`` is H.264 if an ffmpeg with an H.264 encoder exists and else VP9, ``.webm`` is VP8.
        fps: Frame rate in frames per second.
        width: Number of columns of a frame, even.
        height: Number of rows of a frame, even.

    Raises:
        MediaError: There is no encoder for this suffix, or it cannot be started.
        MissingDependencyError: OpenCV is needed and not installed.
    """
    found = _h264_encoder() if path.suffix == ".mp4" else None
    if found:
        return _FfmpegEncoder(*found, path, fps, width, height)
    if path.suffix not in _OPENCV_CODECS:
        raise MediaError(f"videos are written as .mp4 or .webm, not as {path.suffix or 'a file without a suffix'}")
    return _OpencvEncoder(path, fps, width, height)


def _h264_encoder() -> tuple[str, str] | None:
    program = shutil.which("ffmpeg")
    name = _h264_encoder_of(program) if program else None
    return (program, name) if program and name else None


@functools.lru_cache(maxsize=8)
def _h264_encoder_of(program: str) -> str | None:
    """Return the best H.264 encoder that an ffmpeg has; builds for some systems have none."""
    try:
        listing = subprocess.run(
            [program, "-hide_banner", "-nostdin", "-encoders"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    words = listing.stdout.decode(errors="replace").split()
    return next((name for name in _H264_ENCODERS if name in words), None)


class _OpencvEncoder:
    """A VP8 or VP9 encoder. OpenCV does not report write errors, so callers must read the file back."""

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        cv2 = opencv()
        self.codec, code = _OPENCV_CODECS[path.suffix]
        path = path.absolute()
        if not is_utf8(path):
            raise MediaError(
                "OpenCV cannot write a file whose name is not UTF-8; install ffmpeg or choose another name"
            )
        with messages_caught():  # VP8 in WebM has no tag, and OpenCV complains that ours is not it.
            self._writer: Any = cv2.VideoWriter(
                str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), max(fps, _LEAST_RATE), (width, height)
            )
        if not self._writer.isOpened():
            raise MediaError(
                f"the file cannot be created, or this OpenCV has no {self.codec} encoder; install ffmpeg for H.264"
            )

    def write(self, image: Frame) -> None:
        self._writer.write(image)

    def finish(self) -> None:
        self._writer.release()


class _FfmpegEncoder:
    """An H.264 encoder in an ffmpeg process, which reads frames from a pipe.

    It runs in a separate session: Ctrl-C must not reach it, because ffmpeg must finish the file.
    """

    codec = "H.264"

    def __init__(self, program: str, encoder: str, path: Path, fps: float, width: int, height: int) -> None:
        rate = Fraction(fps).limit_denominator(100_000)
        command = [program, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "pipe:0"]
        # BT.601 at every size, with tags: browsers rely on the tags, and OpenCV 4 assumes BT.601.
        command += ["-vf", f"scale=out_color_matrix=bt601:out_range=tv,format=yuv420p,setparams={_frame_tags()}"]
        command += ["-an", "-c:v", encoder, *_H264_ENCODERS[encoder], *_stream_tags()]
        command += ["-movflags", "+faststart", "-f", "mp4"]
        self._finished = False
        try:
            self._process = subprocess.Popen(
                [*command, f"file:{path}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise MediaError(f"{program} cannot be started: {error.strerror or error}") from error
        assert self._process.stdin
        assert self._process.stderr
        self._stdin = self._process.stdin
        _widen(self._stdin)
        self._words: deque[bytes] = deque(maxlen=5)
        # Read continuously: a full pipe of messages would block the process, and then this one.
        self._listener = threading.Thread(target=self._words.extend, args=(self._process.stderr,), daemon=True)
        self._listener.start()

    def write(self, image: Frame) -> None:
        content = memoryview(image.data).cast("B")
        try:
            while content:
                content = content[os.write(self._stdin.fileno(), content) :]
        except BrokenPipeError:
            self.finish()
            raise MediaError("ffmpeg ended before the video did") from None

    def finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        self._stdin.close()
        try:
            status = self._wait()
        finally:
            self._listener.join()
            if self._process.stderr:
                self._process.stderr.close()
        if status:
            raise MediaError(f"ffmpeg failed: {self._reason(status)}")

    def _wait(self) -> int:
        """Wait for the file to be finished. Ctrl-C and SIGTERM wait for that, too; a second one abandons the file."""
        try:
            return self._process.wait()
        except (KeyboardInterrupt, SystemExit):
            try:
                self._process.wait()
            except (KeyboardInterrupt, SystemExit):
                # It must not continue to write after this process has ended.
                self._process.kill()
                self._process.wait()
            raise

    def _reason(self, status: int) -> str:
        words = [_PART_OF_FFMPEG.sub("", line.decode(errors="replace")).strip() for line in self._words]
        if status < 0:
            words.append(f"ended by {_signal_name(-status)}")
        return "; ".join(filter(None, dict.fromkeys(words))) or f"status {status}"


def _frame_tags() -> str:
    return ":".join(f"{name}={value}" for name, value in _TAGS.items()) + ":range=tv"


def _stream_tags() -> list[str]:
    """Return the same tags for the encoder: before version 5, ffmpeg does not take them from the frames."""
    return [word for name, value in _TAGS.items() for word in (f"-{name}", value)] + ["-color_range", "tv"]


def _signal_name(number: int) -> str:
    description = signal.strsignal(number)
    return f"signal {number} ({description})" if description else f"signal {number}"


def _widen(pipe: IO[bytes]) -> None:
    """Enlarge a pipe, which reduces context switches between the two processes. Only affects speed."""
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, OSError):
        return
