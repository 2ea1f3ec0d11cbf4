"""Accuracy without labels: agreement of a model with a reference model.

The reference's confident detections take the place of the truth. A model agrees with itself perfectly: AP 1, IoU 1, no
score shift. Losses by pruning or a lower precision are visible at once, and no image needs a label.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from yolact_calibration.errors import DatasetError, UsageError
from yolact_calibration.evaluation.accuracy import detection_objects, mask_score
from yolact_calibration.evaluation.bootstrap import BootstrapSettings, Interval, bootstrap_precision, bootstrap_ratio
from yolact_calibration.evaluation.coco_evaluator import (
    KINDS,
    MAX_DETECTIONS,
    CocoObjects,
    Figures,
    evaluate,
    require_evaluator,
)
from yolact_calibration.evaluation.matches import Matches, Overlap, match_classes
from yolact_calibration.evaluation.pairing import ImagePairs, pair_instances
from yolact_runtime.masks.instances import Instances

__all__ = ["Agreement", "AgreementMeter", "ImageAgreement", "measure_agreement"]

Key = TypeVar("Key", bound=Hashable)

_FIGURES = ("AP", "AP50", "AP75")
_NUM_WORST = 20


@dataclasses.dataclass(frozen=True)
class ImageAgreement:
    """Agreement in one image.

    Attributes:
        name: Key of the image, as text.
        loss: Mean of 1 - IoU over the reference's instances and the extra ones; a missing or an extra one counts 1.
        num_reference: Number of confident instances of the reference.
        num_matched: Number of those that the candidate found, too.
        num_extra: Number of confident instances that the reference does not have at any confidence.
    """

    name: str
    loss: float
    num_reference: int
    num_matched: int
    num_extra: int


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of a candidate with its reference. Undefined figures are None.

    Attributes:
        bbox: Figures ``AP``, ``AP50``, ``AP75`` of the candidate's boxes against the reference's confident ones.
        segm: Figures of masks, with the same names.
        by_class: Mapping of ``"bbox"`` and ``"segm"`` to class names mapped to the same figures; only classes that the
            reference has.
        num_images: Number of compared images.
        num_instances: Number of confident instances of the reference by class name.
        matched: Share of the reference's confident instances that the candidate found with the same class and a mask
            IoU of 0.5 or more, at any confidence.
        num_extra: Number of confident instances of the candidate that the reference does not have at any confidence.
        mask_iou: Mean mask IoU of the matched pairs.
        mask_iou_p5: 5th percentile of the mask IoU.
        shift: Mean of (candidate's - reference's confidence) over the matched pairs.
        abs_shift: Mean absolute value of the shift.
        max_shift: Largest absolute value of the shift.
        images: Agreement in each image, the worst first.
        min_confidence: Threshold above which an instance is confident.
        pairs: Pairs of each image, in the order in which they were added, which the figures above summarise.
        overlaps: Mapping of ``"bbox"`` and ``"segm"`` to the overlaps from which :meth:`matches` computes its result.
    """

    bbox: Figures
    segm: Figures
    by_class: Mapping[str, Mapping[str, Figures]]
    num_images: int
    num_instances: Mapping[str, int]
    matched: float | None
    num_extra: int
    mask_iou: float | None
    mask_iou_p5: float | None
    shift: float | None
    abs_shift: float | None
    max_shift: float | None
    images: tuple[ImageAgreement, ...]
    min_confidence: float
    pairs: tuple[ImagePairs, ...] = dataclasses.field(repr=False)
    overlaps: Mapping[str, Sequence[Sequence[Overlap]]] = dataclasses.field(repr=False)

    def matches(self, kind: str) -> Matches:
        """Match ``"bbox"`` or ``"segm"`` for :mod:`~yolact_calibration.evaluation.bootstrap`; computed at each call."""
        return match_classes(self.overlaps[kind], self.num_images)

    def intervals(self, settings: BootstrapSettings | None = None) -> dict[str, dict[str, Interval]]:
        """Compute confidence intervals over images.

        ``"bbox"`` and ``"segm"`` have ``AP``, ``AP50`` and ``AP75``; ``"pairs"`` has ``mask_iou``, ``shift``,
        ``abs_shift`` and ``matched``.
        """
        result = {kind: bootstrap_precision(self.matches(kind), settings) for kind in KINDS}
        count = [len(pairs.iou) for pairs in self.pairs]
        sums = {
            "mask_iou": ([pairs.iou.sum() for pairs in self.pairs], count),
            "shift": ([pairs.shift.sum() for pairs in self.pairs], count),
            "abs_shift": ([np.abs(pairs.shift).sum() for pairs in self.pairs], count),
            "matched": (count, [pairs.num_reference for pairs in self.pairs]),
        }
        return {**result, "pairs": {name: bootstrap_ratio(*parts, settings) for name, parts in sums.items()}}

    def document(self) -> dict[str, Any]:
        """Return a JSON object; ``"worst"`` has up to 20 images that do not agree perfectly, the worst first."""
        return {
            "bbox": {**self.bbox, "by_class": {name: dict(f) for name, f in self.by_class["bbox"].items()}},
            "segm": {**self.segm, "by_class": {name: dict(f) for name, f in self.by_class["segm"].items()}},
            "pairs": {
                "matched": self.matched,
                "extra": self.num_extra,
                "mask_iou": self.mask_iou,
                "mask_iou_p5": self.mask_iou_p5,
                "shift": self.shift,
                "abs_shift": self.abs_shift,
                "max_shift": self.max_shift,
            },
            "min_confidence": self.min_confidence,
            "images": self.num_images,
            "instances": dict(self.num_instances),
            "worst": [dataclasses.asdict(image) for image in self.images[:_NUM_WORST] if image.loss > 0],
        }


class AgreementMeter:
    """Collector of pairs of detections, image by image, that then measures agreement.

    Args:
        class_names: Class names of both models by class id.
        min_confidence: Threshold above which the reference's instances are the truth: boxes by their confidence, masks
            by their mask confidence if the model has it.

    Raises:
        UsageError: `min_confidence` is not in [0, 1).
        MissingDependencyError: faster-coco-eval is not installed.
    """

    def __init__(self, class_names: Sequence[str], min_confidence: float = 0.3) -> None:
        require_evaluator()
        if not 0 <= min_confidence < 1:
            raise UsageError(f"min_confidence must be 0 or more and below 1, found {min_confidence}")
        self._class_names = tuple(class_names)
        self._min_confidence = min_confidence
        self._names: list[str] = []
        self._sizes: dict[int, tuple[int, int]] = {}
        self._pairs: list[ImagePairs] = []
        self._truth: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self._detections: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self._num_instances: Counter[str] = Counter()

    def add(self, name: str, reference: Instances, candidate: Instances) -> None:
        """Add one image.

        Args:
            name: Name for messages and the list of the worst images.
            reference: All detections of the reference, not only the confident ones.
            candidate: All detections of the candidate.

        Raises:
            DatasetError: The detections are of images of different sizes, or of classes without a name.
        """
        sizes = [(instances.height, instances.width) for instances in (reference, candidate)]
        if sizes[0] != sizes[1]:
            raise DatasetError(
                f"{name}: the reference's detections are of an image of {sizes[0]} and the other's of {sizes[1]} "
                f"(height, width)"
            )
        highest = max((int(side.class_id.max()) for side in (reference, candidate) if len(side)), default=-1)
        if highest >= len(self._class_names):
            raise DatasetError(f"{name}: a detection of class {highest}, and there are {len(self._class_names)} names")
        self._names.append(name)
        image_id = len(self._names)
        self._sizes[image_id] = sizes[0]
        self._pairs.append(pair_instances(reference, candidate, self._min_confidence))
        confident = reference.class_id[reference.confidence > self._min_confidence]
        self._num_instances.update(self._class_names[class_id] for class_id in confident.tolist())
        for kind in KINDS:
            self._truth[kind] += self._objects(kind, image_id, reference, self._min_confidence)
            self._detections[kind] += self._objects(kind, image_id, candidate, None)

    def _objects(self, kind: str, image_id: int, instances: Instances, above: float | None) -> list[dict[str, Any]]:
        """Return COCO objects of the instances with a score above `above`; for masks, only with at least one pixel."""
        score = instances.confidence if kind == "bbox" else mask_score(instances)
        counts = np.ones(len(instances), bool) if above is None else score > above
        if kind == "segm":
            # Two empty masks have an IoU of 0, so a model would not agree with itself.
            counts &= instances.mask.area() > 0
        category_ids = tuple(range(1, len(self._class_names) + 1))
        return detection_objects(kind, image_id, instances[np.flatnonzero(counts)], category_ids)

    def measure(self) -> Agreement:
        """Compute the figures of the added images.

        Raises:
            DatasetError: No image was added.
        """
        if not self._names:
            raise DatasetError("agreement needs at least one image, found none")
        ids = tuple(range(1, len(self._class_names) + 1))
        # COCO's limit of 100 does not apply to agreement: a reference may find more.
        limit = max(MAX_DETECTIONS, *(len(objects) for objects in (*self._truth.values(), *self._detections.values())))
        evaluations = {
            kind: evaluate(CocoObjects(kind, self._sizes, ids, self._truth[kind], self._detections[kind]), limit)
            for kind in KINDS
        }
        by_class = {
            kind: {
                self._class_names[category_id - 1]: _chosen(figures)
                for category_id, figures in evaluation.by_category.items()
                if figures["AP"] is not None
            }
            for kind, evaluation in evaluations.items()
        }
        return Agreement(
            bbox=_chosen(evaluations["bbox"].figures),
            segm=_chosen(evaluations["segm"].figures),
            by_class=by_class,
            num_images=len(self._names),
            num_instances={name: self._num_instances[name] for name in self._class_names if self._num_instances[name]},
            **_pair_figures(self._pairs),
            images=_worst_first(self._names, self._pairs),
            min_confidence=self._min_confidence,
            pairs=tuple(self._pairs),
            overlaps={kind: evaluation.overlaps for kind, evaluation in evaluations.items()},
        )


def measure_agreement(
    reference: Mapping[Key, Instances],
    candidate: Mapping[Key, Instances],
    class_names: Sequence[str],
    min_confidence: float = 0.3,
) -> Agreement:
    """Measure the agreement of `candidate` with `reference`.

    Args:
        reference: All detections of the reference model, by image.
        candidate: All detections of the model to evaluate, by the same images.
        class_names: Class names of both models by class id.
        min_confidence: Threshold above which the reference's instances are the truth.

    Raises:
        DatasetError: The images or their sizes differ.
        UsageError: `min_confidence` is not in [0, 1).
        MissingDependencyError: faster-coco-eval is not installed.
    """
    different = sorted(str(key) for key in reference.keys() ^ candidate.keys())
    if different:
        raise DatasetError(
            f"agreement needs the same images of both models; {len(different)} have detections of one only: "
            f"{', '.join(different[:5])}"
        )
    meter = AgreementMeter(class_names, min_confidence)
    for key, instances in reference.items():
        meter.add(str(key), instances, candidate[key])
    return meter.measure()


def _chosen(figures: Figures) -> dict[str, float | None]:
    return {name: figures[name] for name in _FIGURES}


def _pair_figures(pairs: Sequence[ImagePairs]) -> dict[str, Any]:
    iou = np.concatenate([image.iou for image in pairs])
    shift = np.concatenate([image.shift for image in pairs])
    num_reference = sum(image.num_reference for image in pairs)
    some = len(iou) > 0
    return {
        "matched": len(iou) / num_reference if num_reference else None,
        "num_extra": sum(image.num_extra for image in pairs),
        "mask_iou": float(iou.mean()) if some else None,
        "mask_iou_p5": float(np.percentile(iou, 5)) if some else None,
        "shift": float(shift.mean()) if some else None,
        "abs_shift": float(np.abs(shift).mean()) if some else None,
        "max_shift": float(np.abs(shift).max()) if some else None,
    }


def _worst_first(names: Sequence[str], pairs: Sequence[ImagePairs]) -> tuple[ImageAgreement, ...]:
    images = []
    for name, image in zip(names, pairs, strict=True):
        num_matched = len(image.iou)
        count = image.num_reference + image.num_extra
        lost = float((1 - image.iou).sum()) + count - num_matched
        images.append(ImageAgreement(name, lost / max(count, 1), image.num_reference, num_matched, image.num_extra))
    return tuple(sorted(images, key=lambda image: (-image.loss, image.name)))
