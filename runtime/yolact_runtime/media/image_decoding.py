"""Decoding of image files, completely or not at all, and never beyond the available memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import human_size, is_utf8
from yolact_runtime.errors import MediaError
from yolact_runtime.formats import file_format as formats
from yolact_runtime.formats.file_format import HEAD_BYTES, IMAGE_SUFFIXES, FileFormat, FileKind, format_of
from yolact_runtime.formats.file_probe import why_not_regular
from yolact_runtime.formats.header_reader import read_image_header
from yolact_runtime.formats.image_header import DamagedImageError, ImageHeader
from yolact_runtime.media.anymap_decoding import decode_anymap
from yolact_runtime.media.decoder_messages import decode_and_listen
from yolact_runtime.media.opencv import opencv
from yolact_runtime.media.videos import VideoReader
from yolact_runtime.model.manifest_limits import MAX_FRAME_PIXELS

__all__ = ["decode_image"]

Frame = npt.NDArray[np.uint8]
_MOST_BYTES = 1 << 30
"""Maximum size of an image file in bytes; only an uncompressed one near OpenCV's pixel limit could be larger."""
_MANY_PIXELS = 1 << 26
"""Number of bytes above which the available memory is checked."""
# Messages of decoders about undamaged files.
_HARMLESS = re.compile(r"libpng warning|extraneous bytes before marker|Unknown Adobe|Unsupported marker")
_SKIPPED_AT_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_MOST_PADDING_BYTES = 16
_TALKATIVE = frozenset({formats.GIF, formats.JPEG, formats.PNG})


def decode_image(path: Path) -> tuple[npt.NDArray[Any], ImageHeader]:
    """Decode one image file.

    Returns:
        The image, ``(H, W, 3)`` with the samples of the file, blue first, turned upright by its EXIF orientation; gray
        is repeated, alpha is dropped. And its header.

    Raises:
        MediaError: The file is missing, not a regular file, too large, damaged, truncated, not an image, several
            images, or of a kind that this OpenCV cannot decode.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv()
    content = _read_file(path)
    file_format = format_of(content[:HEAD_BYTES], path.suffix)
    if file_format is None or file_format.kind is not FileKind.IMAGE:
        raise MediaError(f"cannot read {path}: {_what_it_is(path, file_format)}")
    try:
        header = read_image_header(memoryview(content), file_format)
    except DamagedImageError as error:
        raise MediaError(f"cannot read {path}: {file_format.name}, {error}") from error
    _check_header(path, file_format, header, len(content))
    return _decode(cv2, path, content, file_format, header), header


def _read_file(path: Path) -> bytes:
    """Read a regular file; nothing else is opened, because opening alone may block or have side effects."""
    try:
        status = path.stat()
        if reason := why_not_regular(status.st_mode):
            raise MediaError(f"cannot read {path}: {reason}")
        # The file may be replaced between the two calls.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if reason := why_not_regular(status.st_mode):
                raise MediaError(f"cannot read {path}: {reason}")
            if status.st_size > _MOST_BYTES:
                raise MediaError(
                    f"cannot read {path}: the file has {human_size(status.st_size)}, and images above "
                    f"{human_size(_MOST_BYTES)} are not read"
                )
            content = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot read {path}: {reason}") from error
    except MemoryError as error:
        raise MediaError(f"cannot read {path}: not enough memory for its {human_size(status.st_size)}") from error
    if not len(content):
        raise MediaError(f"cannot read {path}: the file is empty")
    return content


def _what_it_is(path: Path, file_format: FileFormat | None) -> str:
    looks = "named like an image, but " if path.suffix.lower() in IMAGE_SUFFIXES else ""
    if file_format is None:
        return f"{looks}not an image of a known format"
    return f"{looks}not an image that OpenCV can decode: it is {file_format.name}"


def _check_header(path: Path, file_format: FileFormat, header: ImageHeader, size: int) -> None:
    """Reject what would be decoded incompletely without an error, or into more memory than is available."""
    width, height = header.width, header.height
    if header.not_read:
        raise MediaError(f"cannot read {path}: {file_format.name}; {header.not_read}")
    if header.num_pictures > 1:
        raise MediaError(
            f"cannot read {path}: {file_format.name} with {header.num_pictures} pictures, of which only one would be "
            f"read; split it into files"
        )
    if width * height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"cannot read {path}: {width} x {height} pixels, and OpenCV decodes at most {MAX_FRAME_PIXELS}"
        )
    if header.min_bytes > size:
        raise MediaError(
            f"cannot read {path}: {file_format.name}, damaged or cut short: its header says {width} x {height} pixels, "
            f"which {size} bytes cannot hold"
        )
    if width * height > _MANY_PIXELS:
        # Decoders have their own rows, and a scaled copy follows.
        needed, free = width * height * 3 * (3 if header.sample_bits > 8 else 2), _free_memory()
        if needed > free:
            raise MediaError(
                f"cannot read {path}: {width} x {height} pixels take {human_size(needed)} of memory, and "
                f"{human_size(free)} are free"
            )


def _free_memory() -> int:
    """Return the bytes available without swapping, as Linux estimates it; elsewhere no limit is known."""
    try:
        match = re.search(rb"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_bytes(), re.MULTILINE)
    except OSError:
        match = None
    return 1 << 62 if match is None else int(match[1]) << 10


def _decode(cv2: Any, path: Path, content: bytes, file_format: FileFormat, header: ImageHeader) -> npt.NDArray[Any]:
    def decode() -> npt.NDArray[Any] | None:
        return _decoded(cv2, path, content, file_format, header)

    try:
        if file_format is formats.PNM:
            return decode_anymap(content)
        image, messages = decode_and_listen(decode) if file_format in _TALKATIVE else (decode(), [])
    except DamagedImageError as error:
        raise MediaError(f"cannot read {path}: {file_format.name}, {error}") from error
    except cv2.error as error:
        raise MediaError(f"cannot read {path}: {error.err}") from error
    except MemoryError as error:
        raise MediaError(f"cannot read {path}: not enough memory for {header.width} x {header.height}") from error
    harm = [message for message in messages if not _HARMLESS.search(message) or _is_left_over(message, content)]
    if harm:
        raise MediaError(f"cannot read {path}: {file_format.name}, damaged: {harm[0]}")
    if image is None:
        variant = f" ({header.variant})" if header.variant else ""
        raise MediaError(
            f"cannot read {path}: {file_format.name}{variant}, damaged or of a kind that OpenCV does not decode"
        )
    if (
        file_format is not formats.AVIF
        and header.width
        and sorted(image.shape[:2]) != sorted((header.width, header.height))
    ):
        raise MediaError(
            f"cannot read {path}: {file_format.name}, damaged: its header says {header.width} x {header.height} "
            f"pixels, decoded are {image.shape[1]} x {image.shape[0]}"
        )
    return _turned(image, header.orientation)


def _turned(image: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn an image upright by an EXIF orientation."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    upside_down, mirrored = orientation in {3, 4, 7, 8}, orientation in {2, 3, 6, 7}
    return np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def _exchanged(content: bytes, header: ImageHeader) -> bytes | bytearray:
    """Return the content of the file with the bytes that its header asks to replace."""
    if not header.exchanged:
        return content
    copy = bytearray(content)
    for start, replacement in header.exchanged:
        copy[start : start + len(replacement)] = replacement
    return copy


def _decoded(
    cv2: Any, path: Path, content: bytes, file_format: FileFormat, header: ImageHeader
) -> npt.NDArray[Any] | None:
    """Decode the image with OpenCV; return None if it cannot."""
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_ANYDEPTH if header.sample_bits > 8 else 0)
    if header.orientation > 1:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    image: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(_exchanged(content, header), np.uint8), flags)
    if image is not None or _has_decoder(cv2, path):
        return image
    if file_format is formats.GIF:
        return _first_frame(path)
    raise MediaError(
        f"cannot read {path}: {file_format.name}, which this OpenCV ({cv2.__version__}) does not decode; convert it to "
        f"PNG or JPEG"
    )


def _is_left_over(message: str, content: bytes) -> bool:
    """Return whether libjpeg skipped data at the end of a picture, which means that it was damaged.

    Cameras pad files with a few bytes, or with many equal ones; those are skipped, too, but nothing is missing.
    """
    match = _SKIPPED_AT_END.search(message)
    if match is None or int(match[1]) <= _MOST_PADDING_BYTES:
        return False
    end = content.rfind(b"\xff\xd9")
    skipped = content[max(0, end - int(match[1])) : end]
    return bool(skipped.strip(b"\0\xff"))


def _has_decoder(cv2: Any, path: Path) -> bool:
    """Return whether OpenCV knows the format of a file, which it detects by its first bytes."""
    # OpenCV terminates the process for a name that is not UTF-8; damage is then likelier than an unknown format.
    return not is_utf8(path) or bool(cv2.haveImageReader(str(path)))


def _first_frame(path: Path) -> Frame | None:
    """Read a still GIF as a video of one frame; OpenCV before 4.11 has no other way."""
    try:
        with VideoReader(path) as reader:
            return next(iter(reader)).image
    except MediaError:
        return None
