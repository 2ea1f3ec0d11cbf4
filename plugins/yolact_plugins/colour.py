"""Conversion of YUV video to blue, green and red: the matrices of the ITU recommendations."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BT601", "BT601_FULL", "BT709", "YuvMatrix"]


class YuvMatrix(NamedTuple):
    """Coefficients of a YUV-to-BGR conversion, on the 0..255 scale.

    ``grey = (Y - luma_offset) * luma_gain``, and each colour is `grey` plus its coefficients times ``U - 128`` and ``V
    - 128``.

    Attributes:
        luma_offset: The value of Y for black.
        luma_gain: Grey levels per step of Y.
        red_v: Coefficient of V in red.
        green_u: Coefficient of U in green.
        green_v: Coefficient of V in green.
        blue_u: Coefficient of U in blue.
    """

    luma_offset: float
    luma_gain: float
    red_v: float
    green_u: float
    green_v: float
    blue_u: float

    @classmethod
    def of(cls, red_weight: float, blue_weight: float, *, full_range: bool) -> YuvMatrix:
        """Compute the coefficients from the weights of red and blue in luma.

        Args:
            red_weight: The K_R of the recommendation.
            blue_weight: The K_B of the recommendation.
            full_range: If True, luma and chroma span 0..255 (JPEG); if False, luma spans 16..235 and chroma 16..240
                (video).
        """
        green_weight = 1 - red_weight - blue_weight
        offset, gain, chroma_gain = (0.0, 1.0, 1.0) if full_range else (16.0, 255 / 219, 255 / 224)
        red, blue = 2 * (1 - red_weight) * chroma_gain, 2 * (1 - blue_weight) * chroma_gain
        return cls(offset, gain, red, -blue * blue_weight / green_weight, -red * red_weight / green_weight, blue)


BT601 = YuvMatrix.of(0.299, 0.114, full_range=False)
"""Standard definition; OpenCV assumes it for every camera."""
BT601_FULL = YuvMatrix.of(0.299, 0.114, full_range=True)
"""JPEG and most USB cameras."""
BT709 = YuvMatrix.of(0.2126, 0.0722, full_range=False)
"""High definition."""
