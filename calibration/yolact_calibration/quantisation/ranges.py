"""Ranges of tensors that eight bits represent, chosen from histograms.

All methods need only the histogram, so trying another needs no new pass over the images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from enum import Enum
from functools import partial

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.entropy import entropy_limit
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.rounding_grid import ExpectedError, Grid

__all__ = ["Grid", "Range", "RangeMethod", "RangeQuality", "choose_range", "judge_range"]

Float = npt.NDArray[np.float64]
# Thresholds from the largest value down, four to an octave. Below 2**-16 of it, clipping costs more than any finer step
# gains: for one outlier among 10**9 values the optimum lies at 2**-12.
_LADDER = 2.0 ** -(np.arange(65) / 4)

# Of ranges whose errors differ by less, the widest is chosen: if all values are below half a step, they all tie.
_TIE = 1.0001


@dataclasses.dataclass(frozen=True)
class Range:
    """Range of values that rounding preserves; values outside are clipped.

    Attributes:
        low: Lower end, at most 0.
        high: Upper end, at least 0.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= 0 <= self.high < math.inf:
            raise CalibrationError(f"a range must be finite and contain 0; found [{self.low}, {self.high}]")


class RangeMethod(str, Enum):
    """Method that chooses a range.

    MINMAX: all observed values. PERCENTILE: all but a small share of the values. ENTROPY: the least loss of information
        (Kullback-Leibler divergence) between the distributions before and after. MSE: the least expected squared error.
    """

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclasses.dataclass(frozen=True)
class RangeQuality:
    """Effect of a range on the values of a histogram.

    Attributes:
        clipped: Fraction of the values outside the range.
        sqnr_db: Expected ratio of signal to rounding noise in decibels: ``10 log10(sum x**2 / sum error**2)``; inf if
            no error is expected.
    """

    clipped: float
    sqnr_db: float


def choose_range(histogram: Histogram, method: RangeMethod, grid: Grid, percentile: float = 99.99) -> Range:
    """Choose the range of a tensor.

    Args:
        histogram: Histogram of the observed values.
        method: Method that chooses the range.
        grid: Grid to which values will be rounded.
        percentile: Percentage of the values that stay inside, for ``PERCENTILE``.

    Raises:
        CalibrationError: No values were observed, or some are not finite.
    """
    _check(histogram)
    if method is RangeMethod.PERCENTILE:
        return _percentile_range(histogram, grid, percentile)
    if method is RangeMethod.ENTROPY:
        limit = entropy_limit(histogram, 256 if grid is Grid.UINT8 and _one_sided(histogram) else 128)
        return _within(histogram, -limit, limit)
    if method is RangeMethod.MSE:
        return _least_error_range(histogram, grid)
    return _within(histogram)


def judge_range(histogram: Histogram, found: Range, grid: Grid) -> RangeQuality:
    """Compute the loss of rounding with a range.

    Raises:
        CalibrationError: No values were observed, or some are not finite.
    """
    _check(histogram)
    mass = histogram.mass()
    inside = np.diff(mass.at_most(np.array([np.nextafter(found.low, -math.inf), found.high])))[0]
    noise = float(ExpectedError(mass, grid)(np.array([found.low]), np.array([found.high]))[0])
    # The mean of x**2 over a bin.
    squares = (mass.lower**2 + mass.lower * mass.upper + mass.upper**2) / 3
    signal = float(squares @ mass.counts)
    sqnr_db = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else math.inf if noise == 0 else -math.inf
    return RangeQuality(max(0.0, 1 - float(inside / mass.counts.sum())), sqnr_db)


def _check(histogram: Histogram) -> None:
    if histogram.num_non_finite:
        raise CalibrationError(
            f"{histogram.num_non_finite} of {histogram.num_values} values are infinite or NaN, so they have no range; "
            f"check the checkpoint that the network was exported from"
        )
    if not histogram.num_values:
        raise CalibrationError("no values were observed; run the network over some images first")


def _one_sided(histogram: Histogram) -> bool:
    return histogram.low >= 0 or histogram.high <= 0


def _within(histogram: Histogram, low: float = -math.inf, high: float = math.inf) -> Range:
    """Return the range of the observed values, inside limits."""
    return Range(min(max(histogram.low, low), 0.0), max(min(histogram.high, high), 0.0))


def _percentile_range(histogram: Histogram, grid: Grid, percentile: float) -> Range:
    if not 0 < percentile <= 100:
        raise CalibrationError(f"a percentile must be above 0 and at most 100, found {percentile}")
    inside = percentile / 100
    if grid is Grid.INT8 or _one_sided(histogram):
        limit = histogram.magnitudes().mass().quantile(inside)
        return _within(histogram, -limit, limit)
    mass = histogram.mass()
    return _within(histogram, mass.quantile((1 - inside) / 2), mass.quantile((1 + inside) / 2))


def _least_error_range(histogram: Histogram, grid: Grid) -> Range:
    whole = _within(histogram)
    largest = max(-whole.low, whole.high)
    if largest == 0:
        return whole
    error = ExpectedError(histogram.mass(), grid)
    limit = largest * _least(lambda r: error(np.maximum(whole.low, -largest * r), np.minimum(whole.high, largest * r)))
    low, high = max(whole.low, -limit), min(whole.high, limit)
    if grid is Grid.UINT8 and not _one_sided(histogram):
        # One end after the other; a third iteration changes nothing.
        for _ in range(2):
            high = whole.high * _least(partial(_error_of_high, error, low, whole.high))
            low = whole.low * _least(partial(_error_of_low, error, whole.low, high))
    return Range(low, high)


def _error_of_high(error: ExpectedError, low: float, high: float, ratios: Float) -> Float:
    return error(np.full_like(ratios, low), high * ratios)


def _error_of_low(error: ExpectedError, low: float, high: float, ratios: Float) -> Float:
    return error(low * ratios, np.full_like(ratios, high))


def _least(error: Callable[[Float], Float]) -> float:
    """Return the fraction of the whole range with the least error: a coarse ladder, then finer ones."""
    ratios = _LADDER
    for _ in range(3):
        errors = error(ratios)
        best = int(np.argmax(errors <= errors.min() * _TIE))
        found = float(ratios[best])
        ends = ratios[max(best - 1, 0)], ratios[min(best + 1, len(ratios) - 1)]
        ratios = np.geomspace(*ends, 9)
    return found
