"""How far a median latency could move: intervals from resampled blocks of frames.

Neighbouring frames resemble each other: the caches, the clock and whoever shares the machine change more slowly than
frames come. Single frames drawn independently would lose that and give intervals that are far too narrow. So runs of
neighbours, blocks, are drawn (Kuensch 1989; circular, Politis and Romano 1992), longer ones where the series remembers
longer. The draws depend on a seed only: the same series always has the same interval.
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
"""A correlation that no longer counts."""
_MAX_SHARE = 4
"""A block is at most this part of the series, or resamples could not differ."""


def correlation_length(samples: npt.ArrayLike) -> float:
    """How many successive frames tell as much as one independent frame (integrated autocorrelation time); 1 or more.

    Of the ranks, because a few very long frames would hide everything else.

    Args:
        samples: ``(n,)`` in the order they were taken.
    """
    ranks = _ranks(np.asarray(samples, np.float64))
    count = len(ranks)
    ranks = ranks - ranks.mean() if count else ranks
    if count < 4 or not np.any(ranks):
        return 1.0
    # By Fourier transform, padded so that the end does not meet the beginning.
    spectrum = np.fft.rfft(ranks, 2 * count)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[:count]
    correlation = covariance / covariance[0]
    ends = np.flatnonzero(correlation[1:] < _NEGLIGIBLE)
    last = int(ends[0]) + 1 if len(ends) else count
    return float(1 + 2 * correlation[1:last].sum())


def block_length(samples: npt.ArrayLike) -> int:
    """Frames of a block: twice the correlation length, at least the cube root of the series, at most a quarter."""
    count = len(np.asarray(samples))
    wanted = max(math.ceil(2 * correlation_length(samples)), math.ceil(math.pow(count, 1 / 3)))
    return max(1, min(wanted, count // _MAX_SHARE))


def median_interval(samples: npt.ArrayLike, settings: BootstrapSettings | None = None) -> Interval:
    """Interval of the median.

    Args:
        samples: ``(n,)`` in the order they were taken; undefined without any.
        settings: None means the defaults.
    """
    return quantile_interval(samples, 0.5, settings)


def quantile_interval(samples: npt.ArrayLike, q: float, settings: BootstrapSettings | None = None) -> Interval:
    """Interval of a quantile, linear between neighbours.

    Args:
        samples: ``(n,)`` in the order they were taken; undefined without any.
        q: 0 to 1.
        settings: None means the defaults.
    """
    settings = settings or BootstrapSettings()
    series = np.asarray(samples, np.float64)
    if not len(series):
        return Interval(None, None, None)
    return Interval.of(float(np.quantile(series, q)), _quantiles(series, q, settings), settings)


def ratio_interval(above: npt.ArrayLike, below: npt.ArrayLike, settings: BootstrapSettings | None = None) -> Interval:
    """Interval of the median of one series over that of another; their draws are independent.

    Args:
        above: ``(n,)``.
        below: ``(m,)``, above 0.
        settings: None means the defaults.
    """
    settings = settings or BootstrapSettings()
    first, second = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if not len(first) or not len(second):
        return Interval(None, None, None)
    other = BootstrapSettings(settings.num_resamples, settings.confidence_level, settings.seed + 1)
    ratios = _quantiles(first, 0.5, settings) / _quantiles(second, 0.5, other)
    return Interval.of(float(np.median(first) / np.median(second)), ratios, settings)


def _quantiles(series: Float, q: float, settings: BootstrapSettings) -> Float:
    """``(resamples,)`` quantiles of resampled series."""
    random = np.random.default_rng(settings.seed)
    length, count = block_length(series), len(series)
    num_blocks = -(-count // length)
    found = np.empty(settings.num_resamples)
    take = np.median if q == 0.5 else partial(np.quantile, q=q)  # the median has a quicker way
    steps = np.arange(length)
    for i in range(settings.num_resamples):
        starts = random.integers(0, count, num_blocks)
        drawn = ((starts[:, None] + steps) % count).ravel()[:count]
        found[i] = take(series[drawn])
    return found


def _ranks(series: Float) -> Float:
    """From 0, equal values sharing their mean rank."""
    order = np.argsort(series, kind="stable")
    ranks = np.empty(len(series))
    ranks[order] = np.arange(len(series))
    _, inverse, counts = np.unique(series, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(inverse, ranks) / counts)[inverse], np.float64) if len(series) else ranks
