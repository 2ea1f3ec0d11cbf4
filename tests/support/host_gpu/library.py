"""The driver's functions by name, like those of ``cuda.bindings.driver``: they return a status and values."""

from __future__ import annotations

import functools
import importlib
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from support.host_gpu.contexts import HostContexts
from support.host_gpu.faults import HostGpuError, Status
from support.host_gpu.handles import Handles
from support.host_gpu.kernel_calls import KernelCalls
from support.host_gpu.memory import HostMemory
from support.host_gpu.memory_calls import MemoryCalls
from support.host_gpu.stream_calls import StreamCalls
from support.host_gpu.streams import HostStreams

__all__ = ["HostLibrary"]

# What needs no context on the calling thread.
_WITHOUT_CONTEXT = ("cuInit", "cuDriver", "cuDevice", "cuCtxSetCurrent", "cuCtxPushCurrent", "cuCtxPopCurrent")
# What may not be called by a thread that captures.
_NOT_WHILE_CAPTURING = ("Alloc", "Free", "Synchronize", "Query", "cuModule", "cuStreamCreate", "cuStreamDestroy")
_MISUSES = (Status.INVALID_HANDLE, Status.INVALID_VALUE, Status.INVALID_CONTEXT, Status.ILLEGAL_ADDRESS)


class HostLibrary:
    """State and functions of the driver. Thread-safe: one call at a time, and work runs inside calls.

    Args:
        integrated: Whether CPU and GPU report shared memory.
        order: Seed of the execution order, see :class:`HostStreams`.
        memory_bytes: Size of the GPU's memory.
        strict_free: Whether freeing memory in use is an error, see :class:`MemoryCalls`.

    Attributes:
        lock: Lock that every call holds.
        memory: Allocations of the GPU.
        streams: Streams with their pending work.
        handles: Handles of all objects.
        contexts: Contexts, and the threads that have one.
        memory_calls: Functions for memory, with their counts.
        kernel_calls: Functions for kernels, with their counts.
        num_calls: Number of calls of each function, whatever they returned.
        recordings: Lists to which the name of every called function is appended.
        inject: Function called with the name of every function before it runs; a status other than None is returned
            instead.
        misuses: Functions that were called with an invalid or released handle or address.
    """

    def __init__(self, integrated: bool, order: int, memory_bytes: int, strict_free: bool) -> None:
        self._bindings = importlib.import_module("cuda.bindings.driver")
        self.lock = threading.RLock()
        self.memory = HostMemory(memory_bytes)
        self.streams = HostStreams(order)
        self.handles = Handles()
        self.contexts = HostContexts(integrated, self.memory, self.streams)
        self.memory_calls = MemoryCalls(self.memory, self.streams, self.handles, strict_free)
        self.kernel_calls = KernelCalls(self.memory, self.streams, self.handles)
        self.num_calls: Counter[str] = Counter()
        self.recordings: list[list[str]] = []
        self.inject: Callable[[str], int | None] = lambda _name: None
        self.misuses: list[str] = []
        parts = (self.contexts, self.memory_calls, StreamCalls(self.streams, self.handles), self.kernel_calls)
        self._functions: dict[str, Callable[..., Any]] = {}
        for part in parts:
            self._functions |= part.functions()
        self._thread = threading.local()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            # Enumerations are the binding's own.
            return getattr(self._bindings, name)
        if name not in self._functions:
            # As the binding says it of functions that a driver lacks.
            raise RuntimeError(f'Function "{name}" not found')
        return functools.partial(self._answer, name, self._functions[name])

    def cuGetErrorName(self, status: Any) -> tuple[int, bytes]:
        return 0, str(self._bindings.CUresult(int(status)).name).encode()

    def cuGetErrorString(self, _status: Any) -> tuple[int, bytes]:
        """Return the latest error on this thread, in more detail than the driver would."""
        return 0, str(getattr(self._thread, "said", "")).encode()

    def _answer(self, name: str, function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        with self.lock:
            self.num_calls[name] += 1
            for calls in self.recordings:
                calls.append(name)
            if (injected := self.inject(name)) is not None:
                self._thread.said = "injected"
                return (injected,)
            try:
                if not name.startswith(_WITHOUT_CONTEXT):
                    self.contexts.require_current(name)
                if any(part in name for part in _NOT_WHILE_CAPTURING):
                    self.streams.refuse_while_capturing(name)
                values = function(*arguments)
            except HostGpuError as error:
                self._thread.said = str(error)
                if error.status in _MISUSES:
                    self.misuses.append(f"{name}: {error}")
                return (int(error.status),)
        if values is None:
            return (0,)
        return (0, *values) if isinstance(values, tuple) else (0, values)
