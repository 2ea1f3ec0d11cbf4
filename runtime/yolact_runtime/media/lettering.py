"""Rendering of text."""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt

from yolact_runtime.media.opencv import opencv

__all__ = ["in_ascii", "text_coverage", "text_size"]

# Letters of the Latin alphabet that Unicode does not decompose into a letter and a mark.
_LATIN = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D"}
    | {"ł": "l", "Ł": "L", "\N{LATIN SMALL LETTER DOTLESS I}": "i", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D"}
    | {"ħ": "h", "Ħ": "H", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{RIGHT SINGLE QUOTATION MARK}": "'"}
)


def in_ascii(text: str) -> str:
    """Return a text in the characters of OpenCV's built-in font.

    Accents are dropped (é becomes e, ß becomes ss); characters without a Latin letter and control characters become
    question marks.
    """
    if text.isascii() and text.isprintable():
        return text
    letters = unicodedata.normalize("NFKD", text.translate(_LATIN))
    kept = (letter for letter in letters if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in kept)


def text_size(text: str, height_px: int) -> tuple[int, int]:
    """Return rows and columns of the result of :func:`text_coverage` for the same text, without drawing it."""
    return _measure(in_ascii(text), height_px)[:2]


def text_coverage(text: str, height_px: int) -> npt.NDArray[np.float32]:
    """Draw one line of text as ``(rows, columns)`` float32 in ``[0, 1]``: the share of each pixel that letters cover.

    Args:
        text: Text to draw, converted by :func:`in_ascii`.
        height_px: Height of a capital letter in pixels.
    """
    cv2 = opencv()
    text = in_ascii(text)
    rows, columns, base, scale, thickness = _measure(text, height_px)
    canvas = np.zeros((rows, columns), np.uint8)
    cv2.putText(canvas, text, (0, base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / np.float32(255)


def _measure(text: str, height_px: int) -> tuple[int, int, int, float, int]:
    """Return rows, columns, row of the base line, OpenCV's font scale, and line thickness."""
    cv2 = opencv()
    thickness = max(1, round(height_px / 9))
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, height_px, thickness)
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    # OpenCV 4 reports a width of one column for an empty text.
    return height + baseline, width if text else 0, height, scale, thickness
