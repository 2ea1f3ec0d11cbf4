"""How much worse than its float original a model is: in points of AP where there are labels, of agreement where not.

A point is a hundredth of AP. With labels, both models are evaluated on the same resamples of the same images, so that
what is hard for both cancels out. Without, the original's confident detections are the truth, and any change counts as
a loss: a box moved to a better place as much as one moved to a worse one. An agreement lost is therefore larger than
the accuracy lost, and is held to a limit of its own.
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
"""Name of an image -> everything that a model finds in it."""

LABELLED_LIMIT, AGREEMENT_LIMIT = 0.5, 8.0
"""Points that may be lost by default: of AP with labels, of agreement without. docs/decisions.md says why."""
# A search looks at the estimate of each plan; its interval is only drawn, and the final verdict has all resamples.
_QUICK_RESAMPLES = 100
_NAMES = {"bbox": "box", "segm": "mask"}


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One candidate against its original.

    Attributes:
        drop: ``"bbox"`` and ``"segm"`` -> points lost, with a 95 % interval; negative is a gain.
        figures: ``"bbox"`` and ``"segm"`` -> AP in [0, 1]: against the labels, or against the original.
        agreement: With the original, image by image.
    """

    drop: Mapping[str, Interval]
    figures: Mapping[str, float | None]
    agreement: Agreement

    @property
    def loss(self) -> float:
        """See :func:`agreement_loss`."""
        return agreement_loss(self.agreement)

    @property
    def worst(self) -> float:
        """The larger of the two drops, points; infinite where one is undefined, which is not the same as none."""
        drops = (interval.estimate for interval in self.drop.values())
        return max(math.inf if drop is None else drop for drop in drops)

    def within(self, max_drop: float) -> bool:
        """Neither box nor mask AP lost more than that many points."""
        return self.worst <= max_drop

    def document(self) -> dict[str, Any]:
        """JSON object: ``{"drop": {"box": [estimate, low, high], "mask": ...}, "ap": {...}, "loss": points}``."""
        return {
            "drop": {_NAMES[kind]: [i.estimate, i.low, i.high] for kind, i in self.drop.items()},
            "ap": {_NAMES[kind]: value for kind, value in self.figures.items()},
            "loss": round(self.loss, 4),
        }


class Judge:
    """Compares candidates with one original on one set of images.

    Args:
        reference: What the original finds.
        class_names: Of both models, by class id.
        annotations: Labels of the same images, whose names are their file names; None judges by agreement.
        settings: Of the intervals.

    Raises:
        DatasetError: The original finds nothing that could be lost, or the labels do not fit; the message says how.
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
                f"these {len(reference)} images, so that no loss could be seen: give images of what it was trained on"
            )
        if undefined := [_NAMES[kind] for kind, figure in self.reference.figures.items() if figure is None]:
            raise DatasetError(
                f"there is no {' and no '.join(undefined)} in the truth ({self.measure}), so that no loss could be "
                f"seen: give images with objects in them"
            )

    @property
    def measure(self) -> str:
        """What a drop is measured in, for people."""
        labelled = f"AP on {len(self._reference)} labelled images"
        return labelled if self._annotations is not None else f"agreement AP on {len(self._reference)} images"

    @property
    def default_limit(self) -> float:
        """Points that may be lost if nobody says otherwise."""
        return AGREEMENT_LIMIT if self._annotations is None else LABELLED_LIMIT

    def require_visible(self, max_drop: float) -> None:
        """Refuse a limit that a network which finds nothing at all would hold.

        Args:
            max_drop: Points; infinity asks for no limit and is not refused.

        Raises:
            DatasetError: The original has no more points than that.
        """
        points = {_NAMES[kind]: 100 * (figure or 0.0) for kind, figure in self.reference.figures.items()}
        name = min(points, key=lambda name: points[name])
        if points[name] <= max_drop < math.inf:
            raise DatasetError(
                f"the float model has {points[name]:.2f} points of {name} {self.measure}, so that a loss of "
                f"{max_drop:g} points could not be told from losing everything: give images and labels of what it was "
                f"trained on, or a smaller --max-drop"
            )

    def judge(self, candidate: Predictions, *, quickly: bool = False) -> Judgement:
        """Compare.

        Args:
            candidate: What it finds in the same images.
            quickly: Fewer resamples: the same estimates in half the time, with coarser intervals.
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
    """Mean over the images of what no longer agrees, in points: finer than AP, for comparing small changes."""
    images = [image for image in agreement.images if image.num_reference + image.num_extra > 0]
    return 100 * sum(image.loss for image in images) / max(len(images), 1)


def _paired_drop(reference: Accuracy, candidate: Accuracy, kind: str, settings: BootstrapSettings) -> Interval:
    change = bootstrap_difference(reference.matches(kind), candidate.matches(kind), settings)["AP"]
    return _points(change, from_one=False)


def _points(change: Interval, *, from_one: bool) -> Interval:
    """A change of AP, or an AP of which 1 is perfect, as points lost."""
    if change.estimate is None or change.low is None or change.high is None:
        return change
    base = 100.0 if from_one else 0.0
    ends = (round(base - 100 * value, 9) + 0.0 for value in (change.estimate, change.high, change.low))
    return Interval(*ends)
