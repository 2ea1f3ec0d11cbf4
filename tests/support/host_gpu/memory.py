"""Allocations of the host's GPU: found by any address inside them, checked at both ends."""

from __future__ import annotations

import bisect
import ctypes
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Allocation", "HostGpuError", "HostMemory"]

INVALID_VALUE, OUT_OF_MEMORY, ILLEGAL_ADDRESS = 1, 2, 700
_ALIGNMENT, _POISON = 256, 0xCD


class HostGpuError(Exception):
    """What the driver answers instead of doing it: the number of cuda.h, and words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Allocation:
    """A piece of memory; `kind` is "device", "pinned" or "mapped"."""

    pointer: int
    size: int
    kind: str
    content: Any = field(repr=False)

    def __str__(self) -> str:
        return f"{self.size} bytes of {self.kind} memory"


class HostMemory:
    """All allocations.

    Attributes:
        limit: Bytes that there are in all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._starts: list[int] = []
        self._by_start: dict[int, Allocation] = {}

    def live(self) -> list[Allocation]:
        """What has not been freed."""
        return list(self._by_start.values())

    @property
    def used(self) -> int:
        """Bytes on the GPU."""
        return sum(allocation.size for allocation in self.live() if allocation.kind == "device")

    def allocate(self, size: int, kind: str) -> int:
        """Address of new memory, full of poison."""
        if size < 1:
            raise HostGpuError(INVALID_VALUE, "nothing is allocated for 0 bytes")
        if kind == "device" and self.used + size > self.limit:
            raise HostGpuError(OUT_OF_MEMORY, "out of memory")
        content = np.full(size + _ALIGNMENT, _POISON, np.uint8)
        pointer = -(-content.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        self._by_start[pointer] = Allocation(pointer, size, kind, content)
        bisect.insort(self._starts, pointer)
        return pointer

    def free(self, pointer: int, kinds: tuple[str, ...]) -> None:
        """Give memory back, by its first address."""
        allocation = self._by_start.get(pointer)
        if allocation is None or allocation.kind not in kinds:
            raise HostGpuError(INVALID_VALUE, f"{pointer:#x} is no {' or '.join(kinds)} memory")
        # Whoever still reads it reads poison.
        allocation.content[:] = _POISON
        del self._by_start[pointer]
        self._starts.remove(pointer)

    def find(self, pointer: int, size: int = 1) -> Allocation | None:
        """The allocation that holds a range, None where none does."""
        place = bisect.bisect_right(self._starts, pointer) - 1
        if place < 0:
            return None
        allocation = self._by_start[self._starts[place]]
        return allocation if pointer + size <= allocation.pointer + allocation.size else None

    def require(self, pointer: int, size: int, what: str) -> None:
        """The range lies where kernels and copies on the GPU reach."""
        allocation = self.find(pointer, size)
        if allocation is None or allocation.kind == "pinned":
            raise HostGpuError(ILLEGAL_ADDRESS, f"{what}: {size} bytes at {pointer:#x} are not the GPU's")

    def view(self, pointer: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The GPU's memory as an array."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0:
            return np.zeros(shape, dtype)
        self.require(pointer, size, "a view")
        return np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), dtype).reshape(shape)
