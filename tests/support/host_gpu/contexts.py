"""The single device of the simulated GPU, its attributes, and the threads that may use it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from support.host_gpu.faults import HostGpuError, Status
from support.host_gpu.memory import HostMemory
from support.host_gpu.streams import HostStreams

__all__ = ["HostContexts"]

_CUDA_VERSION = 13000
_CONTEXT = 1
_ATTRIBUTES = {"MULTIPROCESSOR_COUNT": 4, "MAX_THREADS_PER_BLOCK": 1024, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 101376}
_ATTRIBUTES |= {"MAX_BLOCK_DIM_X": 1024, "MAX_BLOCK_DIM_Y": 1024, "MAX_BLOCK_DIM_Z": 64}
_ATTRIBUTES |= {"MAX_GRID_DIM_X": 2**31 - 1, "MAX_GRID_DIM_Y": 65535, "MAX_GRID_DIM_Z": 65535}
_ATTRIBUTES |= {"COMPUTE_CAPABILITY_MAJOR": 8, "COMPUTE_CAPABILITY_MINOR": 7}


class HostContexts:
    """A device of compute capability 8.7 and its primary context.

    Args:
        integrated: Whether CPU and GPU report shared memory.
        memory: Memory whose free bytes are reported.
        streams: Streams that a context waits for.

    Attributes:
        retained: Number of times that the context was retained and not released.
    """

    def __init__(self, integrated: bool, memory: HostMemory, streams: HostStreams) -> None:
        self.retained = 0
        self._attributes = _ATTRIBUTES | {"INTEGRATED": int(integrated)}
        self._memory, self._streams = memory, streams
        self._thread = threading.local()

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions by their names in the driver; only the last two need a current context."""
        return {
            "cuInit": lambda _flags: None,
            "cuDriverGetVersion": lambda: _CUDA_VERSION,
            "cuDeviceGetCount": lambda: 1,
            "cuDeviceGet": self._device,
            "cuDeviceGetName": lambda _size, _device: b"Host\0",
            "cuDeviceGetAttribute": self._attribute,
            "cuDevicePrimaryCtxRetain": self._retain,
            "cuDevicePrimaryCtxRelease": self._release,
            "cuCtxSetCurrent": self._set_current,
            "cuCtxPushCurrent": self._push,
            "cuCtxPopCurrent": self._pop,
            "cuCtxSynchronize": self._streams.synchronize_all,
            "cuMemGetInfo": lambda: (self._memory.limit - self._memory.used, self._memory.limit),
        }

    def require_current(self, function: str) -> None:
        """Raise an error unless the calling thread has the context."""
        if not self._stack():
            raise HostGpuError(Status.INVALID_CONTEXT, f"{function}: no context is current on this thread")

    def _stack(self) -> list[int]:
        if not hasattr(self._thread, "stack"):
            self._thread.stack = []
        stack: list[int] = self._thread.stack
        return stack

    def _device(self, ordinal: int) -> int:
        if ordinal:
            raise HostGpuError(Status.INVALID_VALUE, f"there is no GPU {ordinal}")
        return ordinal

    def _attribute(self, attribute: Any, _device: int) -> int:
        return self._attributes[attribute.name.removeprefix("CU_DEVICE_ATTRIBUTE_")]

    def _retain(self, _device: int) -> int:
        self.retained += 1
        return _CONTEXT

    def _release(self, _device: int) -> None:
        if not self.retained:
            raise HostGpuError(Status.INVALID_CONTEXT, "the context was released more often than it was taken")
        self.retained -= 1

    def _set_current(self, context: int) -> None:
        # Replaces the top of the stack, as the driver does.
        self._stack()[-1:] = [self._known(context)]

    def _push(self, context: int) -> None:
        self._stack().append(self._known(context))

    def _pop(self) -> int:
        if not self._stack():
            raise HostGpuError(Status.INVALID_CONTEXT, "no context is current on this thread")
        return self._stack().pop()

    def _known(self, context: int) -> int:
        if context != _CONTEXT or not self.retained:
            raise HostGpuError(Status.INVALID_CONTEXT, f"{context} is not a context, or no longer one")
        return context
