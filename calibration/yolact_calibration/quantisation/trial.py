"""Trials of graphs in memory: the runtime's own pipeline runs them over images, to compare their detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from yolact_calibration.errors import CalibrationError
from yolact_calibration.evaluation.judge import Predictions
from yolact_runtime.backends import create_backend
from yolact_runtime.backends.base import Backend
from yolact_runtime.backends.onnxruntime_session import (
    SessionSettings,
    import_onnxruntime,
    open_cpu_session,
    single_feed,
)
from yolact_runtime.errors import BackendError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.reporter import SILENT, Reporter
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

__all__ = ["GraphBackend", "NamedFrames", "Trial"]


class NamedFrames(Protocol):
    """Sized iterable of named images, read one at a time, identical in every iteration."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]: ...


class GraphBackend:
    """A graph in memory on ONNX Runtime's CPU provider; a :class:`yolact_runtime.backends.Backend`.

    Args:
        model: Serialised ONNX model.
        num_threads: Number of CPU threads; 0 leaves the choice to ONNX Runtime.
        simulate: If True, compute every operator in float between the roundings, as the graph says, instead of using
            ONNX Runtime's integer kernels. This is closer to what TensorRT computes.

    Raises:
        CalibrationError: ONNX Runtime refuses the graph.
    """

    name = "onnxruntime-cpu"

    def __init__(self, model: bytes, num_threads: int = 0, simulate: bool = False) -> None:
        runtime = import_onnxruntime()
        try:
            self._session: Any = open_cpu_session(model, SessionSettings(num_threads, fuses_qdq=not simulate))
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            raise CalibrationError(f"ONNX Runtime {runtime.__version__} refuses the graph: {error}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the graph on a preprocessed image ``(1, 3, H, W)`` float32; the caller owns the outputs."""
        found = self._session.run(self._outputs, single_feed(self._session, tensor))
        return dict(zip(self._outputs, found, strict=True))

    def close(self) -> None:
        """Release the session."""
        self._session = None


class Trial:
    """Set of images on which networks are tried.

    Args:
        manifest: Manifest of the float model, with the input and output formats that all candidates share.
        frames: Images to run the networks on.
        mask_iou: File of the float mask-IoU network (YOLACT++), or None.
        num_threads: Number of CPU threads; 0 leaves the choice to ONNX Runtime.
    """

    def __init__(
        self, manifest: Manifest, frames: NamedFrames, mask_iou: Path | None = None, num_threads: int = 0
    ) -> None:
        self._manifest = manifest
        self._frames = frames
        self._mask_iou = mask_iou
        self._num_threads = num_threads

    def find(
        self,
        model: onnx.ModelProto,
        *,
        simulate: bool = False,
        reporter: Reporter = SILENT,
        label: str = "images",
    ) -> Predictions:
        """Run a network on the images and return all instances.

        Args:
            model: Candidate network.
            simulate: If True, compute operators in float between the roundings; see :class:`GraphBackend`.
            reporter: Reporter that shows the progress.
            label: Name of the work for the reporter.

        Raises:
            BackendError: An output of the network contains NaN or infinity.
            CalibrationError: ONNX Runtime refuses the graph.
        """
        network = GraphBackend(model.SerializeToString(), self._num_threads, simulate)
        found = {}
        with self._segmenter(network) as segmenter:
            for name, frame in reporter.progress(self._frames, label, len(self._frames)):
                found[name] = segmenter(frame)
        return found

    def find_if_sound(
        self,
        model: onnx.ModelProto,
        *,
        simulate: bool = False,
        reporter: Reporter = SILENT,
        label: str = "images",
    ) -> Predictions:
        """Run a network as :meth:`find` does; one with NaN or infinite outputs counts as finding nothing in any image.

        A lower precision may overflow on an image that the calibration did not include. The judge has to see that such
        a network is useless, but it is not a reason to end the export of the others.
        """
        try:
            return self.find(model, simulate=simulate, reporter=reporter, label=label)
        except BackendError:
            return self.find_nothing()

    def find_nothing(self) -> Predictions:
        """Return empty instances for every image, as the result of a network without usable outputs."""
        return {name: _nothing(*frame.shape[:2]) for name, frame in self._frames}

    def _segmenter(self, network: Backend) -> Segmenter:
        mask_iou = None
        if self._mask_iou is not None:
            mask_iou = create_backend("onnxruntime-cpu", self._mask_iou, self._num_threads)
        return Segmenter(self._manifest, network, mask_iou, SegmenterOptions(num_threads=self._num_threads))


def _nothing(height: int, width: int) -> Instances:
    no_number, no_class = np.zeros(0, np.float32), np.zeros(0, np.int32)
    return Instances(np.zeros((0, 4), np.float32), Masks.empty(0, height, width), no_number, no_class)
