"""TensorRT (10.3 and newer) and TensorRT-RTX: one adapter, because they have the same interface.

Outputs stay on the GPU for callers that create a context and bind memory by address. :meth:`infer` copies to and from
host memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.driver.ownership import close_all
from yolact_plugins.errors import CudaError, CudaUnavailableError, MissingDependencyError
from yolact_runtime.backends.base import ModelSource, TensorSpec, path_of
from yolact_runtime.backends.engine_file import EngineFile, LoadedEngine, find_engine, load_engine
from yolact_runtime.backends.runtime_cache import RuntimeCache
from yolact_runtime.backends.tensorrt_context import TensorRtContext, configure_contexts, create_context
from yolact_runtime.errors import BackendError, BackendUnavailableError, NoEngineError
from yolact_runtime.model.bundle import PLAN_SUFFIXES
from yolact_runtime.model.manifest import Manifest

__all__ = ["TARGETS", "TensorRtBackend"]

TARGETS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""Backend name -> target of :mod:`yolact_runtime.backends.tensorrt_library`."""
_DTYPES = {"FLOAT": np.float32, "HALF": np.float16}


class TensorRtBackend:
    """A TensorRT engine on the GPU.

    Args:
        model: A plan inside its bundle, or one found in an open bundle.
        name: Name of the backend: ``"tensorrt"`` or ``"tensorrt-rtx"``.
        num_threads: Unused number of CPU threads: the network runs on the GPU.
        device: The device to run on; None opens the first GPU. Owned.

    Raises:
        BundleError: The engine is not the one that its bundle lists.
        BackendUnavailableError: TensorRT, ``cuda-bindings``, the driver or a GPU is missing.
        EngineMismatchError: The engine was built for another machine.
        BackendError: TensorRT rejects the engine.

    Attributes:
        device: The device that runs the engine.
        tensors: Inputs and outputs of the engine.
    """

    def __init__(
        self, model: ModelSource, name: str = "tensorrt", num_threads: int = 0, device: Device | None = None
    ) -> None:
        del num_threads  # part of the factory's interface
        if model.suffix not in PLAN_SUFFIXES:
            raise NoEngineError(f"{name}: {path_of(model)} is not an engine; build one: yolact-export BUNDLE --engine")
        file = model if isinstance(model, EngineFile) else find_engine(path_of(model), "", TARGETS[name])
        self.name = name
        self._lock = threading.Lock()
        with ExitStack() as stack:
            # First the errors that need no driver library: the engine, TensorRT itself, and whether there is a GPU.
            self._loaded: LoadedEngine | None = load_engine(file)
            self.device = stack.enter_context(device or _open_device(name))
            self._cache = RuntimeCache.of(self._loaded.engine, self._loaded.sha256)
            if self._cache is not None:
                configure_contexts(self.module, self._cache.config)
            self.tensors = _read_tensors(self._loaded, self._create_context())
            self._host_face: _HostFace | None = None
            self._owned = stack.pop_all()

    @property
    def manifest(self) -> Manifest:
        """Manifest that describes inputs and outputs; the one inside the engine if it contains one."""
        return self._require_open().manifest

    @property
    def module(self) -> Any:
        """The Python package that runs the engine."""
        return self._require_open().library.module

    def __enter__(self) -> TensorRtBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_context(self) -> TensorRtContext:
        """Create an execution context with its own intermediate memory; weights are shared.

        Raises:
            BackendError: TensorRT reports an error, usually because memory is exhausted; or the backend is closed.
            CudaOutOfMemoryError: GPU memory is exhausted.
        """
        loaded, context = self._require_open(), self._create_context()
        memory = None
        if self._cache is not None:
            # The engine's upper bound for every batch size; 0 if there is no intermediate data.
            memory = DeviceBuffer(self.device, max(1, int(loaded.engine.device_memory_size_v2)))
        return TensorRtContext(loaded.library, self.name, context, self.tensors, memory, self._keep_compiled)

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Upload, run and download; see :class:`yolact_runtime.backends.base.Backend`. One call runs at a time."""
        with self._lock:
            self._require_open()
            self.device.make_current()
            if self._host_face is None:
                self._host_face = _HostFace(self)
            return self._host_face(tensor)

    def close(self) -> None:
        """Free the engine and its memory; contexts must be closed before. May be called again."""
        with self._lock:
            if self._loaded is None:
                return
            host_face, cache, lost = self._host_face, self._cache, self.device.driver.context_lost
            steps = [] if host_face is None else [host_face.close]
            if cache is not None and lost is None:
                steps.append(cache.store)
            self._cache = self._host_face = self._loaded = None
            close_all(*steps, self._owned.close)

    def layers_json(self) -> str:
        """Return the engine's layers as TensorRT's inspector describes them: a JSON object with ``"Layers"``.

        Raises:
            BackendError: The backend is closed.
        """
        loaded = self._require_open()
        inspector = loaded.engine.create_engine_inspector()
        return str(inspector.get_engine_information(loaded.library.module.LayerInformationFormat.JSON))

    def _keep_compiled(self) -> None:
        """Store what TensorRT-RTX compiled for this GPU after a first run, so that the next start is fast."""
        if self._cache is not None:
            self._cache.store()

    def _require_open(self) -> LoadedEngine:
        if self._loaded is None:
            raise BackendError("the backend was closed; open the model again")
        return self._loaded

    def _create_context(self) -> Any:
        return create_context(self._require_open(), self.name, None if self._cache is None else self._cache.config)


class _HostFace:
    """Memory for :meth:`TensorRtBackend.infer`, allocated at its first call."""

    def __init__(self, backend: TensorRtBackend) -> None:
        with ExitStack() as stack:
            self._stream = stack.enter_context(Stream(backend.device))
            self._context = backend.new_context()
            stack.callback(self._context.close)
            self._arrays: dict[str, DeviceArray] = {}
            for tensor in backend.tensors:
                size = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
                buffer = stack.enter_context(DeviceBuffer(backend.device, size))
                self._arrays[tensor.name] = buffer.array(tensor.shape, tensor.dtype)
                self._context.bind(tensor.name, buffer.pointer)
            self._owned = stack.pop_all()
        (self._input,) = (tensor for tensor in backend.tensors if tensor.is_input)
        self._outputs = [tensor for tensor in backend.tensors if not tensor.is_input]

    def __call__(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        if tensor.shape != self._input.shape:
            raise BackendError(f"the engine takes {self._input.name} as {self._input.shape}, not {tensor.shape}")
        self._arrays[self._input.name].upload(tensor.astype(self._input.dtype, copy=False), self._stream)
        self._context.enqueue(self._stream)
        outputs = {output.name: np.empty(output.shape, output.dtype) for output in self._outputs}
        for name, array in outputs.items():
            self._arrays[name].download(array, self._stream)
        self._stream.synchronize()
        return outputs

    def close(self) -> None:
        # After a failed run, its upload may still be pending.
        close_all(self._stream.synchronize, self._owned.close)


def _open_device(name: str) -> Device:
    try:
        return Device()
    except (CudaUnavailableError, MissingDependencyError) as error:
        raise BackendUnavailableError(f"{name}: {error}") from error
    except CudaError as error:
        raise BackendError(f"{name}: the GPU cannot be opened: {error}") from error


def _read_tensors(loaded: LoadedEngine, context: Any) -> tuple[TensorSpec, ...]:
    """Return inputs and outputs, with batch size 1 if the engine leaves it open."""
    engine, module = loaded.engine, loaded.library.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
    for name in inputs:
        context.set_input_shape(name, tuple(1 if side < 0 else side for side in engine.get_tensor_shape(name)))
    tensors = []
    for name in names:
        kind = getattr(engine.get_tensor_dtype(name), "name", "an unknown type")
        if kind not in _DTYPES:
            raise BackendError(f"the engine's tensor {name} is {kind}; float32 or float16 is required: export again")
        shape = tuple(int(side) for side in context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(f"the engine does not state the shape of {name} (it reports {shape}): export again")
        tensors.append(TensorSpec(name, shape, np.dtype(_DTYPES[kind]), name in inputs))
    return tuple(tensors)
