"""Calibrations and their cache: histograms of a network's activations over images, kept so that no pass is repeated.

An entry contains histograms, not ranges: another method, percentile or rounding needs no new pass. The same file is the
state of an unfinished pass: after an interruption the next call continues from it, with the same result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.errors import CalibrationError, DatasetError
from yolact_calibration.quantisation.calibration_images import CalibrationImages
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.observation_file import read_observation, write_observation
from yolact_calibration.quantisation.observer import (
    ModelSource,
    Observation,
    all_histograms,
    load_model,
    observe,
    relu_inputs,
)
from yolact_plugins.trusted_files import home_folder
from yolact_runtime.model.manifest import InputSpec
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    import onnx

__all__ = ["Calibration", "cache_folder", "calibrate", "calibration_key"]

# Version of the meaning of the histograms: change it when the preprocessing or the bins change.
_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Histograms of a network's activations over images.

    Attributes:
        histograms: Histogram of each tensor.
        num_images: Number of images.
        digest: Result of :func:`calibration_key`, which identifies everything that the histograms depend on.
        image_digest: Digest of the images alone.
        seconds: Duration of this call in seconds.
        num_cached: Number of images whose values were known from an earlier call; all of them if no pass was made.
        warnings: Readable warnings about the images and the cache.
    """

    histograms: Mapping[str, Histogram]
    num_images: int
    digest: str
    image_digest: str
    seconds: float
    num_cached: int
    warnings: tuple[str, ...]

    @property
    def from_cache(self) -> bool:
        """Whether the cache had everything, so that no pass was made."""
        return self.num_cached == self.num_images

    def document(self) -> dict[str, Any]:
        """Return a JSON object for a report: everything but the histograms."""
        facts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del facts["histograms"]
        return facts | {
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "from_cache": self.from_cache,
        }


def calibrate(
    model: ModelSource,
    tensors: Sequence[str],
    images: CalibrationImages,
    spec: InputSpec,
    *,
    num_threads: int = 1,
    cache: Path | None = None,
    reporter: Reporter = SILENT,
    save_every_s: float = 30.0,
) -> Calibration:
    """Return the histograms of tensors over images, from the cache or from a pass whose result is then cached.

    Args:
        model: Float network; a path needs the least memory.
        tensors: Names of float32 activations.
        images: Images that were screened.
        spec: Network input, for preprocessing as in the runtime.
        num_threads: Number of CPU threads; 0 uses all.
        cache: Cache folder; None is :func:`cache_folder`.
        reporter: Reporter that shows the progress.
        save_every_s: Minimum interval between saves in seconds; an interrupted pass loses this much work and one image.

    Raises:
        CalibrationError: The pass failed; see :func:`~yolact_calibration.quantisation.observer.observe`.
        DatasetError: The images changed after they were screened.
        MissingDependencyError: onnx or ONNX Runtime is not installed.
    """
    started = time.monotonic()
    loaded = load_model(model)
    key = calibration_key(loaded, tensors, images.digest(), spec)
    derived = relu_inputs(loaded.graph, tensors)
    del loaded
    entry = _Entry((cache or cache_folder()) / f"{key}.npz", key)
    begun = entry.read([name for name in tensors if name not in derived])
    num_cached = len(begun.digests)
    if num_cached < len(images):
        histograms = observe(
            model,
            tensors,
            images,
            spec,
            num_threads=num_threads,
            reporter=reporter,
            begun=begun,
            save=entry.write,
            save_every_s=save_every_s,
        )
        if begun.digests != {image.digest for image in images.images}:
            entry.discard()
            raise DatasetError("images changed during the calibration; run it again")
    else:
        histograms = all_histograms(begun, tensors, derived)
    seconds = time.monotonic() - started
    warnings = (*images.warnings, *entry.warnings)
    return Calibration(histograms, len(images), key, images.digest(), seconds, num_cached, warnings)


def calibration_key(model: onnx.ModelProto, tensors: Sequence[str], image_digest: str, spec: InputSpec) -> str:
    """Return the SHA-256 of everything that histograms depend on, hexadecimal.

    That is the network without its metadata and producer, the set of tensors, the set of images, the input
    specification, and the version of this format, but not the version of ONNX Runtime or the number of threads.
    """
    content = hashlib.sha256(f"calibration {_FORMAT}".encode())
    for part in (image_digest, repr(dataclasses.astuple(spec)), *sorted(set(tensors))):
        content.update(hashlib.sha256(part.encode()).digest())
    graph = model.graph
    # Item by item, because serialising the whole model would double its memory.
    nodes = [_without_metadata(node) for node in graph.node]
    for items in (model.opset_import, model.functions, graph.input, graph.output, nodes, graph.initializer):
        content.update(f"{len(items)} items".encode())
        for item in items:
            content.update(hashlib.sha256(item.SerializeToString(deterministic=True)).digest())
    return content.hexdigest()


def _without_metadata(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy without metadata, which names the node's part of the model."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.ClearField("metadata_props")
    return copy


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/yolact-deploy/calibration``, by default below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification, a relative path is to be ignored.
    base = Path(home) if Path(home).is_absolute() else home_folder() / ".cache"
    return base / "yolact-deploy" / "calibration"


class _Entry:
    """File of the cache. Its errors become warnings, because a calibration works without a cache."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self.warnings: list[str] = []

    def read(self, tensors: Sequence[str]) -> Observation:
        """Read the observation of these tensors; it is empty if the file is missing or damaged."""
        try:
            found = read_observation(self._path, self._key)
        except CalibrationError as error:
            self.warnings.append(f"{error}; the calibration starts again")
            return Observation({}, set())
        if found is None or set(found.histograms) != set(tensors):
            return Observation({}, set())
        return found

    def write(self, seen: Observation) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_observation(self._path, self._key, seen)
        except OSError as error:
            text = f"cannot save the calibration in {self._path}: {error.strerror or error}; the next run starts again"
            if text not in self.warnings:
                self.warnings.append(text)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
