"""ONNX Runtime on CUDA, with inputs and outputs that stay on the GPU.

A session has one stream, its provider's ``user_compute_stream``, and one copy of the weights. Frames in flight share
both: each waits, on the GPU, for its turn in the session's stream, and continues in its own when the network is done.
Two events order that, and no thread waits. A session per frame in flight would multiply the weights, ONNX Runtime's
memory and the time to open, without a benefit: a network fills the GPU by itself, and the surrounding work overlaps
with another frame's network here, too.

Features of ONNX Runtime that this relies on, as named in its headers and documents:

* ``user_compute_stream``, a decimal number in a string (``cuda_execution_provider_info.cc``, pull request 19229). A
  build that ignores it would compute beside our kernels, not between them, so it is read back.
* ``disable_synchronize_execution_providers`` (``onnxruntime_run_options_config_keys.h``): a run does not wait for the
  stream.
* ``session.disable_cpu_ep_fallback`` (``onnxruntime_session_options_config_keys.h``, pull request 16016): no session
  where a node would run on the CPU. ``IOBinding`` copies an input of such a node once, when it is bound, and never
  again (``IOBinding.cc``, ``BindInput``): every frame would have the first frame's results.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.driver.ownership import close_all
from yolact_plugins.errors import CudaError, MissingDependencyError
from yolact_runtime.backends.base import ModelSource, TensorSpec, path_of
from yolact_runtime.backends.onnxruntime import (
    PROVIDERS,
    OnnxRuntimeBackend,
    open_session,
    require_provider,
)
from yolact_runtime.backends.onnxruntime_session import run_options
from yolact_runtime.errors import BackendError, BackendUnavailableError
from yolact_runtime.model.manifest import FLOAT_DTYPES
from yolact_runtime.model.network_outputs import OutputType

__all__ = ["OnnxRuntimeCudaBackend", "OnnxRuntimeCudaContext", "open_on_cuda"]

_log = logging.getLogger(__name__)
_NAME, _DEVICE_TYPE = "onnxruntime-cuda", "cuda"
_STREAM, _NO_CPU_NODES = "user_compute_stream", "session.disable_cpu_ep_fallback"
_DO_NOT_WAIT = "disable_synchronize_execution_providers"
# Messages of ONNX Runtime, cuDNN and cuBLAS when GPU memory is exhausted.
_FULL = ("failed to allocate", "out of memory", "alloc_failed")


class _NoDevicePathError(BackendError):
    """The model runs on CUDA, but its inputs and outputs cannot stay there; the message says why."""


def open_on_cuda(model: ModelSource, num_threads: int = 0) -> OnnxRuntimeBackend:
    """Load a model into ONNX Runtime on CUDA, with outputs that stay on the GPU if possible.

    If that is not possible, the network still runs on CUDA, its outputs are copied to the host, and a warning states
    the reason: pre- and post-processing then take CPU time.

    Args:
        model: The model; see :class:`OnnxRuntimeBackend`.
        num_threads: Number of CPU threads for the host's part of a session.

    Raises:
        BackendUnavailableError, BackendError: The same as for :class:`OnnxRuntimeBackend`.
    """
    require_provider(_NAME)
    try:
        device = _open_device()
    except (CudaError, MissingDependencyError) as error:
        return _with_outputs_on_the_host(model, num_threads, error)
    try:
        return OnnxRuntimeCudaBackend(model, device, num_threads)
    except _NoDevicePathError as error:
        return _with_outputs_on_the_host(model, num_threads, error)


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend):
    """A model in a CUDA session that runs in a stream of this project.

    See :class:`yolact_runtime.backends.DeviceBackend`.

    Args:
        model: The model; see :class:`OnnxRuntimeBackend`.
        device: The device to run on. Owned, even if this fails.
        num_threads: Number of CPU threads for the host's part of a session.

    Raises:
        BackendUnavailableError, BackendError: The same as for :class:`OnnxRuntimeBackend`.

    Attributes:
        device: The device that runs the session.
        tensors: Input and outputs of the session; outputs that are not floating-point numbers are omitted and not
            computed.
        stream: The stream in which the session runs; it lives as long as the session.
    """

    def __init__(self, model: ModelSource, device: Device, num_threads: int = 0) -> None:
        self.name = _NAME
        self.device = device
        # Guards the session's stream: the work of one frame stays together.
        self._turn = threading.Lock()
        with ExitStack() as stack:
            stack.enter_context(device)
            self.stream = stack.enter_context(Stream(device))
            device.make_current()
            self._run_options = run_options({_DO_NOT_WAIT: "1"})
            self._begin(_open_in_stream(model, self.stream, num_threads))
            stack.callback(super().close)
            self.tensors = _tensors_of(self.inputs, self.outputs)
            self._owned = stack.pop_all()

    def new_context(self) -> OnnxRuntimeCudaContext:
        """Create another context for a frame's input and outputs; weights, intermediate memory and stream are shared.

        Raises:
            BackendError: The backend is closed.
            CudaError: The driver reports an error.
        """
        return OnnxRuntimeCudaContext(self)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Upload, run and download; see :class:`yolact_runtime.backends.base.Backend`. One call runs at a time."""
        with self._turn:
            self._require_open()
            self.device.make_current()
            return super().infer(tensor)

    def close(self) -> None:
        """Free the session, then its stream; contexts must be closed before. May be called again."""
        with self._turn:
            if self._session is None:
                return
            # Failed runs may have left work in the stream.
            close_all(self.stream.synchronize, self._owned.close)

    def enqueue(self, context: OnnxRuntimeCudaContext, stream: Stream) -> None:
        """Enqueue a run of the session between earlier and later work of a frame's stream.

        Args:
            context: The context that binds the input and the outputs.
            stream: The frame's stream.

        Raises:
            BackendError: ONNX Runtime reports an error; the message includes its own text.
            CudaError: The driver reports an error.
        """
        with self._turn:
            self._require_open()
            context.ready.record(stream)
            self.stream.wait_for(context.ready)
            try:
                self._session.run_with_iobinding(context.binding, self._run_options)
            except Exception as error:  # ONNX Runtime has no common base class for its errors
                # An error that is kept must not keep the session, which ends before its stream: the session is in no
                # local variable here, and the frames of ONNX Runtime's own functions are removed.
                error.__traceback__ = None
                # Part of the run may be in progress, using the frame's memory. If the context is lost, this reports it.
                self._go_on(context.done, stream)
                raise BackendError(f"{self.name}: the network failed: {error}{_advice(error)}") from error
            self._go_on(context.done, stream)

    def io_binding(self) -> Any:
        """Create an ``onnxruntime.IOBinding``, which keeps the session alive.

        Raises:
            BackendError: The backend is closed.
        """
        return self._require_open().io_binding()

    def _go_on(self, done: Event, stream: Stream) -> None:
        done.record(self.stream)
        stream.wait_for(done)


class OnnxRuntimeCudaContext:
    """The input and outputs of a frame; see :class:`yolact_runtime.backends.base.DeviceContext`.

    Args:
        backend: The open backend, which must stay open longer than the context.

    Raises:
        BackendError: The backend is closed.
        CudaError: The driver reports an error.

    Attributes:
        binding: The ``onnxruntime.IOBinding``; None once closed.
        ready: Event at which the frame's stream has written the input.
        done: Event at which the session's stream has written the outputs.
    """

    def __init__(self, backend: OnnxRuntimeCudaBackend) -> None:
        self._backend = backend
        self._tensors = {tensor.name: tensor for tensor in backend.tensors}
        self.binding: Any = backend.io_binding()
        with ExitStack() as stack:
            self.ready = stack.enter_context(Event(backend.device))
            self.done = stack.enter_context(Event(backend.device))
            self._owned = stack.pop_all()

    def bind(self, name: str, pointer: int) -> None:
        """Set the memory of a tensor. ONNX Runtime neither copies nor allocates memory for it."""
        self._require_open()
        tensor = self._tensors[name]
        place = (name, _DEVICE_TYPE, self._backend.device.ordinal, tensor.dtype.type, list(tensor.shape), pointer)
        try:
            if tensor.is_input:
                self.binding.bind_input(*place)
            else:
                self.binding.bind_output(*place)
        except Exception as error:  # as above
            raise BackendError(
                f"{self._backend.name} rejects memory at {pointer:#x} for {name}, {tensor.dtype} of {tensor.shape}: "
                f"{error}"
            ) from error.with_traceback(None)

    def enqueue(self, stream: Stream) -> None:
        """Enqueue one run in order with the stream."""
        self._require_open()
        self._backend.enqueue(self, stream)

    def is_capturable(self, stream: Stream) -> bool:
        """Return False: ONNX Runtime may allocate and wait in a run, and does not run in the captured stream."""
        del stream
        return False

    def close(self) -> None:
        """Release the memory; the caller has waited for its runs. May be called again."""
        self.binding = None
        self._owned.close()

    def _require_open(self) -> None:
        if self.binding is None:
            raise BackendError("the execution context is closed; open the model again")


def _with_outputs_on_the_host(model: ModelSource, num_threads: int, reason: Exception) -> OnnxRuntimeBackend:
    backend = OnnxRuntimeBackend(model, _NAME, num_threads)
    _log.warning("%s: frames are prepared, and masks made, on the CPU: %s", _NAME, reason)
    return backend


def _open_device() -> Device:
    return Device()


def _open_in_stream(model: ModelSource, stream: Stream, num_threads: int) -> Any:
    options = {"device_id": str(stream.device.ordinal), _STREAM: str(stream.handle)}
    try:
        session = open_session(model, _NAME, num_threads, options, {_NO_CPU_NODES: "1"})
    except BackendUnavailableError as error:
        # Perhaps it fails with these options only: an older release does not support the stream.
        raise _NoDevicePathError(str(error)) from error
    except BackendError as error:
        if "assigned to the default CPU EP" in str(error):
            raise _NoDevicePathError(
                f"ONNX Runtime would run some nodes of {path_of(model)} on the CPU: a newer release may have them on "
                f"CUDA (pip install -U onnxruntime-gpu)"
            ) from error
        raise
    taken = session.get_provider_options().get(PROVIDERS[_NAME], {}).get(_STREAM)
    if taken == str(stream.handle):
        return session
    # The error must not keep it alive beside the session that replaces it.
    del session
    raise _NoDevicePathError(
        f"this ONNX Runtime does not use the given stream (it reports {_STREAM} = {taken}): "
        f"pip install -U onnxruntime-gpu"
    )


def _tensors_of(inputs: Mapping[str, OutputType], outputs: Mapping[str, OutputType]) -> tuple[TensorSpec, ...]:
    """Return inputs and outputs, with batch size 1 if the model leaves it open."""
    tensors = []
    for name, declared, is_input in [
        *((name, declared, True) for name, declared in inputs.items()),
        *((name, declared, False) for name, declared in outputs.items() if declared.dtype in FLOAT_DTYPES),
    ]:
        if declared.dtype not in FLOAT_DTYPES:
            raise _NoDevicePathError(f"its input {name} is {declared.dtype}; kernels write float32 and float16")
        batch, *sides = declared.shape or (None, None)
        if None in sides:
            raise _NoDevicePathError(f"the model leaves the shape of {name} open ({declared.shape}): export it again")
        shape = (1 if batch is None else batch, *(side for side in sides if side is not None))
        tensors.append(TensorSpec(name, shape, np.dtype(declared.dtype), is_input))
    return tuple(tensors)


def _advice(error: Exception) -> str:
    if any(words in str(error).lower() for words in _FULL):
        return (
            ". GPU memory is exhausted: end other programs on the GPU, or use a smaller model or fewer frames in flight"
        )
    return ". If the same frame works with SegmenterOptions(cpu_postprocessing=True), please report it"
