"""Float16 and INT8 networks beside the float32 one of a bundle: calibrated, searched, judged, refused if too bad."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx

from yolact_calibration.evaluation.judge import Judgement, Predictions
from yolact_calibration.float16.conversion import HalfModel
from yolact_calibration.precision.network_maker import NetworkMaker, PrecisionRequest, QuantisedNetwork
from yolact_calibration.quantisation.calibration_cache import Calibration
from yolact_calibration.quantisation.int8 import Int8Model
from yolact_export.bundle_writer import REJECTED_SUFFIX, encode_manifest
from yolact_export.graph.file import write_model
from yolact_runtime.model.manifest import METADATA_KEY, Manifest, NetworkDtypes
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["PrecisionRequest", "PrecisionResult", "Variant", "add_precisions", "network_name"]


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
    mask_iou = folder / "mask_iou.fp32.onnx"
    network = folder / network_name("fp32")
    maker = NetworkMaker(network, manifest, request, mask_iou if mask_iou.exists() else None, reporter)
    single = maker.single
    variants = [Variant("fp32", network, single.judgement, True, single.predictions, output_bytes=single.output_bytes)]
    for made in maker.make():
        found = made.candidate
        variants.append(
            Variant(
                made.precision,
                _write(folder, manifest, made),
                found.judgement,
                made.passed,
                found.predictions,
                made.int8,
                found.half,
                found.output_bytes,
                made.overflow,
                found.is_sound,
            )
        )
    return PrecisionResult(tuple(variants), maker.calibration, maker.measure, maker.max_drop)


def _write(folder: Path, manifest: Manifest, made: QuantisedNetwork) -> Path:
    name = network_name(made.precision)
    path = folder / (name if made.passed else name.removesuffix(".onnx") + REJECTED_SUFFIX)
    own = dataclasses.replace(
        manifest,
        precision=made.precision,
        dtypes=made.dtypes,
        provenance={**manifest.provenance, **made.provenance},
    )
    onnx.helper.set_model_props(made.model, {METADATA_KEY: encode_manifest(own)})
    write_model(made.model, path)
    return path
