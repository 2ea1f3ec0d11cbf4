"""ONNX Runtime on CUDA, with inputs and outputs that stay on the GPU.

A session has one stream, its provider's ``user_compute_stream``, and one copy of the weights. Frames in flight share
both: each waits, on the GPU, for its turn in the session's stream, and goes on in its own when the network is done. Two
events order that, and no thread waits. The other way, a session for each frame in flight, would hold the weights and
ONNX Runtime's memory as often, and open as often, for nothing: a network fills the GPU by itself, and what surrounds it
overlaps with another frame's network here, too.

What is asked of ONNX Runtime, in the words of its own headers and documents:

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
    run_options,
)
from yolact_runtime.errors import BackendError, BackendUnavailableError
from yolact_runtime.model.manifest import FLOAT_DTYPES
from yolact_runtime.model.network_outputs import OutputType

__all__ = ["OnnxRuntimeCudaBackend", "OnnxRuntimeCudaContext", "open_on_cuda"]

_log = logging.getLogger(__name__)
_NAME, _DEVICE_TYPE = "onnxruntime-cuda", "cuda"
_STREAM, _NO_CPU_NODES = "user_compute_stream", "session.disable_cpu_ep_fallback"
_DO_NOT_WAIT = "disable_synchronize_execution_providers"
# What ONNX Runtime, cuDNN and cuBLAS say when the GPU's memory is used up.
_FULL = ("failed to allocate", "out of memory", "alloc_failed")


class _NoDevicePathError(BackendError):
    """The model runs on CUDA, and its inputs and outputs cannot stay there; the message says why."""


def open_on_cuda(model: ModelSource, num_threads: int = 0) -> OnnxRuntimeBackend:
    """Load a model into ONNX Runtime on CUDA, with outputs that stay on the GPU where that can be.

    Where it cannot, the network runs on CUDA all the same, its outputs come to the host, and the log says why, as a
    warning: what surrounds the network then takes a CPU's time.

    Args:
        model: As for :class:`OnnxRuntimeBackend`.
        num_threads: For the host's part of a session.

    Raises:
        BackendUnavailableError, BackendError: As for :class:`OnnxRuntimeBackend`.
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
    """A model in a session on CUDA that runs in a stream of ours; see :class:`yolact_runtime.backends.DeviceBackend`.

    Args:
        model: As for :class:`OnnxRuntimeBackend`.
        device: Where. Owned, also if this fails.
        num_threads: For the host's part of a session.

    Raises:
        BackendUnavailableError, BackendError: As for :class:`OnnxRuntimeBackend`.

    Attributes:
        device: Where the session is.
        tensors: Its input and outputs; outputs that are no floating-point numbers are left out, and not computed.
        stream: In which the session runs; it lives as long as the session.
    """

    def __init__(self, model: ModelSource, device: Device, num_threads: int = 0) -> None:
        self.name = _NAME
        self.device = device
        # Of the session's stream: what one frame puts there stays together.
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
        """Another place for a frame's input and outputs; weights, memory between the layers, and stream are shared.

        Raises:
            BackendError: The backend is closed.
            CudaError: The driver refuses.
        """
        return OnnxRuntimeCudaContext(self)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Upload, run, download; see :class:`yolact_runtime.backends.base.Backend`. One call at a time runs."""
        with self._turn:
            self._require_open()
            self.device.make_current()
            return super().infer(tensor)

    def close(self) -> None:
        """Free the session, then its stream; contexts are closed before. May be called again."""
        with self._turn:
            if self._session is None:
                return
            # Runs that failed may have left work behind.
            close_all(self.stream.synchronize, self._owned.close)

    def enqueue(self, context: OnnxRuntimeCudaContext, stream: Stream) -> None:
        """Put a run of the session between what is in a frame's stream, and what comes later there.

        Args:
            context: Says where the input and the outputs are.
            stream: The frame's.

        Raises:
            BackendError: ONNX Runtime refuses; the message carries its own words.
            CudaError: The driver does.
        """
        with self._turn:
            self._require_open()
            context.ready.record(stream)
            self.stream.wait_for(context.ready)
            try:
                self._session.run_with_iobinding(context.binding, self._run_options)
            except Exception as error:  # ONNX Runtime has no common base class for its errors
                # Whoever keeps the error must not keep the session, which ends before its stream: it is in no local
                # variable here, and the frames of ONNX Runtime's own functions are left out.
                error.__traceback__ = None
                # Some of the run may be under way, with the frame's memory. Where the context is lost, this says so.
                self._go_on(context.done, stream)
                raise BackendError(f"{self.name}: the network failed: {error}{_advice(error)}") from error
            self._go_on(context.done, stream)

    def io_binding(self) -> Any:
        """A new ``onnxruntime.IOBinding``, which keeps the session alive.

        Raises:
            BackendError: The backend is closed.
        """
        return self._require_open().io_binding()

    def _go_on(self, done: Event, stream: Stream) -> None:
        done.record(self.stream)
        stream.wait_for(done)


class OnnxRuntimeCudaContext:
    """A frame's input and outputs; see :class:`yolact_runtime.backends.base.DeviceContext`.

    Args:
        backend: Open; it stays open for longer.

    Raises:
        BackendError: The backend is closed.
        CudaError: The driver refuses.

    Attributes:
        binding: ``onnxruntime.IOBinding``, None when closed.
        ready: Where the frame's stream has the input.
        done: Where the session's stream has the outputs.
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
        """Where a tensor is from now on. ONNX Runtime neither copies nor allocates for it."""
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
                f"{self._backend.name} refuses memory at {pointer:#x} for {name}, {tensor.dtype} of {tensor.shape}: "
                f"{error}"
            ) from error.with_traceback(None)

    def enqueue(self, stream: Stream) -> None:
        """One run, in its place of the stream."""
        self._require_open()
        self._backend.enqueue(self, stream)

    def is_capturable(self, stream: Stream) -> bool:
        """Never: ONNX Runtime may allocate and wait in a run, and its stream is not the one that is captured."""
        del stream
        return False

    def close(self) -> None:
        """Let the memory go; the caller has waited for its runs. May be called again."""
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
        # Maybe not with these options: an older one does not know the stream.
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
    # The error must not keep it, beside the session that is made instead.
    del session
    raise _NoDevicePathError(
        f"this ONNX Runtime does not compute in a stream of ours (it says {_STREAM} = {taken}): "
        f"pip install -U onnxruntime-gpu"
    )


def _tensors_of(inputs: Mapping[str, OutputType], outputs: Mapping[str, OutputType]) -> tuple[TensorSpec, ...]:
    """Inputs and outputs, with batch 1 where the model leaves it open."""
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
            ". The GPU's memory is used up: end other programs on it, or use a smaller model or fewer frames in flight"
        )
    return ". If the same frame works with SegmenterOptions(cpu_postprocessing=True), please report it"
