"""Execution of the mask-IoU network of a YOLACT++ model: by the GPU's kernels, or by an inference library."""

from __future__ import annotations

import logging
import threading

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.ownership import close_after_failure
from yolact_runtime.backends import Backend, create_backend
from yolact_runtime.backends.onnxruntime import PROVIDERS, OnnxRuntimeBackend
from yolact_runtime.backends.tensorrt import TARGETS
from yolact_runtime.cpu.postprocess import MaskIou
from yolact_runtime.errors import BackendError, BackendUnavailableError
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.model.mask_iou_network import MaskIouNetwork, OtherNetworkError, read_mask_iou
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.network_outputs import OutputType, check_mask_iou_type, require_float

__all__ = ["MaskRescoring"]

_log = logging.getLogger(__name__)


class MaskRescoring:
    """The mask-IoU network of one model, which is loaded on first use. Thread-safe.

    Args:
        file: File of the network.
        backend_name: Name of the backend that runs the model's own network.
        num_threads: Number of CPU threads of a backend on the host; see
            :class:`yolact_runtime.segmenter.SegmenterOptions`.
        manifest: Manifest of the model.
    """

    def __init__(self, file: ModelFile | None, backend_name: str, num_threads: int, manifest: Manifest) -> None:
        self._file = file
        self._backend_name, self._num_threads, self._manifest = backend_name, num_threads, manifest
        self._lock = threading.Lock()
        self._backend: Backend | None = None
        self._network: MaskIouNetwork | None = None
        self._was_read = file is None

    @classmethod
    def of_backend(cls, backend: Backend, manifest: Manifest) -> MaskRescoring:
        """Wrap a network that is already open on the host; owned."""
        made = cls(None, "", 0, manifest)
        made._backend = backend
        return made

    @classmethod
    def of_network(cls, network: MaskIouNetwork, manifest: Manifest) -> MaskRescoring:
        """Wrap weights for the kernels, without a backend on the host."""
        made = cls(None, "", 0, manifest)
        made._network = network
        return made

    def again(self) -> MaskRescoring:
        """Return the same network for another segmenter, which closes only what it opens itself."""
        made = MaskRescoring(self._file, self._backend_name, self._num_threads, self._manifest)
        made._network, made._was_read = self._network, self._was_read
        return made

    def on_device(self) -> MaskIouNetwork | None:
        """Return the weights for the kernels; None for a network that they do not compute, which is logged once.

        Raises:
            BundleError: The file is not an ONNX model, or its weights are not finite.
            OutputError: The network has another number of classes than the model.
        """
        with self._lock:
            if not self._was_read:
                self._network = self._read()
                self._was_read = True
            return self._network

    def on_host(self) -> MaskIou:
        """Return the network in an inference library.

        Raises:
            BackendUnavailableError: No available library can run it.
            BackendError: The library rejects it, or its output does not match the model.
        """
        with self._lock:
            if self._backend is None:
                self._backend = self._open()
            return _rescorer(self._backend)

    def forget_file(self) -> None:
        """Free the file's bytes: everything that may be needed is open, because no kernels can run the network."""
        with self._lock:
            self._file, self._was_read = None, True

    def close(self) -> None:
        """Close everything that was opened."""
        with self._lock:
            backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _read(self) -> MaskIouNetwork | None:
        assert self._file is not None
        try:
            network = read_mask_iou(self._file)
        except OtherNetworkError as error:
            _log.warning(
                "%s. The GPU's kernels compute the published one only: this one is run by ONNX Runtime, which costs a "
                "download and a second wait for each frame",
                error,
            )
            return None
        check_mask_iou_type({"mask_iou": OutputType("float32", (None, network.num_classes))}, self._manifest)
        return network

    def _open(self) -> Backend:
        assert self._file is not None
        backend = self._on_some_backend(self._file)
        try:
            if isinstance(backend, OnnxRuntimeBackend):
                check_mask_iou_type(backend.outputs, self._manifest)
        except BaseException:
            close_after_failure(backend.close)
            raise
        return backend

    def _on_some_backend(self, file: ModelFile) -> Backend:
        """Open the network on the model's backend.

        Beside an engine on ONNX Runtime, because the number of masks varies.
        """
        if self._backend_name in PROVIDERS:
            # Not create_backend: on CUDA, too, its inputs and outputs are in host memory.
            return OnnxRuntimeBackend(file, self._backend_name, self._num_threads)
        if self._backend_name not in TARGETS:
            return create_backend(self._backend_name, file, self._num_threads)
        reasons = []
        for name in PROVIDERS:
            try:
                return OnnxRuntimeBackend(file, name, self._num_threads)
            except BackendUnavailableError as error:
                reasons.append(f"\n  {error}")
        raise BackendUnavailableError(
            f"{file.path.name} re-scores masks in ONNX Runtime if the GPU's kernels cannot, even beside an engine, and "
            f"ONNX Runtime is not available; install it, or disable re-scoring (--no-mask-rescoring, "
            f"SegmenterOptions(mask_rescoring=False)):{''.join(reasons)}"
        )


def _rescorer(backend: Backend) -> MaskIou:
    def predict(masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        outputs = backend.infer(masks)
        if len(outputs) != 1:
            raise BackendError(f"the mask-IoU network should have one output, found {', '.join(outputs)}")
        ((name, predicted),) = outputs.items()
        require_float(name, str(predicted.dtype))
        return predicted.astype(np.float32, copy=False)

    return predict
