"""Histograms of the activations of a float network over images.

Memory does not depend on the number of images, and only a little on the number of tensors: see
:class:`~yolact_calibration.quantisation.segmented_network.SegmentedNetwork`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import CalibrationError, MissingDependencyError
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.segmented_network import SegmentedNetwork, image_input
from yolact_runtime.cpu.preprocess import preprocess
from yolact_runtime.model.manifest import InputSpec
from yolact_runtime.reporter import SILENT, Reporter

if TYPE_CHECKING:
    import onnx

__all__ = [
    "FrameSource",
    "ModelSource",
    "Observation",
    "all_histograms",
    "frame_digest",
    "load_model",
    "observe",
    "relu_inputs",
]

Frame = npt.NDArray[np.uint8]
ModelSource: TypeAlias = Union["onnx.ModelProto", bytes, Path]


class FrameSource(Protocol):
    """Sized iterable of frames with names, read one at a time; a list of pairs is one."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, Frame]]: ...


@dataclass(frozen=True, eq=False)
class Observation:
    """State of an observation.

    Attributes:
        histograms: Histograms by tensor; modified while an observation runs. A ReLU's output whose input is observed,
            too, is left out: its histogram is derived.
        digests: Result of :func:`frame_digest` for every frame that all histograms contain.
    """

    histograms: dict[str, Histogram]
    digests: set[str]


def frame_digest(frame: Frame) -> str:
    """Return the SHA-256 of a frame's shape and pixels, hexadecimal."""
    content = hashlib.sha256(repr(frame.shape).encode())
    content.update(np.ascontiguousarray(frame).data)
    return content.hexdigest()


def load_model(model: ModelSource) -> onnx.ModelProto:
    """Load the model from a file or bytes; a loaded one is returned unchanged.

    Raises:
        CalibrationError: The file or the bytes are not a model.
        MissingDependencyError: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError("onnx and onnxruntime", "Calibrating", "export") from error
    if isinstance(model, onnx.ModelProto):
        return model
    try:
        return onnx.load_model(model) if isinstance(model, Path) else onnx.load_model_from_string(model)
    except Exception as error:  # OSError, or an error of protobuf, which is not a declared dependency
        place = str(model) if isinstance(model, Path) else f"{len(model)} bytes"
        raise CalibrationError(f"cannot read an ONNX model from {place}: {error}; export it again") from error


def observe(
    model: ModelSource,
    tensors: Sequence[str],
    images: FrameSource,
    spec: InputSpec,
    *,
    num_threads: int = 1,
    reporter: Reporter = SILENT,
    begun: Observation | None = None,
    save: Callable[[Observation], None] | None = None,
    save_every_s: float = 30.0,
) -> dict[str, Histogram]:
    """Count the values of tensors over images.

    The counts do not depend on the order of the images; a frame whose pixels were seen before counts once. Complete
    frames are saved from time to time, at the end, and when an exception or an interruption ends the call.

    Args:
        model: Float network with one input, the image. A path needs the least memory: the loaded model is released as
            soon as ONNX Runtime has its own copy.
        tensors: Names of float32 activations, which may include the input.
        images: Frames as the camera delivers them.
        spec: Network input, for preprocessing as in the runtime.
        num_threads: Number of threads of ONNX Runtime and of the counting; 0 uses all.
        reporter: Reporter that shows the progress.
        begun: Observation that an earlier call saved for the same model, tensors and spec; it is continued in place.
        save: Function that saves an observation; called between images.
        save_every_s: Minimum interval between two calls of `save`, in seconds.

    Returns:
        The histogram of each tensor, in the order of `tensors`.

    Raises:
        CalibrationError: A tensor does not exist or is not float32, ONNX Runtime refuses the model, there is no image,
            or a tensor has values that are not finite.
        MissingDependencyError: onnx or ONNX Runtime is not installed.
    """
    loaded = load_model(model)
    derived = relu_inputs(loaded.graph, tensors)
    seen = begun or Observation({}, set())
    for name in tensors:
        if name not in derived:
            seen.histograms.setdefault(name, Histogram())
    counter = _Counter(loaded, spec, seen, num_threads)
    del loaded, model
    # A signal interrupts the main thread only: the frame in the worker is always finished, or has failed.
    with ThreadPoolExecutor(1) as worker:
        try:
            _observe_all(counter, worker, images, reporter, _Saver(save, save_every_s))
        except BaseException:
            worker.shutdown(wait=True)
            if save and not counter.broken:
                save(seen)
            raise
    if save:
        save(seen)
    return all_histograms(seen, tensors, derived)


class _Saver:
    """Caller of `save` at intervals."""

    def __init__(self, save: Callable[[Observation], None] | None, every_s: float) -> None:
        self._save = save
        self._every_s = every_s
        self._last = time.monotonic()

    def __call__(self, seen: Observation) -> None:
        if self._save and time.monotonic() - self._last >= self._every_s:
            self._save(seen)
            self._last = time.monotonic()


class _Counter:
    """Counter that adds the values that a network computes from frames to histograms.

    Attributes:
        seen: Observation that is extended.
        broken: Whether a frame is in some of the histograms but not in others.
    """

    def __init__(self, model: onnx.ModelProto, spec: InputSpec, seen: Observation, num_threads: int) -> None:
        self.seen = seen
        self.broken = False
        self._spec = spec
        self._feed = image_input(model.graph)
        inner = [name for name in seen.histograms if name != self._feed]
        self._network = SegmentedNetwork(model, inner, spec, num_threads)
        self._num_threads = num_threads

    def count(self, frame: Frame, digest: str) -> None:
        image = preprocess(frame, self._spec)
        self.broken = True
        # Each tensor has its own histogram, and NumPy counts without holding the interpreter's lock.
        with ThreadPoolExecutor(self._num_threads or os.cpu_count() or 1) as pool:

            def add(values: Mapping[str, npt.NDArray[np.float32]]) -> None:
                list(pool.map(lambda name: self.seen.histograms[name].add(values[name]), values))

            if self._feed in self.seen.histograms:
                add({self._feed: image})
            self._network.run(image, add)
        self.seen.digests.add(digest)
        self.broken = False


def _observe_all(
    counter: _Counter,
    worker: ThreadPoolExecutor,
    images: FrameSource,
    reporter: Reporter,
    saver: _Saver,
) -> None:
    for _, frame in reporter.progress(images, "calibration", len(images)):
        digest = frame_digest(frame)
        if digest not in counter.seen.digests:
            worker.submit(counter.count, frame, digest).result()
            saver(counter.seen)
    if not counter.seen.digests:
        raise CalibrationError("there are no images to calibrate with; give some")


def all_histograms(seen: Observation, tensors: Sequence[str], derived: Mapping[str, str]) -> dict[str, Histogram]:
    """Return the histogram of each tensor, including derived ones.

    Args:
        seen: Complete observation.
        tensors: Names of the tensors, in the order of the result.
        derived: Result of :func:`relu_inputs`.

    Raises:
        CalibrationError: A tensor has values that are not finite.
    """

    def find(name: str) -> Histogram:
        return find(derived[name]).relu() if name in derived else seen.histograms[name]

    found = {name: find(name) for name in tensors}
    bad = {name: histogram for name, histogram in found.items() if histogram.num_non_finite}
    if bad:
        name, histogram = next(iter(bad.items()))
        raise CalibrationError(
            f"{len(bad)} of {len(found)} tensors of the float network had infinite or NaN values, first of all "
            f'"{name}" ({histogram.num_non_finite} of {histogram.num_values} values over {len(seen.digests)} images); '
            f"such a network cannot be calibrated: check the checkpoint that it was exported from"
        )
    return found


def relu_inputs(graph: onnx.GraphProto, tensors: Sequence[str]) -> dict[str, str]:
    """Map the tensors that are ReLUs of other tensors in the list to their inputs.

    Their histograms can be derived, and need not be counted.
    """
    chosen = set(tensors)
    relus = (node for node in graph.node if node.op_type == "Relu" and not node.domain)
    return {node.output[0]: node.input[0] for node in relus if {node.output[0], node.input[0]} <= chosen}
