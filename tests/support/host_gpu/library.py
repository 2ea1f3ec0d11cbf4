"""The driver's functions by their names, as ``cuda.bindings.driver`` has them: they return a status and values."""

from __future__ import annotations

import ctypes
import functools
import importlib
import itertools
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support.host_gpu.memory import HostGpuError, HostMemory
from support.host_gpu.streams import INVALID_HANDLE, Event, HostStreams, Stream
from support.kernel_host import KERNELS, HostKernels
from yolact_plugins.cubin import Parameter, kernel_parameters

__all__ = ["HostLibrary"]

_NO_CONTEXT, _NOT_READY = 201, 600
_MAPPED = 2
_ATTRIBUTES = {"MULTIPROCESSOR_COUNT": 4, "MAX_THREADS_PER_BLOCK": 1024, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 101376}
_ATTRIBUTES |= {"MAX_BLOCK_DIM_X": 1024, "MAX_BLOCK_DIM_Y": 1024, "MAX_BLOCK_DIM_Z": 64}
_ATTRIBUTES |= {"MAX_GRID_DIM_X": 2**31 - 1, "MAX_GRID_DIM_Y": 65535, "MAX_GRID_DIM_Z": 65535}
# What needs no context on the calling thread.
_WITHOUT_CONTEXT = ("cuInit", "cuDevice", "cuCtxSetCurrent", "cuCtxPushCurrent", "cuCtxPopCurrent", "cuGetError")
# What may not be called by a thread that captures.
_NOT_WHILE_CAPTURING = ("Alloc", "Free", "Synchronize", "Query", "cuModule", "cuStreamCreate", "cuStreamDestroy")


@functools.cache
def _family_of_kernel() -> dict[str, str]:
    return {name: path.stem for path in KERNELS.glob("*.cu") for name in HostKernels.of(path.stem).names}


class HostLibrary:
    """State and functions. Thread-safe: one call at a time.

    Attributes:
        memory: Allocations.
        streams: With their work.
        calls: Names of the functions called while somebody records, else None.
    """

    def __init__(self, capability: tuple[int, int], integrated: bool, order: int, memory_bytes: int) -> None:
        self.memory = HostMemory(memory_bytes)
        self.streams = HostStreams(order)
        self.calls: list[str] | None = None
        self._bindings = importlib.import_module("cuda.bindings.driver")
        self._attributes = _ATTRIBUTES | {"INTEGRATED": int(integrated)}
        self._attributes |= {"COMPUTE_CAPABILITY_MAJOR": capability[0], "COMPUTE_CAPABILITY_MINOR": capability[1]}
        self._lock = threading.RLock()
        self._numbers = itertools.count(0x1000, 0x10)
        self._things: dict[int, Any] = {}
        self._contexts = 0
        self._current = threading.local()
        self._said = ""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            return getattr(self._bindings, name)
        function = getattr(self, f"_{name}", None)
        if function is None:
            raise RuntimeError(f'Function "{name}" not found')
        return functools.partial(self._answer, name, function)

    def live(self) -> list[str]:
        """What was not given back."""
        contexts = [f"{self._contexts} contexts"] if self._contexts else []
        return [*map(str, self.memory.live()), *(type(thing).__name__ for thing in self._things.values()), *contexts]

    def stream(self, handle: int) -> Stream:
        """By its handle."""
        return self._get(handle, Stream)

    def _answer(self, name: str, function: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
        with self._lock:
            if self.calls is not None and not name.startswith("cuGetError"):
                self.calls.append(name)
            try:
                self._require_context(name)
                if any(part in name for part in _NOT_WHILE_CAPTURING):
                    self.streams.refuse_while_capturing(name)
                values = function(*arguments)
            except HostGpuError as error:
                self._said = str(error)
                return (error.status,)
        if values is None:
            return (0,)
        return (0, *values) if isinstance(values, tuple) else (0, values)

    def _require_context(self, name: str) -> None:
        if not name.startswith(_WITHOUT_CONTEXT) and not getattr(self._current, "stack", None):
            raise HostGpuError(_NO_CONTEXT, f"{name}: no context is current on this thread")

    def _put(self, thing: Any) -> int:
        handle = next(self._numbers)
        self._things[handle] = thing
        return handle

    def _get(self, handle: int, kind: type[Any]) -> Any:
        thing = self._things.get(int(handle))
        if not isinstance(thing, kind):
            raise HostGpuError(INVALID_HANDLE, f"{int(handle):#x} is no {kind.__name__}, or no more")
        return thing

    def _drop(self, handle: int, kind: type[Any]) -> None:
        self._get(handle, kind)
        del self._things[int(handle)]

    def _cuGetErrorName(self, status: Any) -> bytes:
        return f"CUDA_ERROR_{int(status)}".encode()

    def _cuGetErrorString(self, _: Any) -> bytes:
        return self._said.encode()

    # --- devices and contexts

    def _cuDeviceGetCount(self) -> int:
        return 1

    def _cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def _cuDeviceGetName(self, _size: int, _device: int) -> bytes:
        return b"Host\0"

    def _cuDeviceGetAttribute(self, attribute: Any, _device: int) -> int:
        return self._attributes[attribute.name.removeprefix("CU_DEVICE_ATTRIBUTE_")]

    def _cuDevicePrimaryCtxRetain(self, _device: int) -> int:
        self._contexts += 1
        return 1

    def _cuDevicePrimaryCtxRelease(self, _device: int) -> None:
        self._contexts -= 1

    def _cuCtxSetCurrent(self, context: int) -> None:
        self._current.stack = [context]

    def _cuCtxPushCurrent(self, context: int) -> None:
        self._current.stack = [*getattr(self._current, "stack", []), context]

    def _cuCtxPopCurrent(self) -> int:
        return int(self._current.stack.pop())

    def _cuCtxSynchronize(self) -> None:
        for stream in self.streams.all.values():
            self.streams.run(stream, stream.enqueued)

    def _cuMemGetInfo(self) -> tuple[int, int]:
        return self.memory.limit - self.memory.used, self.memory.limit

    # --- memory

    def _cuMemAlloc(self, size: int) -> int:
        return self.memory.allocate(size, "device")

    def _cuMemFree(self, pointer: int) -> None:
        self._cuCtxSynchronize()  # as the driver does
        self.memory.free(pointer, ("device",))

    def _cuMemHostAlloc(self, size: int, flags: int) -> int:
        return self.memory.allocate(size, "mapped" if flags & _MAPPED else "pinned")

    def _cuMemFreeHost(self, pointer: int) -> None:
        self._cuCtxSynchronize()
        self.memory.free(pointer, ("pinned", "mapped"))

    def _cuMemHostGetDevicePointer(self, address: int, _flags: int) -> int:
        self.memory.require(address, 1, "mapped memory")
        return address

    def _cuPointerGetAttribute(self, _attribute: Any, pointer: int) -> int:
        self.memory.require(pointer, 1, "a pointer")
        return 0

    def _cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.memory.require(target, size, "a copy")
        staged = None if self.memory.find(source, size) else ctypes.string_at(source, size)
        self._enqueue(stream, lambda: self._copy(target, source if staged is None else staged, size))

    def _cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.memory.require(source, size, "a copy")
        self._enqueue(stream, lambda: self._copy(target, source, size))
        if self.memory.find(target, size) is None:
            self.streams.refuse_while_capturing("a copy to pageable memory")
            self._cuStreamSynchronize(stream)

    def _cuMemcpyDtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.memory.require(source, size, "a copy")
        self.memory.require(target, size, "a copy")
        self._enqueue(stream, lambda: self._copy(target, source, size))

    def _cuMemsetD8Async(self, pointer: int, value: int, size: int, stream: int) -> None:
        def work() -> None:
            self.memory.require(pointer, size, "a fill")
            ctypes.memset(pointer, value, size)

        self._enqueue(stream, work)

    def _copy(self, target: int, source: int | bytes, size: int) -> None:
        for pointer in (target, source):
            # Pageable memory may be anywhere; the GPU's must still be there when its turn comes.
            if isinstance(pointer, int) and self.memory.find(pointer) is not None:
                assert self.memory.find(pointer, size), "a copy beyond an allocation"
        ctypes.memmove(target, source, size)

    # --- streams, events, graphs

    def _enqueue(self, handle: int, work: Callable[[], None]) -> None:
        self.streams.enqueue(self.stream(handle), work)

    def _cuStreamCreate(self, _flags: int) -> int:
        stream = Stream()
        handle = self._put(stream)
        self.streams.all[handle] = stream
        return handle

    def _cuStreamDestroy(self, handle: int) -> None:
        stream = self.stream(handle)
        self.streams.run(stream, stream.enqueued)
        del self.streams.all[int(handle)]
        self._drop(handle, Stream)

    def _cuStreamSynchronize(self, handle: int) -> None:
        stream = self.stream(handle)
        self.streams.run(stream, stream.enqueued)

    def _cuStreamQuery(self, handle: int) -> None:
        stream = self.stream(handle)
        if not self.streams.reached(Event(stream, stream.enqueued)):
            raise HostGpuError(_NOT_READY, "not ready")

    def _cuStreamWaitEvent(self, handle: int, event: int, _flags: int) -> None:
        self.streams.wait(self.stream(handle), self._get(event, Event))

    def _cuEventCreate(self, _flags: int) -> int:
        return self._put(Event())

    def _cuEventDestroy(self, handle: int) -> None:
        self._drop(handle, Event)

    def _cuEventRecord(self, handle: int, stream: int) -> None:
        self.streams.record(self._get(handle, Event), self.stream(stream))

    def _cuEventSynchronize(self, handle: int) -> None:
        event = self._get(handle, Event)
        if event.stream is not None:
            self.streams.run(event.stream, event.place)

    def _cuEventQuery(self, handle: int) -> None:
        if not self.streams.reached(self._get(handle, Event)):
            raise HostGpuError(_NOT_READY, "not ready")

    def _cuEventElapsedTime(self, _start: int, _end: int) -> float:
        return 1.0

    def _cuStreamBeginCapture(self, handle: int, _mode: Any) -> None:
        self.streams.begin_capture(self.stream(handle))

    def _cuStreamEndCapture(self, handle: int) -> int:
        return self._put(_Graph(self.streams.end_capture(self.stream(handle))))

    def _cuGraphInstantiate(self, handle: int, _flags: int) -> int:
        return self._put(_Executable(self._get(handle, _Graph).works))

    def _cuGraphDestroy(self, handle: int) -> None:
        self._drop(handle, _Graph)

    def _cuGraphUpload(self, handle: int, _stream: int) -> None:
        self._get(handle, _Executable)

    def _cuGraphLaunch(self, handle: int, stream: int) -> None:
        works = self._get(handle, _Executable).works
        self._enqueue(stream, lambda: [work() for work in works] and None)

    def _cuGraphExecDestroy(self, handle: int) -> None:
        self._drop(handle, _Executable)

    # --- kernels

    def _cuModuleLoadData(self, address: int) -> int:
        return self._put(_Module(kernel_parameters(_read_elf(address))))

    def _cuModuleUnload(self, handle: int) -> None:
        self._drop(handle, _Module)

    def _cuModuleGetFunction(self, handle: int, name: bytes) -> tuple[Any, ...]:
        return (_Function(name.decode(), self._get(handle, _Module).parameters[name.decode()]),)

    def _cuFuncSetAttribute(self, _function: Any, _attribute: Any, _value: int) -> None:
        return None

    def _cuLaunchKernel(self, function: _Function, *numbers: int) -> None:
        grid, block, (_shared, stream, parameters, _extra) = numbers[:3], numbers[3:6], numbers[6:]
        addresses = (ctypes.c_void_p * len(function.parameters)).from_address(parameters)
        # The driver copies arguments when a kernel is launched, or captured.
        values = [
            np.frombuffer(ctypes.string_at(address, parameter.size), np.uint8)
            for address, parameter in zip(addresses, function.parameters, strict=True)
        ]
        kernels = HostKernels.of(_family_of_kernel()[function.name])
        self._enqueue(stream, lambda: kernels.run_packed(function.name, grid, block, values))


class _Graph:
    def __init__(self, works: Sequence[Callable[[], None]]) -> None:
        self.works = tuple(works)


class _Executable(_Graph):
    pass


class _Module:
    def __init__(self, parameters: dict[str, tuple[Parameter, ...]]) -> None:
        self.parameters = parameters


class _Function:
    def __init__(self, name: str, parameters: tuple[Parameter, ...]) -> None:
        self.name, self.parameters = name, parameters


def _read_elf(address: int) -> bytes:
    """A file in memory, which says itself how long it is: its table of sections, or a section, comes last."""
    header = ctypes.string_at(address, 64)
    (table,) = struct.unpack_from("<Q", header, 0x28)
    entry, count = struct.unpack_from("<HH", header, 0x3A)
    ends = [table + entry * count]
    for i in range(count):
        kind, offset, size = struct.unpack_from("<4xI16xQQ", ctypes.string_at(address + table + i * entry, 40))
        ends.append(0 if kind == 8 else offset + size)  # 8: no bytes in the file
    return ctypes.string_at(address, max(ends))
