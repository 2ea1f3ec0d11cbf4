"""Drawn text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from yolact_runtime.media.opencv import opencv

__all__ = ["text_coverage"]


def text_coverage(text: str, height_px: int) -> npt.NDArray[np.float32]:
    """One line of text as ``(rows, columns)`` float32 in ``[0, 1]``: how much of each pixel the letters cover.

    Args:
        text: ASCII is drawn; other characters become question marks (OpenCV's built-in font has no others).
        height_px: Height of a capital letter.
    """
    cv2 = opencv()
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
