"""Loss of a model against its float original: in points of AP with labels, of agreement without labels.

A point is a hundredth of AP. With labels, both models are evaluated on the same resamples of the same images, so the
difficulty of images cancels out. Without labels, the original's confident detections are the truth, and any change
counts as a loss: even a box moved to a better place. A loss of agreement is therefore larger than the loss of accuracy,
and has a limit of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from yolact_calibration.errors import DatasetError
from yolact_calibration.evaluation.accuracy import Accuracy, measure_accuracy
from yolact_calibration.evaluation.agreement import Agreement, measure_agreement
from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval, bootstrap_difference
from yolact_calibration.evaluation.coco_evaluator import KINDS
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.masks.instances import Instances

__all__ = ["AGREEMENT_LIMIT", "LABELLED_LIMIT", "Judge", "Judgement", "Predictions", "agreement_loss"]

Predictions = Mapping[str, Instances]
"""All instances that a model finds, by name of the image."""

LABELLED_LIMIT, AGREEMENT_LIMIT = 0.5, 8.0
"""Default limits in points: of AP with labels, of agreement without. docs/decisions.md gives the reasons."""
# A search uses the estimate of each plan and only draws its interval; the final judgement has all resamples.
_QUICK_RESAMPLES = 100
_NAMES = {"bbox": "box", "segm": "mask"}


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Comparison of one candidate with its original.

    Attributes:
        drop: Mapping of ``"bbox"`` and ``"segm"`` to the points lost, with a 95 % interval; negative is a gain.
        figures: Mapping of ``"bbox"`` and ``"segm"`` to the AP in [0, 1], against the labels or against the original.
        agreement: Agreement with the original, image by image.
    """

    drop: Mapping[str, Interval]
    figures: Mapping[str, float | None]
    agreement: Agreement

    @property
    def loss(self) -> float:
        """Loss of agreement in points; see :func:`agreement_loss`."""
        return agreement_loss(self.agreement)

    @property
    def worst(self) -> float:
        """Larger of the two drops in points; infinite if one is undefined."""
        drops = (interval.estimate for interval in self.drop.values())
        return max(math.inf if drop is None else drop for drop in drops)

    def within(self, max_drop: float) -> bool:
        """Return whether neither box nor mask AP lost more than `max_drop` points."""
        return self.worst <= max_drop

    def document(self) -> dict[str, Any]:
        """Return ``{"drop": {"box": [estimate, low, high], "mask": ...}, "ap": {...}, "loss": points}``."""
        return {
            "drop": {_NAMES[kind]: [i.estimate, i.low, i.high] for kind, i in self.drop.items()},
            "ap": {_NAMES[kind]: value for kind, value in self.figures.items()},
            "loss": round(self.loss, 4),
        }


class Judge:
    """Comparison of candidates with one original on one set of images.

    Args:
        reference: All instances that the original finds.
        class_names: Class names of both models by class id.
        annotations: Labels of the same images, whose names are their file names; None judges by agreement.
        settings: Settings of the intervals; None means the defaults.

    Raises:
        DatasetError: The original finds nothing that could be lost, or the labels do not fit; the message says why.
    """

    def __init__(
        self,
        reference: Predictions,
        class_names: tuple[str, ...],
        annotations: CocoAnnotations | None = None,
        settings: BootstrapSettings | None = None,
    ) -> None:
        self._reference = reference
        self._class_names = class_names
        self._annotations = annotations
        self._settings = settings or BootstrapSettings()
        self._accuracy = None if annotations is None else self._measure_accuracy(reference, annotations)
        self.reference = self.judge(reference)
        if not self.reference.agreement.num_instances:
            raise DatasetError(
                f"the float model finds nothing with a confidence above {self.reference.agreement.min_confidence} in "
                f"these {len(reference)} images, so no loss would be visible: give images of "
                f"objects that it was trained on"
            )
        if undefined := [_NAMES[kind] for kind, figure in self.reference.figures.items() if figure is None]:
            raise DatasetError(
                f"the truth ({self.measure}) has no {' and no '.join(undefined)}, so no loss would be visible: give "
                f"images with objects in them"
            )

    @property
    def measure(self) -> str:
        """Readable name of the unit of a drop."""
        labelled = f"AP on {len(self._reference)} labelled images"
        return labelled if self._annotations is not None else f"agreement AP on {len(self._reference)} images"

    @property
    def default_limit(self) -> float:
        """Default limit of the points that may be lost."""
        return AGREEMENT_LIMIT if self._annotations is None else LABELLED_LIMIT

    def require_visible(self, max_drop: float) -> None:
        """Refuse a limit that even a network that finds nothing would satisfy.

        Args:
            max_drop: Limit in points; infinity means no limit and is accepted.

        Raises:
            DatasetError: The original has no more points than `max_drop`.
        """
        points = {_NAMES[kind]: 100 * (figure or 0.0) for kind, figure in self.reference.figures.items()}
        name = min(points, key=lambda name: points[name])
        if points[name] <= max_drop < math.inf:
            raise DatasetError(
                f"the float model has {points[name]:.2f} points of {name} {self.measure}, so a loss of {max_drop:g} "
                f"points could mean losing everything: give images and labels of objects that it was trained on, or a "
                f"smaller --max-drop"
            )

    def judge(self, candidate: Predictions, *, quickly: bool = False) -> Judgement:
        """Compare a candidate with the original.

        Args:
            candidate: All instances that the candidate finds in the same images.
            quickly: If True, use fewer resamples: the same estimates in half the time, with coarser intervals.
        """
        settings = self._settings
        if quickly:
            settings = dataclasses.replace(settings, num_resamples=min(settings.num_resamples, _QUICK_RESAMPLES))
        agreement = measure_agreement(self._reference, candidate, self._class_names)
        if self._annotations is None or self._accuracy is None:
            intervals = agreement.intervals(settings)
            drop = {kind: _points(intervals[kind]["AP"], from_one=True) for kind in KINDS}
            return Judgement(drop, {"bbox": agreement.bbox["AP"], "segm": agreement.segm["AP"]}, agreement)
        accuracy = self._measure_accuracy(candidate, self._annotations)
        drop = {kind: _paired_drop(self._accuracy, accuracy, kind, settings) for kind in KINDS}
        return Judgement(drop, {"bbox": accuracy.bbox["AP"], "segm": accuracy.segm["AP"]}, agreement)

    def _measure_accuracy(self, predictions: Predictions, annotations: CocoAnnotations) -> Accuracy:
        by_id = {image.image_id: predictions[image.file_name] for image in annotations.images}
        return measure_accuracy(annotations, by_id, self._class_names)


def agreement_loss(agreement: Agreement) -> float:
    """Return the mean disagreement over the images in points: finer than AP, for comparing small changes."""
    images = [image for image in agreement.images if image.num_reference + image.num_extra > 0]
    return 100 * sum(image.loss for image in images) / max(len(images), 1)


def _paired_drop(reference: Accuracy, candidate: Accuracy, kind: str, settings: BootstrapSettings) -> Interval:
    change = bootstrap_difference(reference.matches(kind), candidate.matches(kind), settings)["AP"]
    return _points(change, from_one=False)


def _points(change: Interval, *, from_one: bool) -> Interval:
    """Convert a change of AP, or an AP whose perfect value is 1, to points lost."""
    if change.estimate is None or change.low is None or change.high is None:
        return change
    base = 100.0 if from_one else 0.0
    ends = (round(base - 100 * value, 9) + 0.0 for value in (change.estimate, change.high, change.low))
    return Interval(*ends)
