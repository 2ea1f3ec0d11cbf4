"""An execution context of TensorRT, with the memory for its intermediate data.

TensorRT allocates that memory itself. TensorRT-RTX gets it from this module: its engines are built with
``REQUIRE_USER_ALLOCATION``, because allocations during a run would prevent capture in a CUDA graph, and such engines
reject a context that manages its own memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_runtime.backends.base import TensorSpec
from yolact_runtime.backends.engine_file import LoadedEngine
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary
from yolact_runtime.errors import BackendError

__all__ = ["TensorRtContext", "configure_contexts", "create_context"]


def configure_contexts(module: Any, config: Any) -> None:
    """Configure TensorRT-RTX for contexts that can be captured in CUDA graphs.

    Args:
        module: The ``tensorrt_rtx`` package.
        config: The ``IRuntimeConfig`` object for :func:`create_context`.
    """
    config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
    # For engines with a dynamic batch size. By default, kernels for a new shape are compiled in the background: a graph
    # would keep the slower fallback kernels.
    config.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER


def create_context(loaded: LoadedEngine, name: str, config: Any = None) -> Any:
    """Create an ``IExecutionContext``. With `config` it has no memory yet, but already reports shapes.

    Args:
        loaded: The loaded engine.
        name: Name of the backend, for messages.
        config: The ``IRuntimeConfig`` of TensorRT-RTX; None for TensorRT.

    Raises:
        BackendError: TensorRT reports an error.
    """
    with loaded.library.collect() as log:
        context = loaded.engine.create_execution_context(*([] if config is None else [config]))
    if context is None:
        raise BackendError(
            f"{name} cannot create an execution context, usually because GPU memory is exhausted{log.tail()}"
        )
    return context


class TensorRtContext:
    """An execution context; see :class:`yolact_runtime.backends.base.DeviceContext`.

    Args:
        library: The TensorRT package of the engine.
        name: Name of the backend, for messages.
        context: The ``IExecutionContext`` object.
        tensors: Tensors of the engine; inputs get these shapes.
        memory: Memory for intermediate data, owned; None if TensorRT allocates its own.
        on_first_run: Callback that runs after the first run was enqueued.

    Raises:
        BackendError: TensorRT rejects a shape or the memory.
    """

    def __init__(
        self,
        library: TensorRtLibrary,
        name: str,
        context: Any,
        tensors: Sequence[TensorSpec],
        memory: DeviceBuffer | None = None,
        on_first_run: Callable[[], None] = lambda: None,
    ) -> None:
        self._library, self._name = library, name
        self._context = context
        self._on_first_run = on_first_run
        self._was_run = False
        self._profiler: Any = None
        with ExitStack() as stack:
            if memory is not None:
                stack.enter_context(memory)
            for tensor in tensors:
                if tensor.is_input:
                    self._set_shape(tensor)
            if memory is not None:
                self._set_memory(memory)
            self._owned = stack.pop_all()

    def bind(self, name: str, pointer: int) -> None:
        """Set the memory of a tensor for future runs."""
        with self._library.collect() as log:
            accepted = self._require_open().set_tensor_address(name, pointer)
        if not accepted:
            raise BackendError(f"{self._name} rejects memory at {pointer:#x} for {name}{log.tail()}")

    def enqueue(self, stream: Stream) -> None:
        """Enqueue one run in the stream."""
        with self._library.collect() as log:
            accepted = self._require_open().execute_async_v3(stream.handle)
        if not accepted:
            raise BackendError(f"{self._name} cannot run the engine{log.tail()}")
        if not self._was_run:
            self._was_run = True
            self._on_first_run()

    def report_layers(self, report: Callable[[str, float], None]) -> None:
        """Make every future run wait for its end and report the time of each layer. For profiling only.

        Args:
            report: Callback that receives TensorRT's name of a layer and its milliseconds.
        """
        base = self._library.module.IProfiler

        class Profiler(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                # As for ILogger, TensorRT's own base class must be initialised by name.
                base.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                report(layer_name, ms)

        # TensorRT keeps no reference to it.
        self._profiler = Profiler()
        self._require_open().profiler = self._profiler

    def is_capturable(self, stream: Stream) -> bool:
        """Return whether runs can be captured: TensorRT-RTX reports that; TensorRT allows it after a first run."""
        ask = getattr(self._require_open(), "is_stream_capturable", None)
        return self._was_run and (ask is None or bool(ask(stream.handle)))

    def close(self) -> None:
        """Free the context, then its memory; the caller has waited for its runs. May be called again."""
        self._context = None
        self._owned.close()

    def _set_shape(self, tensor: TensorSpec) -> None:
        with self._library.collect() as log:
            accepted = self._context.set_input_shape(tensor.name, tensor.shape)
        if not accepted:
            raise BackendError(f"the engine rejects the shape {tensor.shape} for {tensor.name}{log.tail()}")

    def _set_memory(self, memory: DeviceBuffer) -> None:
        with self._library.collect() as log:
            self._context.set_device_memory(memory.pointer, memory.num_bytes)
        # The function returns nothing.
        if log.has_errors:
            raise BackendError(f"{self._name} rejects {memory.num_bytes} bytes of memory to run in{log.tail()}")

    def _require_open(self) -> Any:
        if self._context is None:
            raise BackendError("the execution context is closed; open the model again")
        return self._context
