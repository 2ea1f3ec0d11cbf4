"""Request of a run of ``yolact-bench``: the model, the frames, and the measurements to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolact_benchmarks.measure.measurement import MAX_S, Plan
from yolact_calibration.labels.options import FileRules
from yolact_calibration.shapes.scene import MAX_SIDE_PX, MIN_SIDE_PX
from yolact_runtime.commands.signature_options import signature_document
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.media.image_reader import ImageReader, reader_for_model
from yolact_runtime.model.bundle import read_manifest
from yolact_runtime.option_numbers import MAX_INSTANCES, MAX_THREADS, check_between, keep_between, keep_numbers
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["CAMERA", "MAX_PROCESSES", "SYNTHETIC", "BenchRequest", "BenchmarkOptions"]

SYNTHETIC, CAMERA = "synthetic", "camera"
"""Values of ``--images`` that stand for drawn frames and for a camera."""
MAX_PROCESSES = 1000
"""Maximum number of fresh processes, one after the other; each opens the model again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Settings of a benchmark; its other arguments name the model, the frames, and what the accuracy is measured with.

    Attributes:
        num_processes: New processes that share the time, one after the other; 1 measures in this process.
        num_threads: CPU threads; 0 leaves the number to the backend.
        min_confidence: Score threshold while speed is measured.
        num_cold_starts: New processes of each network that measure the time to the first result; 0 measures none.
        streaming_s: Seconds of streaming, all processes together; 0 does not stream.
        with_pictures: If True, draw the detections of two networks in the same pictures, for the HTML report.
        with_layers: If True, profile the networks by part of the model.
        with_peers: If True, measure other tools too, interleaved with the model.
        checkpoint: The checkpoint of the model, for peers that run in PyTorch.
        rules: Treatment of annotated images that are missing or outside of their folder.
        bit_depth: Significant bits of images with 16 bits per sample; None takes what the images or the model state.
        verify_keys: Public keys, one of which must have signed every bundle that is opened; empty takes those that the
            environment names.
        trust_engine: If True, the model is an engine without its bundle, which the caller trusts.

    Raises:
        UsageError: A field is out of its range, or not a number; the message names it.
    """

    num_processes: int = 5
    num_threads: int = 0
    min_confidence: float = 0.3
    num_cold_starts: int = 3
    streaming_s: float = 3.0
    with_pictures: bool = False
    with_layers: bool = False
    with_peers: bool = False
    checkpoint: Path | None = None
    rules: FileRules = dataclasses.field(default_factory=FileRules)
    bit_depth: int | None = None
    verify_keys: tuple[Path, ...] = ()
    trust_engine: bool = False

    def __post_init__(self) -> None:
        keep_between(
            self,
            {
                "num_processes": (1, MAX_PROCESSES),
                "num_threads": (0, MAX_THREADS),
                "num_cold_starts": (0, MAX_PROCESSES),
            },
            {"min_confidence": (0, 1), "streaming_s": (0, MAX_S)},
        )
        keep_numbers(self, ("bit_depth",))
        check_bit_depth(self.bit_depth)


@dataclasses.dataclass(frozen=True)
class BenchRequest(BenchmarkOptions):
    """Model, frames and measurements of a benchmark.

    Attributes:
        model: Bundle folder, ``.onnx`` file or engine.
        images: Folders, files and globs of images, or ``("synthetic",)``, or ``("camera:1",)``.
        instances: Numbers of instances to plant in every frame; None keeps what the network finds.
        sizes: Sizes of drawn frames, (width, height) in pixels.
        plan: Duration of the measurement, over all processes together.
        precisions: Precisions of a bundle; ``"all"`` stands for those that the backend runs well. If empty, the one
            that suits the backend best is measured.
        backend: Name of the backend, or ``"auto"``.
        annotations: File of labels to measure the accuracy with, or None.
        against: Model to measure the agreement with, or None.

    Raises:
        UsageError: A field is out of its range, or not a number; the message names it.
    """

    model: Path
    images: tuple[str, ...] = (SYNTHETIC,)
    instances: tuple[int | None, ...] = (1, 10, 100)
    sizes: tuple[tuple[int, int], ...] = ((1280, 720), (1920, 1080))
    plan: Plan = dataclasses.field(default_factory=Plan)
    precisions: tuple[str, ...] = ()
    backend: str = "auto"
    annotations: Path | None = None
    against: Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for count in self.instances:
            check_between("instances", count, 0, MAX_INSTANCES)
        for size in self.sizes:
            for side in size:
                check_between("sizes", side, MIN_SIDE_PX, MAX_SIDE_PX)

    def open_segmenter(self, path: Path, backend: str, options: SegmenterOptions, precision: str | None) -> Segmenter:
        """Open the model, or one to compare it with, with the keys of this run.

        Args:
            path: Bundle folder or file.
            backend: Name of the backend, or ``"auto"``.
            options: Options of the segmenter.
            precision: Precision to open of a bundle folder; None takes the one that suits the backend best.

        Raises:
            YolactError: The model cannot be opened, as in :meth:`yolact_runtime.segmenter.Segmenter.open`.
        """
        keys, trusted = self.verify_keys or None, self.trust_engine and path == self.model
        return Segmenter.open(path, backend, options, precision, verify_key=keys, trust_engine=trusted)

    def signature(self, path: Path, segmenter: Segmenter) -> dict[str, str]:
        """Return a record's entries about the signature of a model that a segmenter opened, a JSON object."""
        return signature_document(path, segmenter, self.trust_engine and path == self.model)

    def reader(self, warn: Callable[[str], None] | None = None) -> ImageReader:
        """Create a reader of the images, which converts them as the model expects.

        Args:
            warn: Function that receives warnings, as in :class:`~yolact_runtime.media.image_reader.ImageReader`.
        """
        if not self.model.is_dir():
            return ImageReader(self.bit_depth, None, warn)
        return reader_for_model(self.bit_depth, read_manifest(self.model), warn or (lambda _: None))

    @property
    def options(self) -> SegmenterOptions:
        """Options of the segmenters whose speed is measured."""
        return SegmenterOptions(min_confidence=self.min_confidence, num_threads=self.num_threads)

    @property
    def is_synthetic(self) -> bool:
        """Whether the frames are drawn."""
        return self.images == (SYNTHETIC,)

    @property
    def is_live(self) -> bool:
        """Whether the frames are drawn or from a camera, so that there are no files."""
        word = self.images[0].partition(":")[0]
        return word in {SYNTHETIC, CAMERA} and not Path(self.images[0]).exists()

    def settings(self) -> dict[str, Any]:
        """Return the settings of a record, a JSON object."""
        return {
            "images": " ".join(self.images),
            "instances": ["found" if count is None else count for count in self.instances],
            "sizes": [f"{width}x{height}" for width, height in self.sizes] if self.is_synthetic else None,
            "duration_s": self.plan.duration_s,
            "until_ci": self.plan.until_ci,
            "warm_up_s": self.plan.warm_up_s,
            "processes": self.num_processes,
            "min_confidence": self.min_confidence,
            **({} if self.bit_depth is None else {"bit_depth": self.bit_depth}),
            "threads": self.num_threads,
            "frame_clock": "perf_counter, frame in host memory to instances in host memory",
        }
