"""Format and identity of a file, without opening anything but regular files."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from yolact_runtime.formats import file_format as formats
from yolact_runtime.formats.file_format import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    FileFormat,
    FileKind,
    format_of,
)
from yolact_runtime.formats.header_reader import count_gif_pictures, count_png_pictures
from yolact_runtime.formats.image_header import DamagedImageError

__all__ = ["FileProbe", "expected_kind", "kind_of_file", "probe_file", "why_not_regular"]

_ANIMATED_GIF = FileFormat("an animated GIF", FileKind.VIDEO)
_ANIMATED_PNG = FileFormat("an animated PNG", FileKind.VIDEO)
_PNG_HEAD_BYTES = 1 << 16
"""An animation is declared before the pixels; profiles and texts may precede it."""
_MOST_GIF_BYTES = 1 << 28
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True)
class FileProbe:
    """Format and identity of a file.

    Attributes:
        file_format: Format of the file; None if it is unknown.
        identity: Device and inode numbers, which are equal for two names of one file.
        not_regular: Description of a file that is not a regular file; empty otherwise.
    """

    file_format: FileFormat | None
    identity: tuple[int, int]
    not_regular: str = ""

    def kind(self, suffix: str) -> FileKind | None:
        """Return the kind to read the file as, by its content or else by its suffix; None if neither is known."""
        if self.file_format is None or self.file_format.kind is FileKind.OTHER:
            # A file with an image suffix that is not an image is a mistake, which its reader reports.
            return None if self.file_format is formats.APPLE_DOUBLE else expected_kind(suffix)
        return self.file_format.kind


def expected_kind(suffix: str) -> FileKind | None:
    """Return the expected kind of a file with a suffix (lower case, with the dot)."""
    if suffix in IMAGE_SUFFIXES:
        return FileKind.IMAGE
    # ".ts" is more often TypeScript than video, so only the content decides.
    return FileKind.VIDEO if suffix in VIDEO_SUFFIXES and suffix != ".ts" else None


def kind_of_file(path: Path) -> FileKind:
    """Return the kind to read a file as that the user named; by default an image, whose reader reports errors."""
    suffix = path.suffix.lower()
    try:
        return probe_file(path, suffix).kind(suffix) or FileKind.IMAGE
    except (OSError, ValueError):
        return expected_kind(suffix) or FileKind.IMAGE


def probe_file(path: Path | str, suffix: str, is_regular: bool = False) -> FileProbe:
    """Detect the format and identity of a file.

    Args:
        path: Path of the file; a link is followed.
        suffix: File name suffix with the dot.
        is_regular: Whether the folder's listing already says that it is a regular file, so that it is not checked
            again.

    Raises:
        OSError: The file does not exist, is not readable, or its links form a loop.
        ValueError: The name contains a NUL.
    """
    if not is_regular:
        status = Path(path).stat()
        if reason := why_not_regular(status.st_mode):
            return FileProbe(None, (status.st_dev, status.st_ino), reason)
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        identity = status.st_dev, status.st_ino
        if reason := why_not_regular(status.st_mode):
            return FileProbe(None, identity, reason)
        file_format = format_of(os.read(descriptor, HEAD_BYTES), suffix)
        if file_format is formats.GIF or file_format is formats.PNG:
            file_format = _with_animation(descriptor, file_format)
        return FileProbe(file_format, identity)
    finally:
        os.close(descriptor)


def why_not_regular(mode: int) -> str:
    """Explain why a path is not a regular file; return an empty string if it is one.

    Args:
        mode: The ``st_mode`` of :func:`os.stat`.
    """
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return "Is a directory"
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return f"it is {next((name for test, name in kinds if test(mode)), 'not a file')}, and only regular files are read"


def _with_animation(descriptor: int, file_format: FileFormat) -> FileFormat:
    """Distinguish animations from images in GIF and PNG; damaged files are left to their reader."""
    is_gif = file_format is formats.GIF
    content = memoryview(_read_from_start(descriptor, _MOST_GIF_BYTES if is_gif else _PNG_HEAD_BYTES))
    try:
        if is_gif:
            return _ANIMATED_GIF if count_gif_pictures(content) > 1 else file_format
        return _ANIMATED_PNG if count_png_pictures(content) > 1 else file_format
    except DamagedImageError:
        return file_format


def _read_from_start(descriptor: int, most: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read(most)
