"""Verification that an exported model computes the checkpoint's results, per output and per detection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_export.errors import VerificationError
from yolact_runtime.masks.instances import Instances

__all__ = [
    "DetectionAgreement",
    "OutputAgreement",
    "Rounding",
    "Verification",
    "compare_instances",
    "compare_outputs",
    "require_finite",
]

Float = npt.NDArray[np.float32]

OUTPUT_TOLERANCE = 1e-3
CONFIDENCE_TOLERANCE, CORNER_TOLERANCE_PX, MASK_IOU_TOLERANCE = 2e-3, 1.0, 0.99
# Whether a box is suppressed can depend on the last bit of an IoU.
UNMATCHED_TOLERANCE = 0.01
_ROUNDING_FACTOR = 4.0
_EXPLODED = (
    "No exporter can reproduce such a network, nor can another GPU. The training diverged, or the scale of the input "
    "differs from the training (--config): use an earlier checkpoint, or continue with a lower learning rate"
)


@dataclasses.dataclass(frozen=True)
class OutputAgreement:
    """Agreement of one output of the two models for the same input.

    Attributes:
        name: Name of the output.
        shape: Shape of the output.
        max_absolute: Largest ``|a - b|``.
        max_relative: Largest ``|a - b| / max(|b|, rms(b))``, so that small values are judged by the output's own scale.
    """

    name: str
    shape: tuple[int, ...]
    max_absolute: float
    max_relative: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within :data:`OUTPUT_TOLERANCE`. A NaN on either side fails."""
        return self.max_relative <= OUTPUT_TOLERANCE


@dataclasses.dataclass(frozen=True)
class DetectionAgreement:
    """Agreement of the instances of the two models in the same frame.

    Attributes:
        expected: Number of instances of the checkpoint.
        found: Number of instances of the exported model.
        matched: Number of expected instances with a partner of the same class within every tolerance.
        max_confidence_change: Largest difference of confidence in matched pairs.
        max_corner_change_px: Largest difference of box corners in matched pairs, in pixels.
        min_mask_iou: Smallest mask IoU of matched pairs; two empty masks count as equal.
    """

    expected: int
    found: int
    matched: int
    max_confidence_change: float = 0.0
    max_corner_change_px: float = 0.0
    min_mask_iou: float = 1.0

    @property
    def passed(self) -> bool:
        """Whether all instances of either side, except a share of :data:`UNMATCHED_TOLERANCE`, have a partner."""
        lost = max(self.expected, self.found) - self.matched
        return lost <= UNMATCHED_TOLERANCE * max(self.expected, self.found)


@dataclasses.dataclass(frozen=True)
class Verification:
    """Comparison of every output of every model of a bundle, and of the detections."""

    outputs: tuple[OutputAgreement, ...]
    detections: DetectionAgreement

    @property
    def passed(self) -> bool:
        """Whether everything is within its tolerance."""
        return self.detections.passed and all(output.passed for output in self.outputs)

    def table(self) -> list[str]:
        """Return lines for a terminal, at most 80 columns wide."""
        lines = [f"{'output':<18}{'shape':>20}{'max |a-b|':>12}{'relative':>12}  limit {OUTPUT_TOLERANCE:.0e}"]
        for output in self.outputs:
            shape = " x ".join(map(str, output.shape))
            verdict = "ok" if output.passed else "FAILED"
            lines.append(
                f"{output.name:<18}{shape:>20}{output.max_absolute:>12.1e}{output.max_relative:>12.1e}  {verdict}"
            )
        d = self.detections
        lines.append(
            f"{'detections':<18}{f'{d.matched} of {d.expected}':>20}  confidence {d.max_confidence_change:.0e}, "
            f"mask IoU {d.min_mask_iou:.3f}  {'ok' if d.passed else 'FAILED'}"
        )
        return lines

    def document(self) -> dict[str, Any]:
        """Return a JSON object with the verdicts."""
        outputs = [{**dataclasses.asdict(output), "passed": output.passed} for output in self.outputs]
        detections = {**dataclasses.asdict(self.detections), "passed": self.detections.passed}
        return {"passed": self.passed, "outputs": outputs, "detections": detections}

    def require(self, rounding: Rounding | None = None) -> None:
        """Raise unless everything is within its tolerance.

        Args:
            rounding: Effect of float32 rounding on the checkpoint itself, if it is known.

        Raises:
            VerificationError: A tolerance is exceeded; the message has the table, and says whether the network or its
                export is at fault.
        """
        if self.passed:
            return
        table = "no bundle was written.\n  " + "\n  ".join(self.table())
        if rounding is not None and rounding.explains(self):
            raise VerificationError(f"{rounding.describe()}; {table}\n{_EXPLODED}")
        raise VerificationError(
            f"the results of the exported model differ from the checkpoint's; {table}\n"
            f"Please report this with the table above and the versions of torch and onnxruntime"
        )


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Difference between the checkpoint in float32 and in float64, for the same input.

    Attributes:
        outputs: Comparison of the outputs, by the measure of the verification; with another order of additions, if that
            is worse.
        detections: Comparison of the detections, chosen in the same way.
        largest: Largest absolute value in any layer's result.
        layer: Name of the layer with that value.
    """

    outputs: tuple[OutputAgreement, ...]
    detections: DetectionAgreement
    largest: float
    layer: str

    def explains(self, found: Verification) -> bool:
        """Return whether rounding alone accounts for everything that failed.

        Two float32 computations of one network differ by up to the sum of their own errors, and by a few times that in
        another order of additions.
        """
        own = {output.name: output.max_relative for output in self.outputs}
        outputs = all(
            output.passed or not own.get(output.name, 0.0) * _ROUNDING_FACTOR < output.max_relative
            for output in found.outputs
        )
        # Outputs may agree relative to their size and still change every detection, for example logits of a million.
        return outputs and (found.detections.passed or not all(o.passed for o in found.outputs) or not self.passed)

    @property
    def passed(self) -> bool:
        """Whether the network finds the same instances in float32 as in float64."""
        return self.detections.passed and all(output.passed for output in self.outputs)

    def describe(self) -> str:
        """Return a readable description of what is wrong with the network."""
        worst = max(self.outputs, key=lambda output: np.nan_to_num(output.max_relative, nan=np.inf))
        d = self.detections
        return (
            f"the values in the checkpoint's network have exploded: {self.layer} computes values up to "
            f"{self.largest:.1e}; its own {worst.name} in float32 is up to {worst.max_relative:.1e} off that in "
            f"float64 (relative), and {d.matched} of {d.expected} detections agree"
        )


def require_finite(outputs: Mapping[str, Float]) -> None:
    """Refuse a checkpoint whose own outputs are not finite.

    Raises:
        VerificationError: An output contains NaN or infinity.
    """
    broken = [
        f"{name} ({np.isnan(array).sum()} NaN and {np.isinf(array).sum()} infinite of {array.size} values)"
        for name, array in outputs.items()
        if not np.isfinite(array).all()
    ]
    if broken:
        raise VerificationError(
            f"the values in the checkpoint's network have exploded: on the test frame it computes {', '.join(broken)}; "
            f"no bundle was written.\n{_EXPLODED}"
        )


def compare_outputs(
    expected: Mapping[str, npt.NDArray[np.floating[Any]]], found: Mapping[str, Float]
) -> tuple[OutputAgreement, ...]:
    """Compare arrays of the same names; `expected` may be float64.

    Raises:
        VerificationError: A name is missing, or a shape differs.
    """
    agreements = []
    for name, reference in expected.items():
        if name not in found or found[name].shape != reference.shape:
            has = found[name].shape if name in found else "missing"
            raise VerificationError(
                f'output "{name}": the checkpoint gives {reference.shape}, the exported model {has}'
            )
        difference = np.abs(found[name].astype(np.float64) - reference)
        rms = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64)))) if reference.size else 0.0
        scale = np.maximum(np.abs(reference), max(rms, 1e-30))
        largest = float(difference.max(initial=0.0))
        agreements.append(OutputAgreement(name, reference.shape, largest, float((difference / scale).max(initial=0.0))))
    return tuple(agreements)


def compare_instances(expected: Instances, found: Instances) -> DetectionAgreement:
    """Pair instances one to one, best first, with the same class, and confidence, corners and mask within tolerance."""
    iou = expected.mask.iou(found.mask)
    iou[(expected.mask.area() == 0)[:, None] & (found.mask.area() == 0)[None]] = 1.0
    confidence = np.abs(expected.confidence[:, None] - found.confidence[None])
    corner = np.abs(expected.xyxy[:, None] - found.xyxy[None]).max(axis=-1, initial=0.0)
    fits = (
        (expected.class_id[:, None] == found.class_id[None])
        & (confidence <= CONFIDENCE_TOLERANCE)
        & (corner <= CORNER_TOLERANCE_PX)
        & (iou >= MASK_IOU_TOLERANCE)
    )
    pairs: list[tuple[int, int]] = []
    for i in range(len(expected)):
        options = np.flatnonzero(fits[i])
        if len(options):
            j = int(options[np.argmax(iou[i, options] - corner[i, options] - confidence[i, options])])
            fits[:, j] = False
            pairs.append((i, j))
    if not pairs:
        return DetectionAgreement(len(expected), len(found), 0)
    rows, columns = np.array(pairs).T
    return DetectionAgreement(
        len(expected),
        len(found),
        len(pairs),
        float(confidence[rows, columns].max()),
        float(corner[rows, columns].max()),
        float(iou[rows, columns].min()),
    )
