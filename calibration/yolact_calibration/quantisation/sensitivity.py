"""Sensitivity of the parts of a network to INT8, separately for weights and activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx

from yolact_calibration.evaluation.agreement import measure_agreement
from yolact_calibration.evaluation.judge import Predictions, agreement_loss
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq import Parts, quantise
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import Range
from yolact_calibration.quantisation.trial import Trial
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["GroupSensitivity", "measure_sensitivity"]

_KINDS = {"box": "bbox", "mask": "segm"}


@dataclasses.dataclass(frozen=True)
class GroupSensitivity:
    """Sensitivity of one part of a network: alone in INT8, with everything else in float.

    Attributes:
        group: Name of the part.
        num_convolutions: Number of its convolutions.
        macs: Multiply-accumulate operations for one image.
        drop: Points of agreement AP lost, by ``"weights"`` and ``"activations"`` and then ``"box"`` and ``"mask"``.
        loss: Points of :func:`~yolact_calibration.evaluation.judge.agreement_loss`, by ``"weights"`` and
            ``"activations"``.
    """

    group: str
    num_convolutions: int
    macs: int
    drop: Mapping[str, Mapping[str, float | None]]
    loss: Mapping[str, float]

    @property
    def total_loss(self) -> float:
        """Loss of the group in points, which decides the order in which the search returns parts to float."""
        return sum(self.loss.values())

    def document(self) -> dict[str, Any]:
        """Return a JSON object of the sensitivity."""
        return {
            "group": self.group,
            "num_convolutions": self.num_convolutions,
            "gmacs": round(self.macs / 1e9, 3),
            **{part: {**values, "overlap": round(self.loss[part], 4)} for part, values in self.drop.items()},
        }


def measure_sensitivity(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    dialect: Dialect,
    trial: Trial,
    reference: Predictions,
    class_names: Sequence[str],
    skipped: Collection[str] = (),
    reporter: Reporter = SILENT,
) -> tuple[GroupSensitivity, ...]:
    """Measure every part alone, its weights and its activations separately.

    Args:
        model: Float network; not modified.
        ranges: Ranges of its tensors.
        dialect: Runtime for which the rounding will be written.
        trial: Images to use; a dozen is enough for ranking the parts.
        reference: Instances that `model` finds in them.
        class_names: Class names of the model by class id.
        skipped: Groups that cannot be in INT8.
        reporter: Reporter that shows the progress.
    """
    graph = NetworkGraph(model)
    parts = (Parts.WEIGHTS, Parts.ACTIVATIONS)
    groups = {group: members for group, members in graph.groups.items() if group not in skipped}
    result = []
    for number, (group, members) in enumerate(groups.items()):
        names = [convolution.name for convolution in members]
        drop: dict[str, dict[str, float | None]] = {}
        loss: dict[str, float] = {}
        for index, part in enumerate(parts):
            candidate = quantise(model, ranges, names, dialect, part)
            agreement = measure_agreement(reference, trial.find_if_sound(candidate, simulate=True), class_names)
            figures = {"bbox": agreement.bbox["AP"], "segm": agreement.segm["AP"]}
            drop[part.value] = {name: _points_lost(figures[kind]) for name, kind in _KINDS.items()}
            loss[part.value] = agreement_loss(agreement)
            done = len(parts) * number + index + 1
            reporter.status(f"sensitivity {done}/{len(parts) * len(groups)}")
        macs = sum(convolution.macs for convolution in members)
        result.append(GroupSensitivity(group, len(members), macs, drop, loss))
    return tuple(result)


def _points_lost(figure: float | None) -> float | None:
    return None if figure is None else round(100 * (1 - figure), 4) + 0.0
