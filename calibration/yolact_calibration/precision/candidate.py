"""Networks that may be written, judged as engines will compute them; and whether their outputs may be float16.

Outputs of layers that compute in float16 are rounded to it whatever their dtype, but for the mask coefficients behind
their tanh. Float16 outputs therefore cost next to nothing, as a rule; where they cost more than the judge allows, they
are refused, and the same network with float32 outputs takes its place.
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
    """A network, and the result of its trial.

    Attributes:
        model: The network that would be written.
        half: Record of the parts that stayed in float32, and of the reason if the outputs did; None without float16.
        predictions: Detections in the judge's images; none if the outputs are not finite.
        judgement: Accuracy, compared with the float32 network.
        is_sound: Whether the outputs are finite on all images.
    """

    model: onnx.ModelProto
    half: HalfModel | None
    predictions: Predictions
    judgement: Judgement
    is_sound: bool

    @property
    def dtypes(self) -> NetworkDtypes:
        """Dtypes of its input and outputs."""
        return NetworkDtypes() if self.half is None else self.half.dtypes

    @property
    def output_bytes(self) -> int:
        """Size of all outputs of one frame, whatever the batch, bytes."""
        total = 0
        for output in self.model.graph.output:
            kind = output.type.tensor_type
            size = math.prod(side.dim_value for side in kind.shape.dim[1:])
            total += size * onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        return total

    def holds(self, points: float) -> bool:
        """Return whether the outputs are finite and neither box nor mask AP lost more than that many points."""
        return self.is_sound and self.judgement.within(points)


@dataclasses.dataclass(frozen=True, eq=False)
class CandidateJudge:
    """Tries networks on one set of images.

    Attributes:
        trial: The images.
        judge: Compares with the float32 network.
        aim: Points that may be lost; what decides about the outputs even where nothing is refused in the end.
        half_io: Inputs and outputs may be float16.
    """

    trial: Trial
    judge: Judge
    aim: float
    half_io: bool = True

    def examine(
        self, model: onnx.ModelProto, half: HalfModel | None, label: str = "images", reporter: Reporter = SILENT
    ) -> Candidate:
        """Judge a network; in float16 as engines compute it.

        Args:
            model: The network that would be written.
            half: Record of its conversion, if it is one in float16.
            label: Name of the network for the reporter.
            reporter: Reporter of the progress.
        """
        simulated = model if half is None else simulate_float16(model)
        try:
            # Integer kernels in the place of roundings are what a CPU runs, and no engine.
            predictions = self.trial.find(simulated, simulate=half is not None, reporter=reporter, label=label)
        except BackendError:
            # Of no use, which the judge has to see; the others are exported all the same.
            predictions = self.trial.find_nothing()
            return Candidate(model, half, predictions, self.judge.judge(predictions), False)
        return Candidate(model, half, predictions, self.judge.judge(predictions), True)

    def examine_in_half(
        self, model: onnx.ModelProto, largest: Mapping[str, float], label: str = "images", reporter: Reporter = SILENT
    ) -> Candidate:
        """Put into float16 what is float32 in a network, for engines, and judge it.

        Its outputs are float16 where the layers that write them are and no more is lost than may be. Where that is not
        so, and float32 outputs mend it, they are float32, with the reason in :attr:`Candidate.half`.

        Args:
            model: Network in float32, with or without Q/DQ; not modified.
            largest: Largest values of tensors; see :func:`~yolact_calibration.float16.conversion.to_float16`.
            label: Name of the network for the reporter.
            reporter: Reporter of the progress.
        """
        half = to_float16(model, largest, half_input=self.half_io, half_outputs=self.half_io)
        found = self.examine(half.model, half, label, reporter)
        if half.dtypes.outputs == "float32" or found.holds(self.aim):
            return found
        single = to_float16(model, largest, half_input=self.half_io)
        other = self.examine(single.model, single, label, reporter)
        if not other.holds(self.aim) and (found.is_sound or not other.is_sound):
            # It is not the outputs.
            return found
        lost = f"{found.judgement.worst:.2f} points are lost" if found.is_sound else "they are not finite"
        why = f"in float16 {lost}; in float32 {other.judgement.worst:.2f} points are lost, {self.aim:g} allowed"
        return dataclasses.replace(other, half=dataclasses.replace(single, float32_outputs=why))
