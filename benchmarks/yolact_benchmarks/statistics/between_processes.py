"""How far a median latency differs from one process to the next: intervals of a measurement that was repeated.

A process lays out its memory once and meets the machine in one mood; the frames of one process know nothing of how the
next one will differ. So the process is the unit: the scatter of the processes' medians, with Student's t for how few
they are, makes the interval. Logarithms, because what slows a machine slows it by a factor.
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
"""Standard deviation of the medians of processes, as a fraction, where there is only one to know it from. Measured on a
virtual machine with two cores that had nothing else to do: 40 processes of 3 s scattered by 1.7 %."""
_LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class _Centre:
    """Of the logarithms of quantiles: their mean, its variance, and the degrees of freedom that is known with."""

    mean: float
    variance: float
    freedom: float


def split_series(samples: npt.ArrayLike, counts: Sequence[int] | None) -> list[Float]:
    """A series by process.

    Args:
        samples: ``(n,)``, one process after the other.
        counts: Samples of each process, together n; None, or none, stands for one process.
    """
    series = np.asarray(samples, np.float64)
    return np.split(series, np.cumsum(counts)[:-1]) if counts else [series]


def median_interval(parts: Sequence[npt.ArrayLike]) -> Interval:
    """95 % interval of the median of all samples.

    Args:
        parts: ``(n,)`` each, above 0, in the order they were taken: one for each process. With one process the frames
            are resampled, see :func:`yolact_benchmarks.statistics.block_bootstrap.median_interval`, and the interval
            says nothing about other processes.
    """
    if len(parts) == 1:
        return block_bootstrap.median_interval(parts[0])
    known = [np.asarray(part, np.float64) for part in parts]
    median = float(np.median(np.concatenate(known)))
    centre = _centre(known, 0.5)
    reach = math.exp(student_quantile(_upper(), centre.freedom) * math.sqrt(centre.variance))
    return Interval(median, median / reach, median * reach)


def ratio_interval(above: Sequence[npt.ArrayLike], below: Sequence[npt.ArrayLike], q: float = 0.5) -> Interval:
    """Ratio of two measurements and its 95 % interval (Welch 1947).

    The ratio is that of the geometric means of the processes' medians, or of another quantile. A side of one process is
    taken to scatter by :data:`PROCESS_SPREAD`, beside what its own frames tell.

    Args:
        above: ``(n,)`` each, above 0: one for each process.
        below: Likewise; as many or not.
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
    """Of Student's t distribution: the value that is exceeded with a probability of 1 - `p`.

    Within 0.2 % from 3 degrees of freedom on, by the expansion of Cornish and Fisher (Abramowitz and Stegun 26.7.5);
    exact for 1 and 2; fractions below 3 are rounded down, which makes the value too large.

    Args:
        p: Between 0.5 and 1.
        freedom: 1 or more; infinite gives the normal distribution.
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
