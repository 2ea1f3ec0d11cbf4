"""A model of any kind, opened for measuring: a network of a bundle, an ``.onnx`` file, an engine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.measure.device_timer import DeviceModel
from yolact_benchmarks.measure.host_timer import HostModel
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.measure.stages import FrameTimer, FrameTimes, Stage
from yolact_runtime.backends import BACKENDS
from yolact_runtime.backends.tensorrt import TARGETS
from yolact_runtime.errors import BundleError, UsageError
from yolact_runtime.model.bundle import (
    CPU_PRECISIONS,
    CUDA_PRECISIONS,
    ENGINE_ROLE,
    NETWORK_ROLE,
    Bundle,
    open_bundle,
    read_manifest,
)
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import Segmenter

__all__ = ["OpenedModel", "WholeTimer", "choose_precisions", "open_model", "open_same_bundle"]


class WholeTimer:
    """A :class:`~yolact_benchmarks.measure.stages.FrameTimer` of any segmenter: whole frames without stages."""

    stages: tuple[Stage, ...] = ()

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def time(self, frame: npt.NDArray[np.uint8]) -> FrameTimes:
        """Run one frame and return its time."""
        begun = time.perf_counter()
        instances = self.segmenter(frame)
        return FrameTimes((time.perf_counter() - begun) * 1e3, {}, len(instances))


@dataclasses.dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model opened on a backend. Call :meth:`close` at the end.

    Attributes:
        path: Path that the user named.
        file: Path of the network's file.
        precision: Precision of the network.
        backend: Name of the backend.
        manifest: Manifest of the network.
        source: Source of timers: a :class:`HostModel`, a :class:`DeviceModel`, or a segmenter that is timed as a whole.
        signature: Entries about the model's signature for a record.
    """

    path: Path
    file: Path
    precision: str
    backend: str
    manifest: Manifest
    source: HostModel | DeviceModel | Segmenter
    signature: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def timer(self, num_instances: int | None = None) -> FrameTimer:
        """Create a timer of frames.

        Args:
            num_instances: Number of instances in every frame; None keeps what the network finds.

        Raises:
            UsageError: This number of instances cannot be planted in the outputs of the model.
        """
        if isinstance(self.source, HostModel | DeviceModel):
            return self.source.timer(num_instances)
        if num_instances is not None:
            raise UsageError(
                f"--instances: {self.backend} does not expose its outputs, so a number of instances cannot be planted; "
                f"measure what it finds: --instances found"
            )
        return WholeTimer(self.source)

    @property
    def postprocessing(self) -> str:
        """Processor of preprocessing and post-processing, ``"gpu"`` or ``"cpu"``."""
        if isinstance(self.source, Segmenter):
            return self.source.postprocessing
        return "gpu" if isinstance(self.source, DeviceModel) else "cpu"

    def document(self) -> dict[str, Any]:
        """Return the model's entry in a record, a JSON object."""
        return {
            "name": self.manifest.name,
            "precision": self.precision,
            "backend": self.backend,
            "postprocessing": self.postprocessing,
            "file": self.file.name,
            "size_bytes": self.file.stat().st_size,
            **self.signature,
            "input": [self.manifest.input.width, self.manifest.input.height],
        }

    def close(self) -> None:
        """Close the model. May be called again."""
        self.source.close()


def open_model(request: BenchRequest, backend: str, precision: str | None) -> OpenedModel:
    """Open the model of a run as the runtime would, and determine its kind.

    Args:
        request: Request of the run.
        backend: Name of the backend, or ``"auto"``.
        precision: Precision to open of a bundle folder; None takes the one that suits the backend best.

    Raises:
        YolactError: The model cannot be opened, as in :meth:`yolact_runtime.segmenter.Segmenter.open`.
    """
    path, options = request.model, request.options
    with ExitStack() as stack:
        segmenter = stack.enter_context(request.open_segmenter(path, backend, options, precision))
        manifest, name, file = segmenter.manifest, segmenter.backend_name, segmenter.network_file
        signature = request.signature(path, segmenter)
        if segmenter.postprocessing == "gpu":
            source: DeviceModel | Segmenter = DeviceModel(segmenter)
            stack.pop_all()
            return OpenedModel(path, file or path, manifest.precision, name, manifest, source, signature)
        if name not in BACKENDS or name in TARGETS:
            stack.pop_all()
            return OpenedModel(path, file or path, manifest.precision, name, manifest, segmenter, signature)
    bundle = open_same_bundle(request, path, manifest.precision if path.is_dir() else None, manifest)
    host = HostModel(bundle, name, options)
    return OpenedModel(path, bundle.network.path, manifest.precision, name, manifest, host, signature)


def open_same_bundle(request: BenchRequest, path: Path, precision: str | None, manifest: Manifest) -> Bundle:
    """Open the bundle of a segmenter a second time, with the same keys, and check that its files are the same.

    Args:
        request: Request of the run.
        path: Bundle folder or ``.onnx`` file.
        precision: Precision to open of a bundle folder.
        manifest: Manifest of the segmenter.

    Raises:
        BundleError: The bundle was changed in the meantime, or has no network of this precision.
        SignatureError: The signature is invalid, as in :func:`~yolact_runtime.model.bundle.open_bundle`.
    """
    bundle = open_bundle(path, precision, verify_key=request.verify_keys or None)
    if bundle.manifest.artefacts != manifest.artefacts:
        raise BundleError(f"{path} was changed while it was opened: start again")
    return bundle


def choose_precisions(path: Path, asked: Sequence[str], backend: str) -> tuple[list[str | None], list[str]]:
    """Return the precisions to measure, and messages about those that are left out.

    Args:
        path: Path of the model.
        asked: Requested precisions; ``"all"`` stands for those that the backend runs well. If empty, the result is None
            alone: the precision that suits the backend best.
        backend: Name of the backend, not ``"auto"``.

    Raises:
        UsageError: Precisions were requested of a file, which has only one.
    """
    if not asked:
        return [None], []
    if not path.is_dir():
        raise UsageError(f"--precision chooses among the networks of a bundle folder; {path} is a file and has one")
    if "all" not in asked:
        return list(dict.fromkeys(asked)), []
    manifest = read_manifest(path)
    if backend in TARGETS:
        target = TARGETS[backend]
        built = [a for a in manifest.artefacts.values() if a.role == ENGINE_ROLE]
        ours = {a.precision for a in built if a.build.get("target", "tensorrt") == target}
        return [name for name in ("fp32", "fp16", "int8") if name in ours], []
    there = [
        artefact.precision
        for name, artefact in manifest.artefacts.items()
        if artefact.role == NETWORK_ROLE and name.endswith(".onnx")
    ]
    good = CUDA_PRECISIONS if "cuda" in backend else CPU_PRECISIONS
    order = {"fp32": 0}
    chosen: list[str | None] = [*sorted((p for p in there if p in good), key=lambda p: (order.get(p, 1), p))]
    left = [p for p in there if p not in good]
    if not left:
        return chosen, []
    return chosen, [f"left out: {', '.join(left)}, which {backend} does not run well; name them to measure them"]
