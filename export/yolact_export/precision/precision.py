"""Float16 and INT8 networks for a bundle: calibrated, searched, judged, and rejected if they lose too much."""

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
    """Network of a bundle.

    Attributes:
        precision: Precision, by its name in bundles.
        path: File of the network in the staging folder.
        judgement: Comparison with the float32 network; for that network itself, without loss.
        passed: Whether it is within the limit.
        predictions: Instances that it finds in the guard's images.
        int8: INT8 network with its search; None for float networks.
        half: Result of the conversion to float16, with the layers and outputs that stayed in float32; None without
            float16.
        output_bytes: Size of all outputs of one frame in bytes.
        overflow: Readable description of its first values that are not finite; None if none were found, or not searched
            for: the search runs if the outputs are not finite, or the network is rejected.
        is_sound: Whether its outputs are finite on all images. If not, its judgement is that of a network that finds
            nothing, and must not be shown.
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
        """Types of its input and outputs."""
        return NetworkDtypes() if self.half is None else self.half.dtypes


@dataclasses.dataclass(frozen=True, eq=False)
class PrecisionResult:
    """Result with all networks of a bundle.

    Attributes:
        variants: Networks, the float32 one first.
        calibration: Calibration that the ranges are derived from.
        measure: Readable name of the unit of accuracy.
        max_drop: Limit in points; infinity if there was none.
    """

    variants: tuple[Variant, ...]
    calibration: Calibration
    measure: str
    max_drop: float

    @property
    def passed(self) -> bool:
        """Whether every network is within the limit."""
        return all(variant.passed for variant in self.variants)


def network_name(precision: str) -> str:
    """Return the file name of a network in a bundle."""
    return f"model.{precision}.onnx"


def add_precisions(
    folder: Path, manifest: Manifest, request: PrecisionRequest, reporter: Reporter = SILENT
) -> PrecisionResult:
    """Write the requested networks beside ``model.fp32.onnx``.

    A network that loses too much gets the ending ``.rejected`` and is kept for inspection.

    Args:
        folder: Folder with the float32 network, and the mask-IoU network of a YOLACT++ model.
        manifest: Manifest of the float32 network.
        request: Networks to add.
        reporter: Reporter that receives the steps, and shows their progress.

    Raises:
        CalibrationError, DatasetError: The images are not usable; the bundle is not modified.
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
