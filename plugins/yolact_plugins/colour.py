"""How luma and chroma of video become blue, green and red: the matrices of the ITU recommendations."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BT601", "BT601_FULL", "BT709", "YuvMatrix"]


class YuvMatrix(NamedTuple):
    """``grey = (Y - luma_offset) * luma_gain``; what 1 of U or V above 128 adds to each colour; all on 0..255.

    Attributes:
        luma_offset: Y of black.
        luma_gain: Grey levels per step of Y.
        red_v: Of V to red.
        green_u: Of U to green.
        green_v: Of V to green.
        blue_u: Of U to blue.
    """

    luma_offset: float
    luma_gain: float
    red_v: float
    green_u: float
    green_v: float
    blue_u: float

    @classmethod
    def of(cls, red_weight: float, blue_weight: float, *, full_range: bool) -> YuvMatrix:
        """Of the weights of red and blue in luma.

        Args:
            red_weight: K_R of the recommendation.
            blue_weight: K_B of the recommendation.
            full_range: Y takes 0..255 and chroma all of it (JPEG), not 16..235 and 16..240 (video).
        """
        green_weight = 1 - red_weight - blue_weight
        offset, gain, chroma_gain = (0.0, 1.0, 1.0) if full_range else (16.0, 255 / 219, 255 / 224)
        red, blue = 2 * (1 - red_weight) * chroma_gain, 2 * (1 - blue_weight) * chroma_gain
        return cls(offset, gain, red, -blue * blue_weight / green_weight, -red * red_weight / green_weight, blue)


BT601 = YuvMatrix.of(0.299, 0.114, full_range=False)
"""Standard definition, and what OpenCV assumes of every camera."""
BT601_FULL = YuvMatrix.of(0.299, 0.114, full_range=True)
"""JPEG, and most USB cameras."""
BT709 = YuvMatrix.of(0.2126, 0.0722, full_range=False)
"""High definition."""
