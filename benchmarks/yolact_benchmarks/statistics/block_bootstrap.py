"""Intervals of a median latency from resampled blocks of frames.

Successive frames are correlated: the caches, the clock and the other users of the machine change more slowly than
frames arrive. Drawing single frames independently would lose that and give intervals that are far too narrow. So blocks
of successive frames are drawn (Kuensch 1989; circular, Politis and Romano 1992), longer ones for series with a longer
correlation. The draws depend on a seed only: the same series always has the same interval.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt

from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval

__all__ = ["block_length", "correlation_length", "median_interval", "quantile_interval", "ratio_interval"]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
_NEGLIGIBLE = 0.05
"""Autocorrelation below which the sum is cut off."""
_MAX_SHARE = 4
"""A block is at most one in this many parts of the series; with longer blocks, resamples would hardly differ."""


def correlation_length(samples: npt.ArrayLike) -> float:
    """Estimate how many successive frames carry as much information as one independent frame; 1 or more.

    This is the integrated autocorrelation time of the ranks: a few very long frames would dominate that of the values.

    Args:
        samples: ``(n,)`` samples in the order they were taken.
    """
    ranks = _ranks(np.asarray(samples, np.float64))
    count = len(ranks)
    ranks = ranks - ranks.mean() if count else ranks
    if count < 4 or not np.any(ranks):
        return 1.0
    # By Fourier transform, padded so that the correlation is not circular.
    spectrum = np.fft.rfft(ranks, 2 * count)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[:count]
    correlation = covariance / covariance[0]
    ends = np.flatnonzero(correlation[1:] < _NEGLIGIBLE)
    last = int(ends[0]) + 1 if len(ends) else count
    return float(1 + 2 * correlation[1:last].sum())


def block_length(samples: npt.ArrayLike) -> int:
    """Return the number of frames in a block.

    It is twice the correlation length, at least the cube root of the series' length, at most a quarter of it.
    """
    count = len(np.asarray(samples))
    wanted = max(math.ceil(2 * correlation_length(samples)), math.ceil(math.pow(count, 1 / 3)))
    return max(1, min(wanted, count // _MAX_SHARE))


def median_interval(samples: npt.ArrayLike, settings: BootstrapSettings | None = None) -> Interval:
    """Return the median and its interval.

    Args:
        samples: ``(n,)`` samples in the order they were taken; without any, the interval is undefined.
        settings: Settings of the bootstrap; None stands for the defaults.
    """
    return quantile_interval(samples, 0.5, settings)


def quantile_interval(samples: npt.ArrayLike, q: float, settings: BootstrapSettings | None = None) -> Interval:
    """Return a quantile, interpolated linearly, and its interval.

    Args:
        samples: ``(n,)`` samples in the order they were taken; without any, the interval is undefined.
        q: Quantile, 0 to 1.
        settings: Settings of the bootstrap; None stands for the defaults.
    """
    settings = settings or BootstrapSettings()
    series = np.asarray(samples, np.float64)
    if not len(series):
        return Interval(None, None, None)
    return Interval.of(float(np.quantile(series, q)), _quantiles(series, q, settings), settings)


def ratio_interval(above: npt.ArrayLike, below: npt.ArrayLike, settings: BootstrapSettings | None = None) -> Interval:
    """Return the ratio of the medians of two independent series, and its interval.

    Args:
        above: ``(n,)`` samples of the numerator.
        below: ``(m,)`` samples of the denominator, above 0.
        settings: Settings of the bootstrap; None stands for the defaults.
    """
    settings = settings or BootstrapSettings()
    first, second = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not len(first) or not len(second):
        return Interval(None, None, None)
    other = BootstrapSettings(settings.num_resamples, settings.confidence_level, settings.seed + 1)
    ratios = _quantiles(first, 0.5, settings) / _quantiles(second, 0.5, other)
    return Interval.of(float(np.median(first) / np.median(second)), ratios, settings)


def _quantiles(series: Float, q: float, settings: BootstrapSettings) -> Float:
    """Return ``(num_resamples,)`` quantiles of resampled series."""
    random = np.random.default_rng(settings.seed)
    length, count = block_length(series), len(series)
    num_blocks = -(-count // length)
    found = np.empty(settings.num_resamples)
    take = np.median if q == 0.5 else partial(np.quantile, q=q)  # np.median is faster
    steps = np.arange(length)
    for i in range(settings.num_resamples):
        starts = random.integers(0, count, num_blocks)
        drawn = ((starts[:, None] + steps) % count).ravel()[:count]
        found[i] = take(series[drawn])
    return found


def _ranks(series: Float) -> Float:
    """Return ranks from 0; equal values share their mean rank."""
    order = np.argsort(series, kind="stable")
    ranks = np.empty(len(series))
    ranks[order] = np.arange(len(series))
    _, inverse, counts = np.unique(series, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(inverse, ranks) / counts)[inverse], np.float64) if len(series) else ranks
