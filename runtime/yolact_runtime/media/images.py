"""Image files, read and written with OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from yolact_plugins.file_errors import explain
from yolact_plugins.files import write_atomically
from yolact_runtime.errors import MediaError
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.opencv import opencv

__all__ = ["encode_image", "read_image", "write_image"]

Frame = npt.NDArray[np.uint8]


def read_image(path: Path, bit_depth: int | None = None) -> Frame:
    """Read one image file; see :meth:`ImageReader.read`.

    Args:
        path: Path of the file.
        bit_depth: Number of significant bits of 16-bit samples, 8 to 16; None means what the file states, or 16.

    Raises:
        MediaError, MissingDependencyError: The same as for :meth:`ImageReader.read`.
        UsageError: The bit depth is invalid.
    """
    return ImageReader(bit_depth).read(path)


def encode_image(image: Frame, suffix: str, *, jpeg_quality: int = 95) -> bytes:
    """Encode a ``(H, W, 3)`` uint8 image, blue first, in the format of a suffix.

    Args:
        image: Image to encode; not modified.
        suffix: File name suffix with the dot, such as ``.png``.
        jpeg_quality: Quality from 0 to 100; only used for JPEG.

    Raises:
        MediaError: OpenCV does not support the format.
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = opencv()
    options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix.lower() in {".jpg", ".jpeg"} else []
    try:
        encoded, content = cv2.imencode(suffix, image, options)
    except cv2.error as error:
        raise MediaError(f"cannot encode an image as {suffix or 'a file without a suffix'}: {error.err}") from error
    if not encoded:
        raise MediaError(f"cannot encode an image: OpenCV does not support the format {suffix}")
    result: bytes = content.tobytes()
    return result


def write_image(path: Path, image: Frame) -> None:
    """Write a ``(H, W, 3)`` uint8 image, blue first, in the format of the suffix, atomically.

    Raises:
        MediaError: OpenCV does not support the format, or the file cannot be written.
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        write_atomically(path, encode_image(image, path.suffix))
    except MediaError as error:
        raise MediaError(f"cannot write {path}: {error}") from error
    except OSError as error:
        raise MediaError(f"cannot write {path}: {explain(error, path)}") from error
