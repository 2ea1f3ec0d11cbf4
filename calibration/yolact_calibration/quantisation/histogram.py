"""Histograms of a tensor's values, with bins that do not depend on the values.

A bin is the upper half of a float32: sign, exponent and seven bits of the mantissa, 128 bins for each power of two. The
counts are therefore the same for every order of the images, every batch size and every way to split the work, and the
bins are as fine near zero as near the largest value, which need not be known beforehand.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import CalibrationError

__all__ = ["NUM_BINS", "Histogram", "Mass"]

NUM_BINS = 1 << 16
_NEGATIVE = 0x8000
# First bin of infinity and NaN, which extend to the end of each sign.
_NON_FINITE = 0x7F80
# numpy.bincount converts to int64; a chunk and its counts fit into a second-level cache.
_CHUNK = 1 << 18
_UPPER_HALF = 1 if sys.byteorder == "little" else 0

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mass:
    """Occupied bins of a histogram in ascending order, clipped to the exact minimum and maximum.

    Attributes:
        lower: ``(K,)`` float64 lower edges of the bins.
        upper: ``(K,)`` float64 upper edges, at least `lower`.
        counts: ``(K,)`` float64 counts above 0, exact up to 2**53.
    """

    lower: Float
    upper: Float
    counts: Float

    def at_most(self, values: Float) -> Float:
        """Return how many values lie at or below each of `values` (any shape); bins count as uniform inside."""
        ends, sums = self._distribution()
        return np.asarray(np.interp(values, ends, sums, left=0.0))

    def quantile(self, fraction: float) -> float:
        """Return the value at or below which a `fraction` of the values lies."""
        ends, sums = self._distribution()
        return float(np.interp(fraction * sums[-1], sums, ends))

    def above(self, limit: float) -> Mass:
        """Return the bins that extend beyond `limit`."""
        chosen = self.upper > limit
        return Mass(self.lower[chosen], self.upper[chosen], self.counts[chosen])

    def _distribution(self) -> tuple[Float, Float]:
        """Return both ends of every bin, and how many values lie at or below each."""
        sums = np.cumsum(self.counts)
        ends = np.stack([self.lower, self.upper], axis=1).reshape(-1)
        return ends, np.stack([sums - self.counts, sums], axis=1).reshape(-1)


class Histogram:
    """Histogram of float32 values.

    Attributes:
        counts: ``(65536,)`` int64 counts, indexed by the upper 16 bits of the value.
        low: Exact minimum of the finite values; +inf if there are none.
        high: Exact maximum of the finite values; -inf if there are none.
    """

    __slots__ = ("counts", "high", "low")

    def __init__(self, counts: Int | None = None, low: float = np.inf, high: float = -np.inf) -> None:
        self.counts: Int = np.zeros(NUM_BINS, np.int64) if counts is None else counts
        self.low = low
        self.high = high

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        same_ends = (self.low, self.high) == (other.low, other.high)
        return same_ends and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def num_values(self) -> int:
        """Number of all values, including those that are not finite."""
        return int(self.counts.sum())

    @property
    def num_non_finite(self) -> int:
        """Number of infinities and NaNs."""
        return int(self.counts[_NON_FINITE:_NEGATIVE].sum() + self.counts[_NEGATIVE + _NON_FINITE :].sum())

    @property
    def num_zeros(self) -> int:
        """Number of values with a magnitude below 2**-133, which count as zeros."""
        return int(self.counts[0] + self.counts[_NEGATIVE])

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count the values of an array of any shape and strides.

        Raises:
            CalibrationError: The values are not float32.
        """
        if values.dtype != np.float32:
            raise CalibrationError(f"a histogram counts float32 values, found {values.dtype}")
        flat = np.ascontiguousarray(values).reshape(-1)
        bins = flat.view(np.uint16)[_UPPER_HALF::2]
        for first in range(0, flat.size, _CHUNK):
            part = slice(first, first + _CHUNK)
            self.counts += np.bincount(bins[part], minlength=NUM_BINS)
            self._widen(flat[part])

    def merge(self, other: Histogram) -> None:
        """Add the counts of `other`."""
        self.counts += other.counts
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    def relu(self) -> Histogram:
        """Return the histogram of ``max(x, 0)``, equal to one that was observed."""
        counts = self.counts.copy()
        # NaN and -inf keep their bins, so that they are still reported.
        negative = counts[_NEGATIVE : _NEGATIVE + _NON_FINITE]
        counts[0] += negative.sum()
        negative[:] = 0
        return Histogram(counts, max(self.low, 0.0), max(self.high, 0.0) if np.isfinite(self.high) else self.high)

    def magnitudes(self) -> Histogram:
        """Return the histogram of ``abs(x)``; its `low` is 0 if there are values of both signs."""
        counts = self.counts[:_NEGATIVE] + self.counts[_NEGATIVE:]
        low = max(self.low, -self.high, 0.0) if self.low <= self.high else self.low
        return Histogram(np.concatenate([counts, np.zeros_like(counts)]), low, max(self.high, -self.low))

    def mass(self) -> Mass:
        """Return the finite values as bins in ascending order."""
        order = np.concatenate([np.arange(_NEGATIVE + _NON_FINITE - 1, _NEGATIVE - 1, -1), np.arange(_NON_FINITE)])
        order = order[self.counts[order] > 0]
        near = _value(order)
        # The bin after the last finite one starts at 2**128, which float32 cannot represent.
        far = np.where(order % _NEGATIVE == _NON_FINITE - 1, np.copysign(2.0**128, near), _value(order + 1))
        lower, upper = np.minimum(near, far), np.maximum(near, far)
        return Mass(np.clip(lower, self.low, self.high), np.clip(upper, self.low, self.high), self.counts[order] * 1.0)

    def _widen(self, values: npt.NDArray[np.float32]) -> None:
        with np.errstate(invalid="ignore"):
            low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            if not finite.size:
                return
            low, high = finite.min(), finite.max()
        # Adding zero turns -0.0 into 0.0: which of the two is the minimum would depend on the order.
        self.low = min(self.low, float(low) + 0.0)
        self.high = max(self.high, float(high) + 0.0)


def _value(bins: Int) -> Float:
    """Return the value of least magnitude in each bin."""
    return (bins.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
