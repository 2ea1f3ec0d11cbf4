"""Image files, read and written with OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import write_atomically
from yolact_runtime.errors import MediaError
from yolact_runtime.media.opencv import opencv

__all__ = ["IMAGE_SUFFIXES", "encode_image", "read_image", "write_image"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

Frame = npt.NDArray[np.uint8]


def read_image(path: Path) -> Frame:
    """``(H, W, 3)`` uint8, blue first, turned upright by its EXIF orientation; gray is repeated, alpha is dropped.

    Raises:
        MediaError: The file is missing, unreadable or not an image.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv()
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
    cv2 = opencv()
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
