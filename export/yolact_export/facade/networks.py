"""Networks of other precisions for a bundle that exists, made from its float32 network."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.labels.options import Labels
from yolact_calibration.precision.options import PrecisionOptions
from yolact_export.engine.bundle import WrittenEngine
from yolact_export.engine.options import EngineOptions
from yolact_export.errors import UsageError
from yolact_export.facade.engines import as_engine_options, write_engines
from yolact_export.facade.export import as_words, make_adder
from yolact_export.facade.packages import require_packages
from yolact_export.seal import SigningOptions, open_seal, without_reminder
from yolact_runtime.model.bundle import read_manifest
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from yolact_export.precision.existing_bundle import ExtendedBundle

__all__ = ["NetworksResult", "add_networks"]


@dataclass(frozen=True, eq=False)
class NetworksResult:
    """Result of :func:`add_networks`.

    Attributes:
        bundle: Folder of the bundle.
        manifest: Manifest of the bundle as it is now.
        extended: The networks, and the report on them.
        engines: The engines that were built.
        seconds: Duration of the work.
    """

    bundle: Path
    manifest: Manifest
    extended: ExtendedBundle
    engines: tuple[WrittenEngine, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every network lost no more accuracy than allowed."""
        return self.extended.precisions.passed

    def document(self) -> dict[str, Any]:
        """Return the JSON object that ``yolact-export BUNDLE --int8 --json`` writes."""
        return {
            "bundle": str(self.bundle),
            "manifest": json.loads(self.manifest.to_json()),
            "precision": self.extended.report,
            "removed": list(self.extended.removed),
            "engines": [engine.document() for engine in self.engines],
            "seconds": round(self.seconds, 2),
        }


def add_networks(
    bundle: Path | str,
    images: Sequence[Path | str] | Path | str,
    precision: PrecisionOptions,
    *,
    labels: Labels | None = None,
    bit_depth: int | None = None,
    engines: EngineOptions | Sequence[EngineOptions] = (),
    signing: SigningOptions | None = None,
    num_threads: int | None = None,
    command: str = "yolact_export.add_networks()",
    reporter: Reporter = SILENT,
) -> NetworksResult:
    """Add INT8 and float16 networks to a bundle, made from its float32 network; needs no checkpoint and no torch.

    The bundle is replaced in one step at the end; after an error nothing has changed.

    Args:
        bundle: Folder of the bundle.
        images: Folders, globs and files of images as the camera sees them, without labels.
        precision: The networks to add.
        labels: Labelled images to judge by; None judges by agreement with the float32 network.
        bit_depth: Significant bits of images with 16 bits per sample; None takes what the bundle or the images state.
        engines: TensorRT engines to build afterwards.
        signing: Keys of the signature; a signed bundle needs one.
        num_threads: CPU threads for measuring latency; None takes all.
        command: The call or command line that the report page shows.
        reporter: Receives progress and warnings.

    Returns:
        The bundle with its networks; one that lost too much accuracy is rejected, and the others stand, see
        :attr:`NetworksResult.passed`.

    Raises:
        BundleError: The bundle has no float32 network, is damaged, or was changed meanwhile.
        SelfTestError: The float32 network does not compute what the bundle states.
        DatasetError: Images or labels cannot be used.
        CalibrationError: No ranges follow from the images.
        UsageError: Options contradict each other.
        EngineBuildError: TensorRT refuses a network.
        SignatureError: The signature does not fit, or would be lost.
        MissingDependencyError: A package of the extra ``precision`` is not installed.

    Examples:
        >>> networks = PrecisionOptions(int8=True, target="cpu")  # doctest: +SKIP
        >>> add_networks("mine.bundle", "frames/", networks).passed  # doctest: +SKIP
        True
    """
    bundle, words = Path(bundle), as_words(images)
    if not words:
        raise UsageError("images: name a folder of images as the camera sees them, without labels")
    require_packages("yolact-export BUNDLE --int8", "precision", "onnx", "onnxruntime", "faster_coco_eval", "cv2")
    from yolact_export.precision.existing_bundle import ExistingBundle

    seal = open_seal(signing or SigningOptions(), bundle, reporter)
    started = time.monotonic()
    existing = ExistingBundle(bundle)
    with without_reminder():
        existing.require_sound(num_threads or 0)
    usual = existing.manifest.input.bit_depth
    adder = make_adder(
        precision, words, labels, bit_depth, usual, num_threads, command, reporter, existing.earlier_rows
    )
    if None not in (usual, bit_depth) and usual != bit_depth:
        reporter.warn(f"{bundle} states {usual} bits; it states {bit_depth} from now on, as requested")
    with seal.reported():
        extended = existing.extend(adder, bit_depth, seal.finish, reporter)
        written = write_engines(bundle, as_engine_options(engines), None, seal, reporter)
    return NetworksResult(bundle, read_manifest(bundle), extended, written, time.monotonic() - started)
