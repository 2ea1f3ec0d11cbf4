"""ONNX Runtime on the host's GPU: the real one, on the CPU, in its turn of a stream.

:class:`CudaOnnxRuntime` takes the place of the package. What is asked of CUDA goes to the real package on the CPU, with
two words exchanged: the provider's name, and ``"cuda"`` of the devices that memory is bound on. Sessions, bindings, the
check of names, shapes and types, and all numbers are ONNX Runtime's own; memory of the host's GPU is memory that it can
reach. What CUDA would do differently is done here:

* A run is work in the stream that the session was given as ``user_compute_stream``. Without the run option that says
  not to wait, the call waits for the stream.
* ``session.disable_cpu_ep_fallback`` finds the nodes that are said to lie on the CPU, :attr:`CudaOnnxRuntime.on_cpu`.
* Memory is looked for again when the run's turn comes: freed meanwhile, it is an error of the stream.

Options that the real CUDA provider does not have are refused, as it refuses them; its names are in
``onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc``, and on
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html. Names of the runs' and the session's
configuration are not checked by ONNX Runtime; those that exist are in ``onnxruntime_run_options_config_keys.h`` and
``onnxruntime_session_options_config_keys.h``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime

from support.host_gpu import HostDriver
from support.host_gpu.faults import HostGpuError
from support.host_gpu.streams import Stream

__all__ = ["CudaOnnxRuntime"]

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_PROVIDER_OPTIONS = {
    "device_id",
    "has_user_compute_stream",
    "user_compute_stream",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "cudnn_conv_algo_search",
    "do_copy_in_default_stream",
    "gpu_external_alloc",
    "gpu_external_free",
    "gpu_external_empty_cache",
    "cudnn_conv_use_max_workspace",
    "enable_cuda_graph",
    "cudnn_conv1d_pad_to_nc1d",
    "tunable_op_enable",
    "tunable_op_tuning_enable",
    "tunable_op_max_tuning_duration_ms",
    "enable_skip_layer_norm_strict_mode",
    "prefer_nhwc",
    "use_ep_level_unified_stream",
    "use_tf32",
}
_NO_FALLBACK, _DO_NOT_WAIT = "session.disable_cpu_ep_fallback", "disable_synchronize_execution_providers"
_KEPT_ENTRIES = ("session.load_model_format", "session.disable_quant_qdq")


class CudaOnnxRuntime:
    """The package ``onnxruntime`` as installed by ``onnxruntime-gpu``; attributes not defined here are the real ones.

    Args:
        driver: Driver of the simulated GPU.

    Attributes:
        starts: Whether the provider finds CUDA; if not, sessions fall back to the CPU, as real ones do.
        on_cpu: Whether the provider lacks a kernel for some node.
        takes_stream: Whether the provider knows ``user_compute_stream``.
        refuse: Exception that a run raises, or None.
        at_once: Whether runs also happen when they are requested, not only in stream order: errors that ONNX Runtime
            finds without a GPU, such as wrong shapes and types, are then raised by the call.
        before_run: Function called when a run is requested, for tests with threads.
        asked: Options of the provider, of every requested session on CUDA.
        bound: Names, pointers, shapes and dtypes of all memory that was bound.
        num_sessions: Number of live sessions on CUDA.
        faults: Errors at the end of sessions.
    """

    def __init__(self, driver: HostDriver) -> None:
        self.driver = driver
        self.starts, self.on_cpu, self.takes_stream = True, False, True
        self.refuse: Exception | None = None
        self.at_once = False
        self.before_run: Callable[[], None] = lambda: None
        self.asked: list[dict[str, str]] = []
        self.bound: list[tuple[str, int, tuple[int, ...], np.dtype[Any]]] = []
        self.num_sessions = 0
        self.faults: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def InferenceSession(  # noqa: N802  # as the package calls it
        self, content: bytes, options: Any, providers: Sequence[Any]
    ) -> Any:
        ((name, provider_options),) = [asked if isinstance(asked, tuple) else (asked, {}) for asked in providers]
        if name == CPU:
            return onnxruntime.InferenceSession(content, options, providers=[CPU])
        assert name == CUDA
        assert all(isinstance(text, str) for item in provider_options.items() for text in item)
        self.asked.append(provider_options)
        if unknown := set(provider_options) - _PROVIDER_OPTIONS:
            raise RuntimeError(f"Unknown provider option: {unknown}")
        if _entry(options, _NO_FALLBACK) == "1" and (self.on_cpu or not self.starts):
            raise onnxruntime.capi.onnxruntime_pybind11_state.Fail(
                "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default "
                "CPU EP, but fallback to CPU EP has been explicitly disabled by the user."
            )
        options = _for_the_cpu(options)
        if not self.starts:
            return onnxruntime.InferenceSession(content, options, providers=[CPU])
        return CudaSession(self, content, options, provider_options)


class CudaSession(onnxruntime.InferenceSession):  # type: ignore[misc]  # the package has no types
    """A real session, whose runs happen in stream order."""

    def __init__(self, owner: CudaOnnxRuntime, content: bytes, options: Any, provider_options: dict[str, str]) -> None:
        super().__init__(content, options, providers=[CPU])
        self._owner, self._cuda_options = owner, provider_options
        owner.num_sessions += 1

    def __del__(self) -> None:
        if not hasattr(self, "_owner"):
            return  # a model that ONNX Runtime refuses
        owner = self._owner
        owner.num_sessions -= 1
        try:
            with owner.driver.library.lock:
                owner.driver.library.handles.get(self.stream, Stream)
        except HostGpuError as error:
            owner.faults.append(f"a session ended after its stream: {error}")

    @property
    def stream(self) -> int:
        """Handle of the stream that it computes in; 0 stands for a stream of its own."""
        return int(self._cuda_options.get("user_compute_stream", "0")) if self._owner.takes_stream else 0

    def get_providers(self) -> list[str]:
        return [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        told = {"has_user_compute_stream": str(int(self.stream != 0)), "user_compute_stream": str(self.stream)}
        return {CUDA: {**self._cuda_options, **told}, CPU: {}}

    def io_binding(self) -> CudaBinding:
        return CudaBinding(self)

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Upload, run and download in the stream, and wait."""
        results: list[Any] = []
        self._owner.before_run()
        if self._owner.refuse is not None:
            raise self._owner.refuse
        real_run = super().run
        if not self.stream:
            return real_run(*arguments, **options)
        self._owner.driver.enqueue(self.stream, lambda: results.append(real_run(*arguments, **options)))
        self._owner.driver.call("cuStreamSynchronize", self.stream)
        return results[0]

    def run_with_iobinding(self, iobinding: CudaBinding, run_options: Any = None) -> None:
        """Enqueue a run in the stream."""
        self._owner.before_run()
        if self._owner.refuse is not None:
            raise self._owner.refuse
        owner, memory, driver = self._owner, dict(iobinding.memory), self._owner.driver
        # Work on a GPU keeps nothing alive.
        alive, bound = weakref.ref(self), weakref.ref(iobinding)

        if owner.at_once:
            # What ONNX Runtime finds on the host before it gives anything to the GPU.
            super().run_with_iobinding(iobinding, run_options)

        def work() -> None:
            for pointer, shape, dtype in memory.values():
                driver.view(pointer, shape, dtype)
            session, binding = alive(), bound()
            if session is None or binding is None:
                owner.faults.append("a session ended before its work")
            else:
                onnxruntime.InferenceSession.run_with_iobinding(session, binding, run_options)

        driver.enqueue(self.stream, work)
        if run_options is None or _entry(run_options, _DO_NOT_WAIT) != "1":
            driver.call("cuStreamSynchronize", self.stream)


class CudaBinding(onnxruntime.IOBinding):  # type: ignore[misc]  # as above
    """A real binding to memory of the simulated GPU.

    Attributes:
        memory: Pointer, shape and dtype of what is bound, by name.
    """

    def __init__(self, session: CudaSession) -> None:
        super().__init__(session)
        self._owner = session._owner
        self.memory: dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]] = {}

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        self._keep(name, device_type, device_id, element_type, shape, buffer_ptr)
        super().bind_input(name, "cpu", device_id, element_type, shape, buffer_ptr)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        assert shape is not None, "ONNX Runtime would allocate in every run"
        assert buffer_ptr is not None, "as above"
        self._keep(name, device_type, device_id, element_type, shape, buffer_ptr)
        super().bind_output(name, "cpu", device_id, element_type, shape, buffer_ptr)

    def _keep(self, name: str, kind: str, device: int, dtype: Any, shape: Sequence[int], pointer: int) -> None:
        assert (kind, device) == ("cuda", 0)
        self.memory[name] = (pointer, tuple(shape), np.dtype(dtype))
        self._owner.bound.append((name, *self.memory[name]))


def _for_the_cpu(asked: Any) -> Any:
    """Return the same options without the one that forbids the CPU, which a session on the CPU alone refuses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = asked.intra_op_num_threads, asked.log_severity_level
    for key in _KEPT_ENTRIES:
        if (value := _entry(asked, key)) is not None:
            options.add_session_config_entry(key, value)
    return options


def _entry(options: Any, key: str) -> str | None:
    """Return an entry of a session's or a run's configuration; None if ONNX Runtime does not have it."""
    ask = getattr(options, "get_session_config_entry", None) or options.get_run_config_entry
    try:
        return str(ask(key))
    except RuntimeError:
        return None
