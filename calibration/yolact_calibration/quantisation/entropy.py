"""Clipping thresholds with the least loss of information by rounding (KL divergence).

The method is that of Migacz, "8-bit Inference with TensorRT", 2017.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from yolact_calibration.quantisation.histogram import Histogram

__all__ = ["divergence", "entropy_limit"]

Float = npt.NDArray[np.float64]
_NUM_BINS = 2048
# Step between candidates in bins. Trying every bin takes 16 times as long and moves the threshold by one or two bins.
_STRIDE = 16
# Minimum share of the total in a bin that rounding empties: the divergence would be infinite otherwise.
_LEAST_SHARE = 1e-7
# Share of the values that must be resolved: they lie below the smallest candidate or beyond it, never in a few bins,
# where rounding would seem to lose nothing. A single far outlier would otherwise do that to all other values.
_BULK = 0.9999


def entropy_limit(histogram: Histogram, num_levels: int) -> float:
    """Find the magnitude at which to clip.

    Zeros are left out: every range represents them exactly, and after a ReLU they would outweigh all other values.

    Args:
        histogram: Histogram with finite values.
        num_levels: Number of steps from 0 to the limit.
    """
    mass = histogram.magnitudes().mass()
    largest = float(mass.upper[-1])
    # Values below 2**-133 share the bin of zero.
    mass = mass.above(2.0**-133)
    if not len(mass.counts):
        return largest
    limit = min(largest, mass.quantile(_BULK) * _NUM_BINS / num_levels)
    edges = np.linspace(0, limit, _NUM_BINS + 1)
    counts = np.diff(mass.at_most(edges))
    beyond = float(mass.counts.sum() - counts.sum())
    candidates = np.arange(num_levels, _NUM_BINS + 1, _STRIDE)
    losses = [divergence(counts[:size], beyond + counts[size:].sum(), num_levels) for size in candidates]
    return float(edges[candidates[np.argmin(losses)]])


def divergence(counts: Float, beyond: float, num_levels: int) -> float:
    """Compute the Kullback-Leibler divergence between a clipped distribution and its rounded form, in nats.

    Args:
        counts: ``(B,)`` float64 counts of the bins that are kept, with B at least `num_levels`.
        beyond: Count of the values further out, which clipping moves into the last bin.
        num_levels: Number of levels that the bins are merged into; a level's count spreads evenly over its occupied
            bins.
    """
    starts = -(-np.arange(num_levels) * len(counts) // num_levels)
    sizes = np.diff(starts, append=len(counts))
    occupied = counts > 0
    shares = np.add.reduceat(counts, starts) / np.maximum(np.add.reduceat(occupied, starts, dtype=np.int64), 1)
    rounded = np.where(occupied, np.repeat(shares, sizes), 0)
    clipped = counts.copy()
    clipped[-1] += beyond
    total, kept = clipped.sum(), rounded.sum()
    if not kept > 0:
        return float("inf")
    seen = clipped > 0
    p, q = clipped[seen] / total, np.maximum(rounded[seen] / kept, _LEAST_SHARE)
    return float(p @ np.log(p / q))
