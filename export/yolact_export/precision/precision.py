"""Float16 and INT8 networks beside the float32 one of a bundle: calibrated, searched, judged, refused if too bad."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import onnx

from yolact_calibration.evaluation.accuracy import AccuracyMeter
from yolact_calibration.evaluation.judge import Judge, Judgement, Predictions
from yolact_calibration.float16.conversion import HalfModel, to_float16
from yolact_calibration.float16.magnitude import tensors_to_observe
from yolact_calibration.float16.overflow import find_overflow
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.quantisation.calibration_cache import Calibration, calibrate
from yolact_calibration.quantisation.calibration_images import CalibrationImages
from yolact_calibration.quantisation.int8 import Int8Model, Int8Options, make_int8
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq_placement import Dialect, quantisable_tensors
from yolact_calibration.quantisation.ranges import RangeMethod
from yolact_calibration.quantisation.trial import NamedFrames, Trial
from yolact_export.bundle_writer import REJECTED_SUFFIX, encode_manifest
from yolact_export.graph.file import write_model
from yolact_export.precision.candidate import Candidate, CandidateJudge
from yolact_export.precision.guard_images import GuardImages
from yolact_runtime.model.manifest import METADATA_KEY, Manifest, NetworkDtypes
from yolact_runtime.option_numbers import MAX_COUNT, MAX_THREADS, keep_between
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["PrecisionRequest", "PrecisionResult", "Variant", "add_precisions", "network_name"]

PRECISION_OF = {Dialect.TENSORRT: "int8", Dialect.CPU: "int8-cpu"}
"""Precision of an INT8 network, as bundles name it."""


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionRequest:
    """What to add to a bundle.

    Attributes:
        float16: A network in float16.
        dialects: INT8 networks, for whom.
        calibration: Images to take ranges from.
        guard: Images to judge by.
        method: How ranges are chosen.
        max_drop: Points that may be lost; None takes the judge's own limit. Infinity refuses nothing: a search still
            aims at the judge's limit.
        everything: Every convolution in INT8, without a search.
        num_sensitivity: Images to put the parts of the network in order with; 0: do not look at the parts.
        num_threads: CPU threads; 0 leaves the choice to ONNX Runtime.
        cache: Folder of calibrations; None: the user's cache folder.
        half_io: Networks for engines may have inputs and outputs in float16, where the judge allows it.

    Raises:
        UsageError: A field is no number of its kind, or out of its range; the message names it.
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
class Variant:
    """One network of a bundle.

    Attributes:
        precision: As bundles name it.
        path: Its file, in the staging folder.
        judgement: Against the float32 network; of that network itself, none lost.
        passed: It holds the limit.
        predictions: What it finds in the guard's images.
        int8: How it came about; None of floats.
        half: What stayed in float32 in it, and why its outputs did if they did; None without float16.
        output_bytes: Of all outputs of one frame.
        overflow: Where something in it is not finite, for people; None where that was not seen, or not looked for: it
            is looked for where the outputs are not finite, and where the network is rejected.
        is_sound: Its outputs are finite on all images. If not, its judgement is that of a network which finds nothing,
            and no figure to be shown.
    """

    precision: str
    path: Path
    judgement: Judgement
    passed: bool
    predictions: Predictions
    int8: Int8Model | None = None
    half: HalfModel | None = None
    output_bytes: int = 0
    overflow: str | None = None
    is_sound: bool = True

    @property
    def dtypes(self) -> NetworkDtypes:
        """Of its input and outputs."""
        return NetworkDtypes() if self.half is None else self.half.dtypes


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionResult:
    """All networks of a bundle.

    Attributes:
        variants: The float32 one first.
        calibration: What the ranges come from.
        measure: What accuracy is measured in, for people.
        max_drop: The limit, points; infinity where none was held.
    """

    variants: tuple[Variant, ...]
    calibration: Calibration
    measure: str
    max_drop: float

    @property
    def passed(self) -> bool:
        """Every network holds the limit."""
        return all(variant.passed for variant in self.variants)


def network_name(precision: str) -> str:
    """File name of a network in a bundle."""
    return f"model.{precision}.onnx"


def add_precisions(
    folder: Path, manifest: Manifest, request: PrecisionRequest, reporter: Reporter = SILENT
) -> PrecisionResult:
    """Write the networks that were asked for beside ``model.fp32.onnx``.

    A network that loses too much gets the ending ``.rejected`` and is kept, to be looked at.

    Args:
        folder: With the float32 network, and the mask-IoU network of a YOLACT++ model.
        manifest: Of the float32 network.
        request: What to add.
        reporter: Is told what is done, and how far it is.

    Raises:
        CalibrationError, DatasetError: The images do not serve; nothing of the bundle was changed.
    """
    return _Adder(folder, manifest, request, reporter).add()


class _Adder:
    def __init__(self, folder: Path, manifest: Manifest, request: PrecisionRequest, reporter: Reporter) -> None:
        self._folder = folder
        self._manifest = manifest
        self._request = request
        self._reporter = reporter
        self._model = onnx.load(folder / network_name("fp32"))
        self._class_names = manifest.class_names

    def add(self) -> PrecisionResult:
        request = self._request
        if request.guard.annotations is not None:
            # Labels that do not fit the model end an export before it has cost minutes.
            AccuracyMeter(request.guard.annotations, self._class_names)
        self._reporter.heading(f"calibrating on {len(request.calibration)} images ({request.method.value} ranges)")
        calibration = self._calibrate()
        self._largest = _largest(calibration)
        self._reporter.heading(f"judging by {request.guard.description}")
        trial = self._trial(request.guard)
        reference = trial.find(self._model, reporter=self._reporter, label="float32")
        judge = Judge(reference, self._class_names, request.guard.annotations)
        max_drop = judge.default_limit if request.max_drop is None else request.max_drop
        judge.require_visible(max_drop)
        aim = judge.default_limit if math.isinf(max_drop) else max_drop
        limit = f"at most {max_drop:g} points may be lost"
        self._reporter.say(f"  {judge.measure}; {limit if aim == max_drop else 'whatever is lost, all is kept'}")
        single = Candidate(self._model, None, reference, judge.reference, True)
        path = self._folder / network_name("fp32")
        variants = [Variant("fp32", path, judge.reference, True, reference, output_bytes=single.output_bytes)]
        examiner = CandidateJudge(trial, judge, aim, request.half_io)
        if request.float16:
            found = self._examine_in_half("fp16", self._model, examiner)
            variants.append(self._keep("fp16", found, max_drop, None))
        for dialect in request.dialects:
            int8 = self._make_int8(dialect, calibration, trial, judge, aim)
            variants.append(self._add_int8(int8, examiner, max_drop))
        return PrecisionResult(tuple(variants), calibration, judge.measure, max_drop)

    def _calibrate(self) -> Calibration:
        self._quantisable = quantisable_tensors(NetworkGraph(self._model))
        calibration = calibrate(
            self._folder / network_name("fp32"),
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

    def _make_int8(
        self, dialect: Dialect, calibration: Calibration, trial: Trial, judge: Judge, aim: float
    ) -> Int8Model:
        request = self._request
        self._reporter.heading(f"searching a plan for {PRECISION_OF[dialect]}")
        few = request.guard.first(request.num_sensitivity)
        small = self._trial(few) if len(few) else None
        return make_int8(
            self._model,
            {name: calibration.histograms[name] for name in self._quantisable},
            Int8Options(dialect, request.method, aim, request.everything, request.num_threads),
            trial,
            judge,
            small,
            small.find(self._model) if small is not None else {},
            self._class_names,
            lambda model: model if dialect is Dialect.CPU else simulate_float16(to_float16(model, self._largest).model),
            self._reporter,
        )

    def _add_int8(self, int8: Int8Model, examiner: CandidateJudge, max_drop: float) -> Variant:
        precision = PRECISION_OF[int8.dialect]
        if int8.dialect is Dialect.CPU:
            found = examiner.examine(int8.model, None, precision, self._reporter)
        else:
            # What is judged is what is written: with the remainder in float16, where it will be.
            found = self._examine_in_half(precision, int8.model, examiner)
        return self._keep(precision, found, max_drop, int8)

    def _examine_in_half(self, precision: str, model: onnx.ModelProto, examiner: CandidateJudge) -> Candidate:
        found = examiner.examine_in_half(model, self._largest, precision, self._reporter)
        if found.half is not None and found.half.float32_outputs is not None:
            self._reporter.say(f"  the outputs of {precision} stay in float32: {found.half.float32_outputs}")
        return found

    def _keep(self, precision: str, found: Candidate, max_drop: float, int8: Int8Model | None) -> Variant:
        """Write a network, as rejected where it is."""
        passed = found.holds(max_drop) and (int8 is None or int8.num_int8 > 0)
        overflow = None
        if found.half is not None and not passed:
            overflow = find_overflow(found.model, self._request.guard, self._manifest.input, self._request.num_threads)
        kept = passed or (math.isinf(max_drop) and not found.is_sound)
        return Variant(
            precision,
            self._write(precision, found, kept, int8),
            found.judgement,
            kept,
            found.predictions,
            int8,
            found.half,
            found.output_bytes,
            None if overflow is None else str(overflow),
            found.is_sound,
        )

    def _write(self, precision: str, found: Candidate, passed: bool, int8: Int8Model | None) -> Path:
        name = network_name(precision)
        path = self._folder / (name if passed else name.removesuffix(".onnx") + REJECTED_SUFFIX)
        made = {} if int8 is None else {"int8_parts": ", ".join(int8.search.int8)}
        half = found.half
        if half is not None and half.float32_outputs is not None:
            made["float32_outputs"] = half.float32_outputs
        manifest = dataclasses.replace(
            self._manifest,
            precision=precision,
            dtypes=found.dtypes,
            provenance={**self._manifest.provenance, **made},
        )
        onnx.helper.set_model_props(found.model, {METADATA_KEY: encode_manifest(manifest)})
        write_model(found.model, path)
        return path

    def _trial(self, frames: NamedFrames) -> Trial:
        mask_iou = self._folder / "mask_iou.fp32.onnx"
        return Trial(self._manifest, frames, mask_iou if mask_iou.exists() else None, self._request.num_threads)


def _largest(calibration: Calibration) -> dict[str, float]:
    return {name: max(-found.low, found.high) for name, found in calibration.histograms.items()}
