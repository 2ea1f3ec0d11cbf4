"""INT8 and float16 networks of a float32 network on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.errors import MissingDependencyError, UsageError
from yolact_calibration.labels.options import Labels
from yolact_calibration.precision.options import PrecisionOptions
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from yolact_calibration.precision.network_maker import QuantisedNetwork

__all__ = ["Quantised", "quantise"]


@dataclass(frozen=True, eq=False)
class Quantised:
    """Result of :func:`quantise`.

    Attributes:
        networks: The networks that were made, each with its judgement; those that lost too much are among them.
        measure: Readable name of the accuracy that was compared.
        max_drop: Points that a network may lose; infinity if there is no limit.
    """

    networks: tuple[QuantisedNetwork, ...]
    measure: str
    max_drop: float

    @property
    def passed(self) -> bool:
        """Whether every network lost no more accuracy than allowed."""
        return all(network.passed for network in self.networks)

    def document(self) -> dict[str, Any]:
        """Return a JSON object with the accuracy that each network lost, in points."""
        rows = [
            {
                "precision": network.precision,
                "passed": network.passed,
                "lost_points": network.judgement.worst if network.candidate.is_sound else None,
                "kept_float": [] if network.int8 is None else network.int8.kept_float(),
            }
            for network in self.networks
        ]
        limit = None if self.max_drop == float("inf") else self.max_drop
        return {"networks": rows, "measure": self.measure, "max_drop": limit}


def quantise(
    network: Path | str,
    manifest: Manifest,
    images: Sequence[Path | str] | Path | str,
    options: PrecisionOptions,
    *,
    labels: Labels | None = None,
    mask_iou: Path | str | None = None,
    bit_depth: int | None = None,
    num_threads: int = 0,
    reporter: Reporter = SILENT,
) -> Quantised:
    """Make INT8 and float16 networks of a float32 ONNX network, and judge what they lose.

    Nothing is written: the networks are in memory. ``yolact_export.add_networks`` puts them into a bundle.

    Args:
        network: File of the float32 network.
        manifest: Manifest of that network: its input, classes and priors.
        images: Folders, globs and files of images as the camera sees them, without labels.
        options: The networks to make.
        labels: Labelled images to judge by; None judges by agreement with the float32 network, on images that are held
            back.
        mask_iou: File of the mask-IoU network of a YOLACT++ model.
        bit_depth: Significant bits of images with 16 bits per sample; None takes what the manifest or the images state.
        num_threads: CPU threads; 0 takes all.
        reporter: Receives progress and warnings.

    Returns:
        The networks and their judgements.

    Raises:
        CalibrationError: The file is not a float32 network, or no ranges follow from the images.
        DatasetError: Images or labels cannot be used.
        UsageError: No images are given, or the bit depth is invalid.
        MissingDependencyError: A package of the extra ``precision`` is not installed.

    Examples:
        >>> from yolact_runtime import open_bundle
        >>> bundle = open_bundle("mine.bundle", precision="fp32")  # doctest: +SKIP
        >>> options = PrecisionOptions(int8=True)
        >>> made = quantise(bundle.network.path, bundle.manifest, "frames/", options)  # doctest: +SKIP
        >>> [(network.precision, network.judgement.worst) for network in made.networks]  # doctest: +SKIP
        [('int8-cpu', 0.31), ('int8', 0.27)]
    """
    try:
        from yolact_calibration.precision.network_maker import NetworkMaker
        from yolact_calibration.precision.precision_request import ImageSource, precision_request
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "quantise", "precision") from error
    words = (str(images),) if isinstance(images, Path | str) else tuple(map(str, images))
    if not words:
        raise UsageError("images: name a folder of images as the camera sees them, without labels")
    source = ImageSource(words, labels, bit_depth, manifest.input.bit_depth, num_threads)
    request = precision_request(options, source, reporter)
    maker = NetworkMaker(Path(network), manifest, request, None if mask_iou is None else Path(mask_iou), reporter)
    return Quantised(tuple(maker.make()), maker.measure, maker.max_drop)
