"""Geometry of pixel grids: half-pixel bilinear taps, and the crop windows of boxes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LinearTaps", "crop_windows", "linear_taps"]


@dataclass(frozen=True)
class LinearTaps:
    """Bilinear interpolation along one axis with half-pixel centres (``align_corners=False``).

    Pixel ``i`` of the target is ``source[low[i]] * (1 - fraction[i]) + source[high[i]] * fraction[i]``.

    Attributes:
        low: Left neighbours, ``(target,)`` int64, non-decreasing.
        high: Right neighbours, ``(target,)`` int64: ``low + 1`` except at the last source pixel.
        fraction: Weights of the right neighbours, ``(target,)`` float32 in ``[0, 1]``; 1 only through rounding, 0 at
            the last source pixel.
        first: Array ``(source + 1,)`` of int64; ``first[c]`` is the first target pixel with ``low >= c``, so the pixels
            between source pixels ``c`` and ``c + 1`` are ``first[c] .. first[c + 1] - 1``.
    """

    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.float32]
    first: npt.NDArray[np.int64]

    @property
    def source(self) -> int:
        """Length of the source axis."""
        return len(self.first) - 1

    @property
    def target(self) -> int:
        """Length of the target axis."""
        return len(self.low)


@functools.lru_cache(maxsize=64)
def linear_taps(source: int, target: int) -> LinearTaps:
    """Return the taps that resize an axis of `source` pixels to `target` pixels. Cached; the arrays are read-only."""
    position = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    low = np.minimum(position.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    taps = LinearTaps(
        low=low,
        high=high,
        fraction=np.where(low < high, position - low, 0.0).astype(np.float32),
        first=np.searchsorted(low, np.arange(source + 1)),
    )
    for array in (taps.low, taps.high, taps.fraction, taps.first):
        array.flags.writeable = False
    return taps


def crop_windows(
    low: npt.NDArray[np.float32], high: npt.NDArray[np.float32], size: int, margin: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the prototype pixels ``[first, last)`` inside boxes along one axis, with upstream's padding of one pixel.

    Args:
        low: One end of each box, ``(n,)``, relative to the image.
        high: The other end of each box, ``(n,)``; upstream accepts the ends in any order.
        size: Number of prototype pixels along the axis.
        margin: Fraction of the box's length added on both sides; 0 is upstream's crop, ``inf`` no crop at all.

    Returns:
        Two ``(n,)`` arrays; ``first >= last`` if the window is empty, as it is for a box that is not finite.
    """
    low, high = np.minimum(low, high), np.maximum(low, high)
    finite = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(finite, low, np.float32(0)), np.where(finite, high, np.float32(0))
    if np.isinf(margin):
        return np.zeros(len(low), np.int64), np.where(finite, size, 0)
    scale = np.float32(size)
    with np.errstate(over="ignore"):  # an end beyond float32 becomes infinite, and the clip brings it back
        extra = np.float32(min(margin, 1e6)) * (high - low) if margin else np.float32(0)
        first = np.clip((low - extra) * scale - np.float32(1), 0, scale)
        last = np.clip((high + extra) * scale + np.float32(1), 0, scale)
    last = np.where(finite, last, np.float32(0))
    return np.ceil(first).astype(np.int64), np.ceil(last).astype(np.int64)
