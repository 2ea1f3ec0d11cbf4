"""Allocations of the simulated GPU: found by any address inside them, guarded on both sides, remembered once freed."""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from support.host_gpu.faults import HostGpuError, Status

__all__ = ["DEVICE", "MAPPED", "PINNED", "Allocation", "HostMemory", "Range"]

DEVICE, PINNED, MAPPED = "device", "pinned", "mapped"
Range = tuple[int, int]
"""First address, and number of bytes; 0 bytes where only the beginning is known."""
_ALIGNMENT, _GUARD, _POISON = 256, 256, 0xCD
# Freed memory is kept poisoned, so that its address is nobody else's for a while; this much of it.
_KEPT_BYTES = 32 << 20


@dataclass(eq=False)
class Allocation:
    """A piece of memory; `kind` is ``DEVICE``, ``PINNED`` or ``MAPPED``."""

    pointer: int
    size: int
    kind: str
    content: npt.NDArray[np.uint8] = field(repr=False)
    start: int = field(repr=False)

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.kind} memory"

    @property
    def inside(self) -> npt.NDArray[np.uint8]:
        """Bytes that were requested."""
        return self.content[self.start : self.start + self.size]

    def holds(self, pointer: int, size: int) -> bool:
        """Return whether the whole range lies inside."""
        return self.pointer <= pointer and pointer + size <= self.pointer + self.size

    def meets(self, pointer: int, size: int) -> bool:
        """Return whether some of the range lies inside; a range of 0 bytes counts as one byte."""
        return pointer < self.pointer + self.size and self.pointer < pointer + max(size, 1)

    def is_intact(self) -> bool:
        """Return whether the guard zones are unchanged."""
        before, after = self.content[: self.start], self.content[self.start + self.size :]
        return bool((before == _POISON).all() and (after == _POISON).all())


class HostMemory:
    """All allocations of the simulated GPU.

    Attributes:
        limit: Size of device memory, bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._starts: list[int] = []
        self._by_start: dict[int, Allocation] = {}
        self._freed: deque[Allocation] = deque()
        self._damage: list[str] = []

    def live(self) -> list[Allocation]:
        """Return the allocations that have not been freed."""
        return list(self._by_start.values())

    @property
    def used(self) -> int:
        """Bytes in use on the GPU."""
        return sum(allocation.size for allocation in self.live() if allocation.kind == DEVICE)

    def allocate(self, size: int, kind: str) -> int:
        """Allocate memory filled with poison and return its address."""
        if size < 1:
            raise HostGpuError(Status.INVALID_VALUE, "nothing is allocated for 0 bytes")
        if kind == DEVICE and self.used + size > self.limit:
            raise HostGpuError(Status.OUT_OF_MEMORY, "out of memory")
        content = np.full(size + 2 * _GUARD + _ALIGNMENT, _POISON, np.uint8)
        pointer = -(-(content.ctypes.data + _GUARD) // _ALIGNMENT) * _ALIGNMENT
        self._by_start[pointer] = Allocation(pointer, size, kind, content, pointer - content.ctypes.data)
        bisect.insort(self._starts, pointer)
        return pointer

    def owner(self, pointer: int, kinds: Iterable[str]) -> Allocation:
        """Return the allocation that begins at an address, to free it."""
        allocation = self._by_start.get(pointer)
        if allocation is None or allocation.kind not in kinds:
            raise HostGpuError(Status.INVALID_VALUE, f"{pointer:#x} is not {' or '.join(kinds)} memory")
        return allocation

    def free(self, allocation: Allocation) -> None:
        """Free memory. Later reads find poison; later writes are reported by :meth:`damage`."""
        self._note_damage(allocation, allocation.is_intact(), "was left: something wrote beside it")
        allocation.content[:] = _POISON
        del self._by_start[allocation.pointer]
        self._starts.remove(allocation.pointer)
        self._freed.append(allocation)
        while sum(kept.size for kept in self._freed) > _KEPT_BYTES:
            self._require_poison(self._freed.popleft())

    def find(self, pointer: int, size: int = 1) -> Allocation | None:
        """Return the allocation that holds a range, or None."""
        place = bisect.bisect_right(self._starts, pointer) - 1
        allocation = self._by_start[self._starts[place]] if place >= 0 else None
        return allocation if allocation is not None and allocation.holds(pointer, size) else None

    def require(self, pointer: int, size: int, what: str) -> Allocation:
        """Return the allocation that holds a range, which kernels and copies on the GPU must be able to access."""
        allocation = self.find(pointer, size)
        if allocation is None or allocation.kind == PINNED:
            where = self._explain(pointer, size)
            raise HostGpuError(Status.ILLEGAL_ADDRESS, f"{what}: {size} bytes at {pointer:#x} are not the GPU's{where}")
        return allocation

    def find_host(self, address: int, size: int, what: str) -> Allocation | None:
        """Return the host's side of a copy: pinned or mapped memory, or None for pageable memory."""
        allocation = self.find(address, size)
        if allocation is None and not self._explain(address, size):
            return None
        if allocation is None or allocation.kind == DEVICE:
            where = self._explain(address, size)
            raise HostGpuError(Status.INVALID_VALUE, f"{what}: {size} bytes at {address:#x} are not the host's{where}")
        return allocation

    def require_intact(self, ranges: Iterable[Range], what: str) -> None:
        """Raise an error if something wrote outside of the allocations of these ranges."""
        for pointer, size in ranges:
            allocation = self.find(pointer, size)
            if allocation is not None and not allocation.is_intact():
                # Once is enough: the next kernel is not to be blamed.
                inside = allocation.inside.copy()
                allocation.content[:] = _POISON
                allocation.inside[:] = inside
                raise HostGpuError(Status.ILLEGAL_ADDRESS, f"{what} wrote beside {allocation}")

    def view(self, pointer: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the GPU's memory as an array, which does not prevent it from being freed."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.zeros(shape, dtype)
        allocation = self.require(pointer, size, "a view")
        start = pointer - allocation.pointer
        return allocation.inside[start : start + size].view(dtype).reshape(shape)

    def damage(self) -> list[str]:
        """Return the writes outside of allocations, or into freed ones."""
        for allocation in self.live():
            self._note_damage(allocation, allocation.is_intact(), "was left: something wrote beside it")
        for allocation in self._freed:
            self._require_poison(allocation)
        return list(self._damage)

    def _require_poison(self, allocation: Allocation) -> None:
        clean = bool((allocation.content == _POISON).all())
        self._note_damage(allocation, clean, "was written after it had been freed")

    def _note_damage(self, allocation: Allocation, clean: bool, text: str) -> None:
        if not clean and (said := f"{allocation} {text}") not in self._damage:
            self._damage.append(said)

    def _explain(self, pointer: int, size: int) -> str:
        """Describe the allocations that an invalid range overlaps; empty if there are none."""
        for allocation in self.live():
            if allocation.meets(pointer, size):
                return f"; there are {allocation} at {allocation.pointer:#x}"
        for allocation in reversed(self._freed):
            if allocation.meets(pointer, size):
                return f"; {allocation} were there and have been freed"
        return ""
