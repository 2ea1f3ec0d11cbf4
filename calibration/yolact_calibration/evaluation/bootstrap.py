"""Bootstrap confidence intervals: how far a figure could move with other images.

Average precision is not a mean over images, so every resample is evaluated. That is cheap with cached matches: a
resample only gives each image a weight, the number of times that it was drawn, and the order of detections never
changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import UsageError
from yolact_calibration.evaluation.matches import IOU_THRESHOLDS, RECALL_THRESHOLDS, ClassMatches, Matches
from yolact_runtime.option_numbers import MAX_SEED, check_most, keep_numbers, shown_number

__all__ = [
    "MAX_RESAMPLES",
    "BootstrapSettings",
    "Interval",
    "average_precision",
    "bootstrap_difference",
    "bootstrap_precision",
    "bootstrap_ratio",
    "resample_weights",
]

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
_COLUMNS: Mapping[str, slice] = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}
"""Figure -> IoU thresholds that it is the mean of."""
MAX_RESAMPLES = 100_000
"""Largest number of resamples: each has a weight for every image."""
_BLOCK = 1 << 21
"""Maximum number of array elements held at once, so that memory does not grow with the number of resamples."""


@dataclasses.dataclass(frozen=True)
class BootstrapSettings:
    """Settings of bootstrap intervals.

    Attributes:
        num_resamples: Number of data sets drawn from the images, with replacement.
        confidence_level: Share of the resamples between the ends of an interval.
        seed: Seed of the draws; the same seed and number of images give the same draws, which makes comparisons paired.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    num_resamples: int = 1000
    confidence_level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        keep_numbers(self, whole=("num_resamples", "seed"), real=("confidence_level",))
        if self.num_resamples < 1:
            raise UsageError(f"num_resamples must be 1 or more, found {shown_number(self.num_resamples)}")
        check_most("num_resamples", self.num_resamples, MAX_RESAMPLES)
        if not 0 < self.confidence_level < 1:
            raise UsageError(f"confidence_level must lie between 0 and 1, found {self.confidence_level}")
        if self.seed < 0:
            raise UsageError(f"seed must be 0 or more, found {shown_number(self.seed)}")
        check_most("seed", self.seed, MAX_SEED)


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and the range of its resamples (percentile method).

    Attributes:
        estimate: Value on the original images; None if the figure is undefined, as AP is without any instance.
        low: Lower end; None if undefined.
        high: Upper end; None if undefined.
    """

    estimate: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, estimate: float, samples: Float, settings: BootstrapSettings) -> Interval:
        """Compute the interval of ``(resamples,)`` float64 values; undefined ones (NaN) are left out."""
        defined = samples[~np.isnan(samples)]
        if np.isnan(estimate) or not len(defined):
            return cls(None, None, None)
        tail = 50 * (1 - settings.confidence_level)
        low, high = np.percentile(defined, [tail, 100 - tail])
        return cls(_rounded(estimate), _rounded(low), _rounded(high))

    def document(self) -> dict[str, float | None]:
        """Return a JSON object of the three numbers."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


def _rounded(value: float | np.floating) -> float:
    # COCO's guard against division by zero turns a perfect 1 into 1 - 2e-16.
    return round(float(value), 12)


def resample_weights(num_images: int, settings: BootstrapSettings) -> Int:
    """Draw ``(resamples, images)`` int64 weights: how often each image was drawn. Rows sum to `num_images`."""
    random = np.random.default_rng(settings.seed)
    weights = np.zeros((settings.num_resamples, num_images), np.int64)
    for row in weights:
        row += np.bincount(random.integers(0, num_images, num_images), minlength=num_images)
    return weights


def average_precision(matches: Matches, weights: npt.ArrayLike) -> Float:
    """Compute the AP of data sets in which images occur several times, or not at all.

    Args:
        matches: Matches of the images.
        weights: ``(B, images)`` integer weights: how often each image occurs.

    Returns:
        ``(B, 10)`` float64 values by IoU threshold: the mean over the classes with an instance in that data set, NaN if
        there is no such class. They equal those of pycocotools for images and detections that are really repeated, up
        to the order of equal scores inside an image.
    """
    weights = np.asarray(weights, np.int64)
    total = np.zeros((len(weights), len(IOU_THRESHOLDS)))
    num_classes = np.zeros(len(weights), np.int64)
    for of_class in matches.classes:
        num_truth = weights @ of_class.num_truth
        num_classes += num_truth > 0
        step = max(1, _BLOCK // max(len(of_class.score), len(RECALL_THRESHOLDS)))
        for first in range(0, len(weights), step):
            block = slice(first, first + step)
            total[block] += _class_precision(of_class, weights[block], num_truth[block])
    return np.where(num_classes, 1.0, np.nan)[:, None] * total / np.maximum(num_classes, 1)[:, None]


def _class_precision(matches: ClassMatches, weights: Int, num_truth: Int) -> Float:
    """Compute ``(B, 10)`` AP of one class; 0 without truth."""
    # int32: these are counts, and memory traffic dominates the time.
    weight = weights.astype(np.int32)[:, matches.image]
    counted = np.cumsum(weight, axis=1, dtype=np.int32)
    needed = _needed_hits(num_truth)
    result = np.zeros((len(weights), len(IOU_THRESHOLDS)))
    for t, (correct, ignored) in enumerate(zip(matches.is_correct, matches.is_ignored, strict=True)):
        # Between two hits the recall is constant and the precision falls: only the hits matter.
        hits = np.flatnonzero(correct)
        if not len(hits):
            continue
        before = counted[:, hits]
        if ignored.any():
            before = before - np.cumsum(weight * ignored, axis=1, dtype=np.int32)[:, hits]
        num_hits = np.cumsum(weight[:, hits], axis=1)
        # COCO's own guard against division by zero.
        precision = num_hits / (before + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result[:, t] = _sample(precision, num_hits, needed).mean(axis=1)
    return np.where(num_truth[:, None] > 0, result, 0.0)


def _needed_hits(num_truth: Int) -> Int:
    """Return ``(B, 101)`` int64: least number of hits whose recall (float64) reaches each recall threshold."""
    num_truth = np.maximum(num_truth, 1)[:, None]
    needed = np.ceil(RECALL_THRESHOLDS * num_truth).astype(np.int64)
    # The product is rounded, but COCO compares the quotient: they may differ by one.
    needed -= (needed >= 1) & ((needed - 1) / num_truth >= RECALL_THRESHOLDS)
    needed += needed / num_truth < RECALL_THRESHOLDS
    return needed


def _sample(precision: Float, num_hits: npt.NDArray[np.signedinteger], needed: Int) -> Float:
    """Return ``(B, 101)``: precision where each row first has the needed hits; 0 if it never has.

    Args:
        precision: ``(B, H)``, non-increasing along a row.
        num_hits: ``(B, H)`` int, non-decreasing along a row.
        needed: ``(B, 101)`` int.
    """
    num_rows, length = num_hits.shape
    # One search for all rows: each row is offset above the previous one. With integers nothing is rounded.
    lift = (max(int(num_hits.max()), int(needed.max())) + 1) * np.arange(num_rows)[:, None]
    place = np.searchsorted((num_hits + lift).ravel(), (needed + lift).ravel()).reshape(needed.shape)
    place = np.minimum(place - length * np.arange(num_rows)[:, None], length)
    padded = np.concatenate([precision, np.zeros((num_rows, 1))], axis=1)
    return np.take_along_axis(padded, place, axis=1)


def bootstrap_precision(matches: Matches, settings: BootstrapSettings | None = None) -> dict[str, Interval]:
    """Compute intervals of AP, AP50 and AP75."""
    settings = settings or BootstrapSettings()
    whole = average_precision(matches, np.ones((1, matches.num_images), np.int64))
    samples = average_precision(matches, resample_weights(matches.num_images, settings))
    return _intervals(whole, samples, settings)


def bootstrap_difference(a: Matches, b: Matches, settings: BootstrapSettings | None = None) -> dict[str, Interval]:
    """Compute intervals of the differences `b` - `a` of AP, AP50 and AP75: negative is a loss.

    Both models are evaluated on the same draws of images, so differences in the difficulty of images cancel out.

    Args:
        a: Matches of the model to compare with.
        b: Matches of the other model, on the same images in the same order.
        settings: Settings of the intervals; None means the defaults.

    Raises:
        UsageError: The numbers of images differ.
    """
    if a.num_images != b.num_images:
        raise UsageError(
            f"a paired comparison needs the same images on both sides, found {a.num_images} and {b.num_images}; "
            f"evaluate both models on the same annotations"
        )
    settings = settings or BootstrapSettings()
    ones = np.ones((1, a.num_images), np.int64)
    weights = resample_weights(a.num_images, settings)
    whole = average_precision(b, ones) - average_precision(a, ones)
    return _intervals(whole, average_precision(b, weights) - average_precision(a, weights), settings)


def _intervals(whole: Float, samples: Float, settings: BootstrapSettings) -> dict[str, Interval]:
    return {
        name: Interval.of(float(whole[0, columns].mean()), samples[:, columns].mean(axis=1), settings)
        for name, columns in _COLUMNS.items()
    }


def bootstrap_ratio(
    numerator: npt.ArrayLike, denominator: npt.ArrayLike, settings: BootstrapSettings | None = None
) -> Interval:
    """Compute the interval of a sum over images divided by another sum, such as a mean over all pairs of all images.

    Args:
        numerator: ``(images,)`` sums, one for each image.
        denominator: ``(images,)`` counts, one for each image.
        settings: Settings of the intervals; None means the defaults.
    """
    settings = settings or BootstrapSettings()
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    weights = np.concatenate([np.ones((1, len(above)), np.int64), resample_weights(len(above), settings)])
    with np.errstate(invalid="ignore", divide="ignore"):
        values = (weights @ above) / (weights @ below)
    return Interval.of(float(values[0]), values[1:], settings)
