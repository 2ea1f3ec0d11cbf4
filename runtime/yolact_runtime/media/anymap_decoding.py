"""Decoding of portable anymaps with NumPy.

OpenCV assumes that the samples of a PAM are blue first, whatever their order, returns wrong colours if there is
transparency, and rejects text whose largest value is not 255.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.formats.anymap_header import AnymapHeader, read_anymap_header
from yolact_runtime.formats.image_header import DamagedImageError
from yolact_runtime.media.opencv import opencv

__all__ = ["decode_anymap"]

_COMMENT = re.compile(rb"#[^\n\r]*")
_NO_NUMBERS = re.compile(rb"[^0-9\s]|[0-9]{6}")
_SPACES = b" \t\r\n\v\f"
_ALL_BUT_BITS = bytes(set(range(256)) - set(b"01"))


def decode_anymap(content: bytes) -> npt.NDArray[Any]:
    """Decode to ``(H, W, 3)`` uint8 or uint16, blue first; gray is repeated, transparency is dropped.

    Args:
        content: Content of the whole file, whose header was read and which is complete.

    Raises:
        DamagedImageError: The file contains something other than samples, too few of them, or several pictures.
        MissingDependencyError: OpenCV, which swaps red and blue faster than NumPy, is not installed.
    """
    header = read_anymap_header(memoryview(content))
    if header.is_bitmap:
        samples = _bits(content, header)
    elif header.is_text:
        samples = _numbers(content, header)
    else:
        dtype = np.dtype(">u2" if header.sample_bytes == 2 else "u1")
        count = header.width * header.height * header.depth
        samples = np.frombuffer(content, dtype, count, header.start)
    native = np.ascontiguousarray(samples, np.uint16 if header.sample_bytes == 2 else np.uint8)
    pixels = native.reshape(header.height, header.width, header.depth)
    cv2 = opencv()
    if header.depth >= 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if header.depth == 3 else cv2.COLOR_RGBA2BGR))
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels[:, :, 0]), cv2.COLOR_GRAY2BGR))


def _bits(content: bytes, header: AnymapHeader) -> npt.NDArray[np.uint8]:
    """Decode the pixels of a bitmap, in which 1 is black."""
    count = header.width * header.height
    if header.is_text:
        # Digits need no spaces between them.
        text = _COMMENT.sub(b"", content[header.start :]).translate(None, _SPACES)
        digits = text[:count].rstrip(_ALL_BUT_BITS)
        _check_count(len(digits), count, text[len(digits) :])
        bits = np.frombuffer(digits, np.uint8) - ord("0")
        if bits.max(initial=0) > 1:
            raise DamagedImageError("damaged: a sample is neither 0 nor 1")
    else:
        rows = np.frombuffer(content, np.uint8, header.least_bytes, header.start).reshape(header.height, -1)
        bits = np.unpackbits(rows, axis=1, count=header.width)
    white: npt.NDArray[np.uint8] = ((1 - bits) * 255).astype(np.uint8)
    return white


def _numbers(content: bytes, header: AnymapHeader) -> npt.NDArray[Any]:
    text = _COMMENT.sub(b" ", content[header.start :])
    end = _NO_NUMBERS.search(text)
    if end and end[0].isdigit():
        raise DamagedImageError("damaged: a sample is larger than 65535")
    digits, rest = (text[: end.start()], text[end.start() :]) if end else (text, b"")
    count = header.width * header.height * header.depth
    # Without a count, because NumPy would fill up missing values.
    numbers = np.fromstring(digits, np.uint32, sep=" ")[:count] if digits.strip() else np.zeros(0, np.uint32)
    _check_count(len(numbers), count, rest)
    most = 255 if header.sample_bytes == 1 else 65535
    if numbers.max(initial=0) > most:
        raise DamagedImageError(f"damaged: it has the value {numbers.max()}, beyond {header.white}")
    return numbers


def _check_count(found: int, count: int, rest: bytes) -> None:
    if rest[:1] == b"P" and rest[1:2].isdigit():
        raise DamagedImageError("several pictures, of which only one would be read; split it into files")
    if found < count:
        why = f"damaged: {count} samples are needed, and {found} of them are followed by something else"
        raise DamagedImageError(why if rest else f"cut short: {count} samples are needed, it has {found}")
