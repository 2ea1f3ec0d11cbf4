"""Variation of a median latency from one process to the next: intervals of a repeated measurement.

A process lays out its memory once and meets the machine in one state; the frames of one process do not show how the
next process will differ. The unit of these intervals is therefore the process: they are computed from the scatter of
the processes' medians, with Student's t for their small number. They are computed on logarithms, because what slows a
machine down slows it by a factor.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.statistics import block_bootstrap
from yolact_calibration.evaluation.bootstrap import Interval

__all__ = ["PROCESS_SPREAD", "median_interval", "ratio_interval", "split_series", "student_quantile"]

Float = npt.NDArray[np.float64]
PROCESS_SPREAD = 0.02
"""Standard deviation of the medians of processes, as a fraction, that is assumed for a single process. Measured on an
idle virtual machine with two cores: 40 processes of 3 s scattered by 1.7 %."""
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class _Centre:
    """Mean of the logarithms of quantiles, the variance of that mean, and its degrees of freedom."""

    mean: float
    variance: float
    freedom: float


def split_series(samples: npt.ArrayLike, counts: Sequence[int] | None) -> list[Float]:
    """Split a series by process.

    Args:
        samples: ``(n,)`` samples, one process after the other.
        counts: Number of samples of each process, n in total; None or an empty sequence stands for one process.
    """
    series = np.asarray(samples, np.float64)
    return np.split(series, np.cumsum(counts)[:-1]) if counts else [series]


def median_interval(parts: Sequence[npt.ArrayLike]) -> Interval:
    """Return the median of all samples and its 95 % interval.

    Args:
        parts: Samples ``(n,)`` of each process, above 0, in the order they were taken. With one process, the frames are
            resampled, see :func:`yolact_benchmarks.statistics.block_bootstrap.median_interval`, and the interval says
            nothing about other processes.
    """
    if len(parts) == 1:
        return block_bootstrap.median_interval(parts[0])
    known = [np.asarray(part, np.float64) for part in parts]
    median = float(np.median(np.concatenate(known)))
    centre = _centre(known, 0.5)
    reach = math.exp(student_quantile(_upper(), centre.freedom) * math.sqrt(centre.variance))
    return Interval(median, median / reach, median * reach)


def ratio_interval(above: Sequence[npt.ArrayLike], below: Sequence[npt.ArrayLike], q: float = 0.5) -> Interval:
    """Return the ratio of two measurements and its 95 % interval (Welch 1947).

    The ratio is that of the geometric means of the processes' medians, or of another quantile. For a measurement of one
    process, a scatter of :data:`PROCESS_SPREAD` between processes is assumed, in addition to that of its own frames.

    Args:
        above: Numerator: samples ``(n,)`` of each process, above 0.
        below: Denominator, likewise; its number of processes may differ.
        q: Quantile, 0 to 1.
    """
    one, other = _centre(above, q), _centre(below, q)
    ratio = math.exp(one.mean - other.mean)
    variance = one.variance + other.variance
    weight = one.variance**2 / one.freedom + other.variance**2 / other.freedom
    freedom = variance**2 / weight if weight else math.inf
    reach = math.exp(student_quantile(_upper(), freedom) * math.sqrt(variance))
    return Interval(ratio, ratio / reach, ratio * reach)


def _upper() -> float:
    return (1 + _LEVEL) / 2


def _centre(parts: Sequence[npt.ArrayLike], q: float) -> _Centre:
    found = np.log([float(np.quantile(np.asarray(part), q)) for part in parts])
    if len(found) > 1:
        return _Centre(float(found.mean()), float(found.var(ddof=1)) / len(found), len(found) - 1)
    own = block_bootstrap.quantile_interval(parts[0], q)
    assert own.low is not None
    assert own.high is not None
    of_frames = math.log(own.high / own.low) / 2 / statistics.NormalDist().inv_cdf(_upper())
    return _Centre(float(found[0]), of_frames**2 + PROCESS_SPREAD**2, math.inf)


def student_quantile(p: float, freedom: float) -> float:
    """Return the quantile of Student's t distribution: the value that is exceeded with a probability of 1 - `p`.

    It is accurate to 0.2 % from 3 degrees of freedom on, by the expansion of Cornish and Fisher (Abramowitz and Stegun
    26.7.5), and exact for 1 and 2. Fractions below 3 are rounded down, which makes the value too large.

    Args:
        p: Probability between 0.5 and 1.
        freedom: Degrees of freedom, 1 or more; infinity gives the normal distribution.
    """
    if freedom < 2:
        return math.tan(math.pi * (p - 0.5))
    if freedom < 3:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = statistics.NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom ** (i + 1) for i, term in enumerate(terms))
