"""Networks of several precisions from one calibration: searched, and judged by the same images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from yolact_calibration.errors import CalibrationError
from yolact_calibration.evaluation.accuracy import AccuracyMeter
from yolact_calibration.evaluation.judge import Judge, Judgement, Predictions
from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.float16.magnitude import tensors_to_observe
from yolact_calibration.float16.overflow import find_overflow
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.precision.candidate import Candidate, CandidateJudge
from yolact_calibration.precision.guard_images import GuardImages
from yolact_calibration.quantisation.calibration_cache import Calibration, calibrate
from yolact_calibration.quantisation.calibration_images import CalibrationImages
from yolact_calibration.quantisation.int8 import Int8Model, Int8Options, make_int8
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq_placement import Dialect, quantisable_tensors
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_calibration.quantisation.trial import NamedFrames, Trial
from yolact_runtime.model.manifest import Manifest, NetworkDtypes
from yolact_runtime.option_numbers import MAX_COUNT, MAX_THREADS, keep_between
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["PRECISION_OF", "NetworkMaker", "PrecisionRequest", "QuantisedNetwork"]

PRECISION_OF = {Dialect.TENSORRT: "int8", Dialect.CPU: "int8-cpu"}
"""Precision of an INT8 network, as bundles name it."""


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionRequest:
    """Networks to make, and the images for it.

    Attributes:
        float16: A network in float16.
        dialects: INT8 networks, for whom.
        calibration: Images to take ranges from.
        guard: Images to judge by.
        method: Choice of the ranges.
        max_drop: Points that may be lost; None takes the judge's own limit. Infinity refuses nothing: a search still
            aims at the judge's limit.
        everything: Every convolution in INT8, without a search.
        num_sensitivity: Images to put the parts of the network in order with; 0: do not look at the parts.
        num_threads: CPU threads; 0 leaves the choice to ONNX Runtime.
        cache: Folder of calibrations; None: the user's cache folder.
        half_io: Networks for engines may have inputs and outputs in float16, where the judge allows it.

    Raises:
        UsageError: A field is not a number, or out of its range; the message names it.
    """

    float16: bool
    dialects: tuple[Dialect, ...]
    calibration: CalibrationImages
    guard: GuardImages
    method: RangeMethod = RangeMethod.MSE
    max_drop: float | None = None
    everything: bool = False
    num_sensitivity: int = 16
    num_threads: int = 0
    cache: Path | None = None
    half_io: bool = True

    def __post_init__(self) -> None:
        keep_between(
            self, {"num_sensitivity": (0, MAX_COUNT), "num_threads": (0, MAX_THREADS)}, {"max_drop": (0, math.inf)}
        )


@dataclasses.dataclass(frozen=True, eq=False)
class QuantisedNetwork:
    """A network of another precision, and how accurate it is.

    Attributes:
        precision: Name of its precision, as bundles have it: ``"fp16"``, ``"int8"`` or ``"int8-cpu"``.
        candidate: The network, what it finds in the guard's images, and the judgement.
        passed: Whether it may be used: it stays within the limit, or there is no limit.
        int8: The plan of the INT8 network and its search; None of a float16 one.
        overflow: Readable place of a value that is not finite; None if none was found or looked for. It is looked for
            if the outputs are not finite, or if the network is rejected.
    """

    precision: str
    candidate: Candidate
    passed: bool
    int8: Int8Model | None = None
    overflow: str | None = None

    @property
    def model(self) -> onnx.ModelProto:
        """The network."""
        return self.candidate.model

    @property
    def judgement(self) -> Judgement:
        """Accuracy, compared with the float32 network."""
        return self.candidate.judgement

    @property
    def dtypes(self) -> NetworkDtypes:
        """Dtypes of its input and outputs."""
        return self.candidate.dtypes

    @property
    def provenance(self) -> dict[str, str]:
        """Facts for the manifest of the network."""
        made = {} if self.int8 is None else {"int8_parts": ", ".join(self.int8.search.int8)}
        half = self.candidate.half
        if half is not None and half.float32_outputs is not None:
            made["float32_outputs"] = half.float32_outputs
        return made


class NetworkMaker:
    """Maker of the networks of a request, one after the other, from one calibration and one judge.

    Args:
        network: File of the float32 network.
        manifest: Manifest of that network.
        request: The networks to make.
        mask_iou: File of the mask-IoU network of a YOLACT++ model, or None.
        reporter: Receives progress.

    Raises:
        CalibrationError: The file is not a float32 network, the images show nothing that a loss could be seen by, or no
            ranges follow from them.
        DatasetError: The labels do not fit the model.
    """

    def __init__(
        self,
        network: Path,
        manifest: Manifest,
        request: PrecisionRequest,
        mask_iou: Path | None = None,
        reporter: Reporter = SILENT,
    ) -> None:
        self._path = network
        self._manifest = manifest
        self._request = request
        self._mask_iou = mask_iou
        self._reporter = reporter
        self._model = _load_float32(network)
        self._class_names = manifest.class_names
        if request.guard.annotations is not None:
            # Labels that do not fit the model end an export before it has cost minutes.
            AccuracyMeter(request.guard.annotations, self._class_names)
        reporter.heading(f"calibrating on {len(request.calibration)} images ({request.method.value} ranges)")
        self._calibration = self._calibrate()
        self._largest = _largest(self._calibration)
        reporter.heading(f"judging by {request.guard.description}")
        self._trial = self._trial_of(request.guard)
        self._reference = self._trial.find(self._model, reporter=reporter, label="float32")
        self._judge = Judge(self._reference, self._class_names, request.guard.annotations)
        self._max_drop = self._judge.default_limit if request.max_drop is None else request.max_drop
        self._judge.require_visible(self._max_drop)
        self._aim = self._judge.default_limit if math.isinf(self._max_drop) else self._max_drop
        limit = f"at most {self._max_drop:g} points may be lost"
        kept = "no limit, nothing is rejected"
        reporter.say(f"  {self._judge.measure}; {limit if self._aim == self._max_drop else kept}")

    @property
    def calibration(self) -> Calibration:
        """Ranges of the values inside the float32 network."""
        return self._calibration

    @property
    def measure(self) -> str:
        """Readable name of the accuracy that is compared."""
        return self._judge.measure

    @property
    def max_drop(self) -> float:
        """Points that a network may lose; infinity if there is no limit."""
        return self._max_drop

    @property
    def single(self) -> Candidate:
        """The float32 network, judged like the others."""
        return Candidate(self._model, None, self._reference, self._judge.reference, True)

    @property
    def reference(self) -> Predictions:
        """Detections of the float32 network in the guard's images."""
        return self._reference

    def make(self) -> Iterator[QuantisedNetwork]:
        """Yield each network of the request once it is judged.

        Raises:
            CalibrationError: No part of the network can be in INT8.
        """
        examiner = CandidateJudge(self._trial, self._judge, self._aim, self._request.half_io)
        if self._request.float16:
            yield self._decide("fp16", self._examine_in_half("fp16", self._model, examiner), None)
        for dialect in self._request.dialects:
            yield self._judge_int8(self._make_int8(dialect), examiner)

    def _calibrate(self) -> Calibration:
        self._quantisable = quantisable_tensors(NetworkGraph(self._model))
        calibration = calibrate(
            self._path,
            (*self._quantisable, *tensors_to_observe(self._model, self._quantisable)),
            self._request.calibration,
            self._manifest.input,
            num_threads=self._request.num_threads,
            cache=self._request.cache,
            reporter=self._reporter,
        )
        for warning in calibration.warnings:
            self._reporter.warn(warning)
        return calibration

    def _make_int8(self, dialect: Dialect) -> Int8Model:
        request = self._request
        self._reporter.heading(f"searching a plan for {PRECISION_OF[dialect]}")
        few = request.guard.first(request.num_sensitivity)
        small = self._trial_of(few) if len(few) else None
        return make_int8(
            self._model,
            {name: self._calibration.histograms[name] for name in self._quantisable},
            Int8Options(dialect, request.method, self._aim, request.everything, request.num_threads),
            self._trial,
            self._judge,
            small,
            small.find(self._model) if small is not None else {},
            self._class_names,
            lambda model: model if dialect is Dialect.CPU else simulate_float16(to_float16(model, self._largest).model),
            self._reporter,
        )

    def _judge_int8(self, int8: Int8Model, examiner: CandidateJudge) -> QuantisedNetwork:
        precision = PRECISION_OF[int8.dialect]
        if int8.dialect is Dialect.CPU:
            found = examiner.examine(int8.model, None, precision, self._reporter)
        else:
            # What is judged is what is written: with the remainder in float16, where it will be.
            found = self._examine_in_half(precision, int8.model, examiner)
        return self._decide(precision, found, int8)

    def _examine_in_half(self, precision: str, model: onnx.ModelProto, examiner: CandidateJudge) -> Candidate:
        found = examiner.examine_in_half(model, self._largest, precision, self._reporter)
        if found.half is not None and found.half.float32_outputs is not None:
            self._reporter.say(f"  the outputs of {precision} stay in float32: {found.half.float32_outputs}")
        return found

    def _decide(self, precision: str, found: Candidate, int8: Int8Model | None) -> QuantisedNetwork:
        passed = found.holds(self._max_drop) and (int8 is None or int8.num_int8 > 0)
        overflow = None
        if found.half is not None and not passed:
            overflow = find_overflow(found.model, self._request.guard, self._manifest.input, self._request.num_threads)
        kept = passed or (math.isinf(self._max_drop) and not found.is_sound)
        return QuantisedNetwork(precision, found, kept, int8, None if overflow is None else str(overflow))

    def _trial_of(self, frames: NamedFrames) -> Trial:
        return Trial(self._manifest, frames, self._mask_iou, self._request.num_threads)


def _load_float32(path: Path) -> onnx.ModelProto:
    """Read the network that the others are made of."""
    if path.is_dir():
        raise CalibrationError(
            f"{path} is a folder; name the float32 network in it, such as {path / 'model.fp32.onnx'}"
        )
    try:
        model = onnx.load(path)
    except OSError as error:
        raise CalibrationError(f"cannot read the network {path}: {error.strerror or error}") from error
    except DecodeError:
        model = onnx.ModelProto()
    if not model.graph.input:
        raise CalibrationError(f"{path} is not an ONNX network")
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise CalibrationError(f"{path} is quantised already; name the float32 network that it was made of")
    return model


def _largest(calibration: Calibration) -> dict[str, float]:
    return {name: max(-found.low, found.high) for name, found in calibration.histograms.items()}
