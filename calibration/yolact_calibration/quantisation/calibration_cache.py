"""A calibration: what a network was seen to compute over images, kept so that no pass is made twice.

An entry holds histograms, not ranges: another method, percentile or kind of rounding takes no new pass. The same file
is the state of an unfinished pass: a call that was killed goes on where the file ends, with the same result.
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

# Of what the histograms mean: change it when the preprocessing or the bins change.
_FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What a network computed over images.

    Attributes:
        histograms: Of each tensor.
        num_images: Images seen.
        digest: :func:`calibration_key`: of all that the histograms depend on.
        image_digest: Of the images alone.
        seconds: That this call took.
        num_cached: Images whose values were known from an earlier call; all of them where no pass was made.
        warnings: Of the screening of the images, and of the cache; for people.
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
        """No pass was made."""
        return self.num_cached == self.num_images

    def document(self) -> dict[str, Any]:
        """For a report: everything but the histograms."""
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
    """The histograms of tensors over images: from the cache, or from a pass that then is in the cache.

    Args:
        model: Float network; as a path it takes the least memory.
        tensors: Names of float32 activations.
        images: Screened.
        spec: How the runtime feeds them.
        num_threads: CPU threads; 0 takes all.
        cache: Folder; None is :func:`cache_folder`.
        reporter: Shows how far the work is.
        save_every_s: An interrupted pass loses at most so many seconds, and an image.

    Raises:
        CalibrationError: See :func:`~yolact_calibration.quantisation.observer.observe`.
        DatasetError: The images are not the ones that were screened any more.
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
            raise DatasetError("images changed while the network looked at them; start again")
    else:
        histograms = all_histograms(begun, tensors, derived)
    seconds = time.monotonic() - started
    warnings = (*images.warnings, *entry.warnings)
    return Calibration(histograms, len(images), key, images.digest(), seconds, num_cached, warnings)


def calibration_key(model: onnx.ModelProto, tensors: Sequence[str], image_digest: str, spec: InputSpec) -> str:
    """SHA-256 of what histograms depend on, hexadecimal.

    That is the network without its metadata and names of its producer, the set of tensors, the set of images, how they
    are fed, and the version of this format; the version of ONNX Runtime is not, nor is the number of threads.
    """
    content = hashlib.sha256(f"calibration {_FORMAT}".encode())
    for part in (image_digest, repr(dataclasses.astuple(spec)), *sorted(set(tensors))):
        content.update(hashlib.sha256(part.encode()).digest())
    graph = model.graph
    # Item by item: the whole model as bytes would take its size once more in memory.
    nodes = [_without_metadata(node) for node in graph.node]
    for items in (model.opset_import, model.functions, graph.input, graph.output, nodes, graph.initializer):
        content.update(f"{len(items)} items".encode())
        for item in items:
            content.update(hashlib.sha256(item.SerializeToString(deterministic=True)).digest())
    return content.hexdigest()


def _without_metadata(node: onnx.NodeProto) -> onnx.NodeProto:
    """A copy without the part of the model that is written into it."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.ClearField("metadata_props")
    return copy


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/yolact-deploy/calibration``, by default below ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification, a relative path is to be ignored.
    base = Path(home) if Path(home).is_absolute() else home_folder() / ".cache"
    return base / "yolact-deploy" / "calibration"


class _Entry:
    """A file of the cache. What goes wrong with it becomes a warning: a calibration works without."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self.warnings: list[str] = []

    def read(self, tensors: Sequence[str]) -> Observation:
        """What the file holds of these tensors; an empty observation where there is none, or a damaged one."""
        try:
            found = read_observation(self._path, self._key)
        except CalibrationError as error:
            self.warnings.append(f"{error}; the images are looked at again")
            return Observation({}, set())
        if found is None or set(found.histograms) != set(tensors):
            return Observation({}, set())
        return found

    def write(self, seen: Observation) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_observation(self._path, self._key, seen)
        except OSError as error:
            text = f"cannot keep the calibration in {self._path}: {error.strerror or error}; the next run starts again"
            if text not in self.warnings:
                self.warnings.append(text)

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
