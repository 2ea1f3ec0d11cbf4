"""Drawn text."""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt

from yolact_runtime.media.opencv import opencv

__all__ = ["in_ascii", "text_coverage", "text_size"]

# Letters of the Latin alphabet that Unicode does not take apart into a letter and a mark.
_LATIN = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D"}
    | {"ł": "l", "Ł": "L", "\N{LATIN SMALL LETTER DOTLESS I}": "i", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D"}
    | {"ħ": "h", "Ħ": "H", "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{RIGHT SINGLE QUOTATION MARK}": "'"}
)


def in_ascii(text: str) -> str:
    """The text in the characters that OpenCV's built-in font has.

    Accents are left out (é becomes e, ß becomes ss); what has no Latin letter, and a control character, becomes a
    question mark.
    """
    if text.isascii() and text.isprintable():
        return text
    letters = unicodedata.normalize("NFKD", text.translate(_LATIN))
    kept = (letter for letter in letters if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in kept)


def text_size(text: str, height_px: int) -> tuple[int, int]:
    """Rows and columns of what :func:`text_coverage` returns for the same text, without drawing it."""
    return _measure(in_ascii(text), height_px)[:2]


def text_coverage(text: str, height_px: int) -> npt.NDArray[np.float32]:
    """One line of text as ``(rows, columns)`` float32 in ``[0, 1]``: how much of each pixel the letters cover.

    Args:
        text: Drawn as :func:`in_ascii` writes it.
        height_px: Height of a capital letter.
    """
    cv2 = opencv()
    text = in_ascii(text)
    rows, columns, base, scale, thickness = _measure(text, height_px)
    canvas = np.zeros((rows, columns), np.uint8)
    cv2.putText(canvas, text, (0, base), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / np.float32(255)


def _measure(text: str, height_px: int) -> tuple[int, int, int, float, int]:
    """Rows, columns, row of the base line, OpenCV's scale of the font, and thickness of its lines."""
    cv2 = opencv()
    thickness = max(1, round(height_px / 9))
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, height_px, thickness)
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    # OpenCV 4 makes nothing a column wide.
    return height + baseline, width if text else 0, height, scale, thickness
