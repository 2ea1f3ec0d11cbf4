"""Calls of the driver for memory: allocating, freeing, copying, filling."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from support.host_gpu.faults import HostGpuError, Status
from support.host_gpu.handles import Handles
from support.host_gpu.memory import DEVICE, MAPPED, PINNED, HostMemory, Range
from support.host_gpu.streams import HostStreams, Stream, Work

__all__ = ["MemoryCalls"]

_DEVICE_MAP = 2


class MemoryCalls:
    """Functions for memory, whose ranges are checked at the call, and once more when the work runs.

    Args:
        memory: Allocations of the GPU.
        streams: Streams that copies and fills are enqueued in.
        handles: Handles of streams.
        strict_free: Whether freeing memory that pending work uses is an error; otherwise it waits for everything.

    Attributes:
        implicit_waits: Number of copies to pageable memory, each of which synchronised its stream.
    """

    def __init__(self, memory: HostMemory, streams: HostStreams, handles: Handles, strict_free: bool) -> None:
        self._memory, self._streams, self._handles = memory, streams, handles
        self._strict_free = strict_free
        self.implicit_waits = 0

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions by their names in the driver."""
        return {
            "cuMemAlloc": lambda size: self._memory.allocate(size, DEVICE),
            "cuMemFree": lambda pointer: self._free(pointer, DEVICE),
            "cuMemHostAlloc": self._allocate_on_host,
            "cuMemFreeHost": lambda address: self._free(address, PINNED, MAPPED),
            "cuMemHostGetDevicePointer": self._device_pointer,
            "cuPointerGetAttribute": self._pointer_attribute,
            "cuMemcpyHtoDAsync": self._upload,
            "cuMemcpyDtoHAsync": self._download,
            "cuMemcpyDtoDAsync": self._copy,
            "cuMemsetD8Async": self._fill_bytes,
            "cuMemsetD32Async": self._fill_words,
        }

    def _allocate_on_host(self, size: int, flags: int) -> int:
        return self._memory.allocate(size, MAPPED if flags & _DEVICE_MAP else PINNED)

    def _free(self, pointer: int, *kinds: str) -> None:
        allocation = self._memory.owner(pointer, kinds)
        if not self._strict_free:
            self._streams.synchronize_all()
        for work in self._streams.waiting():
            if any(allocation.meets(*each) for each in work.ranges):
                raise HostGpuError(
                    Status.INVALID_VALUE,
                    f"{allocation} are freed while {work.what} that uses them waits in a stream; synchronise first",
                )
        self._memory.free(allocation)

    def _device_pointer(self, address: int, _flags: int) -> int:
        self._memory.require(address, 1, "mapped memory")
        return address

    def _pointer_attribute(self, attribute: Any, pointer: int) -> int:
        if attribute.name != "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL" or self._memory.find(pointer) is None:
            raise HostGpuError(Status.INVALID_VALUE, f"nothing is known of {attribute.name} at {pointer:#x}")
        return 0

    def _upload(self, target: int, source: int, size: int, handle: int) -> None:
        stream = self._handles.get(handle, Stream)
        self._memory.require(target, size, "an upload")
        if self._memory.find_host(source, size, "an upload") is not None:
            self._move("an upload", stream, target, source, size)
            return
        # Pageable memory is staged: it may change as soon as the call is over.
        self._refuse_in_a_capture(stream, "an upload from pageable memory")
        staged = ctypes.create_string_buffer(ctypes.string_at(source, size), size)

        def work() -> None:
            self._memory.require(target, size, "an upload")
            ctypes.memmove(target, staged, size)

        self._streams.enqueue(stream, Work(work, "an upload", ((target, size),)))

    def _download(self, target: int, source: int, size: int, handle: int) -> None:
        stream = self._handles.get(handle, Stream)
        self._memory.require(source, size, "a download")
        if self._memory.find_host(target, size, "a download") is not None:
            self._move("a download", stream, target, source, size)
            return
        self._refuse_in_a_capture(stream, "a download to pageable memory")

        def work() -> None:
            self._memory.require(source, size, "a download")
            ctypes.memmove(target, source, size)

        self._streams.enqueue(stream, Work(work, "a download", ((source, size),)))
        self.implicit_waits += 1
        self._streams.synchronize(stream)

    def _copy(self, target: int, source: int, size: int, handle: int) -> None:
        stream = self._handles.get(handle, Stream)
        for pointer in (target, source):
            self._memory.require(pointer, size, "a copy")
        self._move("a copy", stream, target, source, size)

    def _move(self, what: str, stream: Stream, target: int, source: int, size: int) -> None:
        """Copy between two allocations, in the stream."""
        ranges: tuple[Range, ...] = ((target, size), (source, size))

        def work() -> None:
            for pointer, _ in ranges:
                if self._memory.find(pointer, size) is None:
                    raise HostGpuError(Status.ILLEGAL_ADDRESS, f"{what}: {size} bytes at {pointer:#x} are gone")
            ctypes.memmove(target, source, size)

        self._streams.enqueue(stream, Work(work, what, ranges))

    def _fill_bytes(self, pointer: int, value: int, size: int, handle: int) -> None:
        self._fill(pointer, (value & 0xFF).to_bytes(1, "little"), size, handle)

    def _fill_words(self, pointer: int, value: int, count: int, handle: int) -> None:
        if pointer % 4:
            raise HostGpuError(Status.INVALID_VALUE, f"a fill: {pointer:#x} is not aligned to 4 bytes")
        self._fill(pointer, (value & 0xFFFFFFFF).to_bytes(4, "little"), count, handle)

    def _fill(self, pointer: int, pattern: bytes, count: int, handle: int) -> None:
        stream, size = self._handles.get(handle, Stream), len(pattern) * count
        self._memory.require(pointer, size, "a fill")

        def work() -> None:
            self._memory.require(pointer, size, "a fill")
            ctypes.memmove(pointer, pattern * count, size)

        self._streams.enqueue(stream, Work(work, "a fill", ((pointer, size),)))

    def _refuse_in_a_capture(self, stream: Stream, what: str) -> None:
        """Invalidate a capture, because a graph cannot repeat staging or waiting."""
        if stream.capture is not None:
            stream.capture.invalid = True
            raise HostGpuError(Status.CAPTURE_UNSUPPORTED, f"{what} is not permitted when stream is capturing")
