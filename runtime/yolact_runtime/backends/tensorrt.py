"""TensorRT (10.3 and newer) and TensorRT-RTX: one adapter, because their interfaces are one.

Outputs stay on the GPU: whoever wants them there takes a context and binds memory by address. :meth:`infer` is the face
for everybody else, and copies.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.device_array import DeviceArray
from yolact_plugins.driver import Device, Stream
from yolact_plugins.errors import CudaError, CudaUnavailableError, MissingDependencyError
from yolact_plugins.memory import DeviceBuffer
from yolact_runtime.backends.base import TensorSpec
from yolact_runtime.backends.runtime_cache import RuntimeCache
from yolact_runtime.engine_file import LoadedEngine, find_engine, load_engine
from yolact_runtime.errors import BackendError, BackendUnavailableError, NoEngineError
from yolact_runtime.manifest import Manifest
from yolact_runtime.tensorrt_library import LogLine

__all__ = ["TARGETS", "TensorRtBackend"]

TARGETS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""Backend name -> target of :mod:`yolact_runtime.tensorrt_library`."""
_DTYPES = {"FLOAT": np.float32, "HALF": np.float16}
_REMEMBERED_LINES = 10


class TensorRtBackend:
    """An engine on the GPU.

    Args:
        model: A plan inside its bundle.
        name: ``"tensorrt"`` or ``"tensorrt-rtx"``.
        num_threads: Ignored: the network runs on the GPU.
        device: Where; None opens the first GPU. Owned.

    Raises:
        BundleError: The engine is not the one that its bundle lists.
        BackendUnavailableError: TensorRT, ``cuda-bindings``, the driver or a GPU is missing.
        EngineMismatchError: The engine was built for another machine.
        BackendError: TensorRT refuses the engine.

    Attributes:
        device: Where the engine is.
        tensors: Inputs and outputs.
    """

    def __init__(self, model: Path, name: str = "tensorrt", num_threads: int = 0, device: Device | None = None) -> None:
        del num_threads  # a factory gets it
        if model.suffix not in {".plan", ".engine"}:
            raise NoEngineError(f"{name}: {model} is no engine; build one: yolact-export BUNDLE --engine")
        self.name = name
        self._lock = threading.Lock()
        self._lines: deque[LogLine] = deque(maxlen=_REMEMBERED_LINES)
        with ExitStack() as stack:
            # Errors first that need no driver's library: the engine, TensorRT itself, and whether there is a GPU.
            self._loaded: LoadedEngine | None = load_engine(find_engine(model, "", TARGETS[name]))
            stack.enter_context(self._loaded.library.listen(self._remember))
            self.device = stack.enter_context(device or _open_device(name))
            self._cache = RuntimeCache.of(self._loaded.engine, model)
            self.tensors = _read_tensors(self._loaded, self._create_context())
            self._host_face: _HostFace | None = None
            self._owned = stack.pop_all()

    @property
    def manifest(self) -> Manifest:
        """How to feed the engine and read its outputs: the one inside the engine, where it has room for it."""
        return self._require_open().manifest

    @property
    def module(self) -> Any:
        """The Python package that the engine runs in."""
        return self._require_open().library.module

    def __enter__(self) -> TensorRtBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_context(self) -> TensorRtContext:
        """Another place to run the engine, with intermediate memory of its own; the weights are shared.

        Raises:
            BackendError: TensorRT refuses, as a rule for want of memory; or the backend is closed.
        """
        return TensorRtContext(self, self._create_context())

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Upload, run, download; see :class:`yolact_runtime.backends.base.Backend`. One call at a time runs."""
        with self._lock:
            self._require_open()
            self.device.make_current()
            if self._host_face is None:
                self._host_face = _HostFace(self)
            return self._host_face(tensor)

    def close(self) -> None:
        """Free engine and context memory; contexts are closed before. May be called again."""
        with self._lock:
            if self._loaded is None:
                return
            if self._host_face is not None:
                self._host_face.close()
            if self._cache is not None:
                self._cache.store()
            self._cache = self._host_face = self._loaded = None
            self._owned.close()

    def layers_json(self) -> str:
        """What the engine is made of, as TensorRT's inspector writes it: a JSON object with ``"Layers"``.

        Raises:
            BackendError: The backend is closed.
        """
        loaded = self._require_open()
        inspector = loaded.engine.create_engine_inspector()
        return str(inspector.get_engine_information(loaded.library.module.LayerInformationFormat.JSON))

    def said(self) -> str:
        """What TensorRT logged lately, for the end of an error message."""
        words = [line.text for line in list(self._lines)]
        return ":" + "".join(f"\n  {text}" for text in words) if words else "; it logged nothing"

    def keep_compiled(self) -> None:
        """After a first run: keep what TensorRT-RTX compiled for this GPU, so that the next start is quick."""
        if self._cache is not None:
            self._cache.store()

    def _remember(self, line: LogLine) -> None:
        if line.is_error or line.severity == "warning":
            self._lines.append(line)

    def _require_open(self) -> LoadedEngine:
        if self._loaded is None:
            raise BackendError("the backend was closed; open the model again")
        return self._loaded

    def _create_context(self) -> Any:
        engine = self._require_open().engine
        self._lines.clear()
        arguments = [] if self._cache is None else [self._cache.config]
        context = engine.create_execution_context(*arguments)
        if context is None:
            raise BackendError(
                f"{self.name} cannot make another place to run the engine, as a rule because the GPU's memory is used "
                f"up{self.said()}"
            )
        return context


class TensorRtContext:
    """One place where the engine runs; see :class:`yolact_runtime.backends.base.DeviceContext`."""

    def __init__(self, backend: TensorRtBackend, context: Any) -> None:
        self._backend = backend
        self._context = context
        self._was_run = False
        self._profiler: Any = None
        for tensor in backend.tensors:
            if tensor.is_input and not context.set_input_shape(tensor.name, tensor.shape):
                raise BackendError(f"the engine does not take {tensor.name} as {tensor.shape}{backend.said()}")

    def bind(self, name: str, pointer: int) -> None:
        """Where a tensor is from now on."""
        if not self._require_open().set_tensor_address(name, pointer):
            raise BackendError(f"{self._backend.name} refuses memory at {pointer:#x} for {name}{self._backend.said()}")

    def enqueue(self, stream: Stream) -> None:
        """One run in the stream."""
        self._backend._lines.clear()
        if not self._require_open().execute_async_v3(stream.handle):
            raise BackendError(f"{self._backend.name} cannot run the engine{self._backend.said()}")
        if not self._was_run:
            self._was_run = True
            self._backend.keep_compiled()

    def report_layers(self, report: Callable[[str, float], None]) -> None:
        """From now on every run waits for its end and tells the time of each layer: for profiles, not for robots.

        Args:
            report: Called with TensorRT's name of a layer and its milliseconds.
        """
        base = self._backend.module.IProfiler

        class Profiler(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                # As of ILogger: TensorRT's own base class must be initialised by name.
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                report(layer_name, ms)

        # TensorRT keeps no reference of its own.
        self._profiler = Profiler()
        self._require_open().profiler = self._profiler

    def is_capturable(self, stream: Stream) -> bool:
        """TensorRT-RTX says so itself; TensorRT's engines without data-dependent shapes are, after a first run."""
        ask = getattr(self._require_open(), "is_stream_capturable", None)
        return self._was_run and (ask is None or bool(ask(stream.handle)))

    def close(self) -> None:
        """Free the context."""
        self._context = None

    def _require_open(self) -> Any:
        if self._context is None:
            raise BackendError("this place in the engine was closed; open the model again")
        return self._context


class _HostFace:
    """Memory for :meth:`TensorRtBackend.infer`, made when it is first called."""

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
        # After a run that failed, its upload may still be waiting.
        self._stream.synchronize()
        self._owned.close()


def _open_device(name: str) -> Device:
    try:
        return Device()
    except (CudaUnavailableError, MissingDependencyError) as error:
        raise BackendUnavailableError(f"{name}: {error}") from error
    except CudaError as error:
        raise BackendError(f"{name}: the GPU cannot be opened: {error}") from error


def _read_tensors(loaded: LoadedEngine, context: Any) -> tuple[TensorSpec, ...]:
    """Inputs and outputs, with batch 1 where the engine leaves it open."""
    engine, module = loaded.engine, loaded.library.module
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == module.TensorIOMode.INPUT]
    for name in inputs:
        context.set_input_shape(name, tuple(1 if side < 0 else side for side in engine.get_tensor_shape(name)))
    tensors = []
    for name in names:
        kind = getattr(engine.get_tensor_dtype(name), "name", "an unknown type")
        if kind not in _DTYPES:
            raise BackendError(
                f"the engine's tensor {name} is {kind}; float32 and float16 are understood: export again"
            )
        shape = tuple(int(side) for side in context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(f"the engine does not say the shape of {name} (it says {shape}): export again")
        tensors.append(TensorSpec(name, shape, np.dtype(_DTYPES[kind]), name in inputs))
    return tuple(tensors)
