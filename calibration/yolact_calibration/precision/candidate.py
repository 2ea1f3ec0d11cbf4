"""Candidate networks, judged as engines will compute them, and the decision about float16 outputs.

Outputs of layers that compute in float16 are rounded to it in any dtype, except for the mask coefficients after their
tanh. Float16 outputs therefore usually cost next to nothing; if they cost more than the judge allows, they are refused,
and the same network with float32 outputs is used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import onnx

from yolact_calibration.evaluation.judge import Judge, Judgement, Predictions
from yolact_calibration.float16.conversion import HalfModel, to_float16
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.quantisation.trial import Trial
from yolact_runtime.errors import BackendError
from yolact_runtime.model.manifest import NetworkDtypes
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["Candidate", "CandidateJudge"]


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """Network with its judgement.

    Attributes:
        model: Network in the form in which it would be written.
        half: Result of the conversion to float16, with the layers and outputs that stayed in float32; None without
            float16.
        predictions: Instances that it finds in the judge's images; none if its outputs are not finite.
        judgement: Comparison with the float32 network.
        is_sound: Whether its outputs are finite on all images.
    """

    model: onnx.ModelProto
    half: HalfModel | None
    predictions: Predictions
    judgement: Judgement
    is_sound: bool

    @property
    def dtypes(self) -> NetworkDtypes:
        """Types of its input and outputs."""
        return NetworkDtypes() if self.half is None else self.half.dtypes

    @property
    def output_bytes(self) -> int:
        """Size of all outputs of one frame in bytes, independent of the batch."""
        total = 0
        for output in self.model.graph.output:
            kind = output.type.tensor_type
            size = math.prod(side.dim_value for side in kind.shape.dim[1:])
            total += size * onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        return total

    def holds(self, points: float) -> bool:
        """Return whether its outputs are finite, and neither box nor mask AP lost more than `points` points."""
        return self.is_sound and self.judgement.within(points)


@dataclasses.dataclass(frozen=True, eq=False)
class CandidateJudge:
    """Judge of candidate networks on one set of images.

    Attributes:
        trial: Images on which networks are run.
        judge: Judge that compares with the float32 network.
        aim: Points that may be lost; decides about the outputs even if no network is refused in the end.
        half_io: Whether inputs and outputs may be float16.
    """

    trial: Trial
    judge: Judge
    aim: float
    half_io: bool = True

    def examine(
        self, model: onnx.ModelProto, half: HalfModel | None, label: str = "images", reporter: Reporter = SILENT
    ) -> Candidate:
        """Judge a network; a float16 network as engines compute it.

        Args:
            model: Network in the form in which it would be written.
            half: Result of the conversion to float16; None without float16.
            label: Name of the network for the reporter.
            reporter: Reporter that shows the progress.
        """
        simulated = model if half is None else simulate_float16(model)
        try:
            # A CPU runs integer kernels instead of roundings, but an engine does not.
            predictions = self.trial.find(simulated, simulate=half is not None, reporter=reporter, label=label)
        except BackendError:
            # The judge has to see that it is useless, but it is not a reason to end the export of the others.
            predictions = self.trial.find_nothing()
            return Candidate(model, half, predictions, self.judge.judge(predictions), False)
        return Candidate(model, half, predictions, self.judge.judge(predictions), True)

    def examine_in_half(
        self, model: onnx.ModelProto, largest: Mapping[str, float], label: str = "images", reporter: Reporter = SILENT
    ) -> Candidate:
        """Convert the float32 part of a network to float16, for engines, and judge it.

        Its outputs are float16 if the layers that write them are and the loss is within the limit. If that is not so,
        and float32 outputs help, they are float32, with the reason in :attr:`Candidate.half`.

        Args:
            model: Network in float32, with or without Q/DQ; not modified.
            largest: Largest absolute values by tensor; see :func:`~yolact_calibration.float16.conversion.to_float16`.
            label: Name of the network for the reporter.
            reporter: Reporter that shows the progress.
        """
        half = to_float16(model, largest, half_input=self.half_io, half_outputs=self.half_io)
        found = self.examine(half.model, half, label, reporter)
        if half.dtypes.outputs == "float32" or found.holds(self.aim):
            return found
        single = to_float16(model, largest, half_input=self.half_io)
        other = self.examine(single.model, single, label, reporter)
        if not other.holds(self.aim) and (found.is_sound or not other.is_sound):
            # The outputs are not the cause.
            return found
        lost = f"{found.judgement.worst:.2f} points are lost" if found.is_sound else "they are not finite"
        why = f"in float16 {lost}; in float32 {other.judgement.worst:.2f} points are lost, {self.aim:g} allowed"
        return dataclasses.replace(other, half=dataclasses.replace(single, float32_outputs=why))
