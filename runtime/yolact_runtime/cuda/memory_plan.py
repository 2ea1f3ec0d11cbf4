"""Many arrays in one allocation, planned first, so that a frame's memory is allocated and freed at once."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.memory import DeviceBuffer, MappedBuffer, PinnedBuffer

__all__ = ["MemoryPlan"]

# Alignment of the driver's allocations, which TensorRT and kernels with wide loads require.
_ALIGNMENT = 256


class MemoryPlan:
    """Names, shapes, dtypes and positions of arrays in one allocation."""

    def __init__(self) -> None:
        self._arrays: dict[str, tuple[int, tuple[int, ...], npt.DTypeLike]] = {}
        self._end = 0

    def add(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Reserve an array in C order; arrays lie in the order in which they are added."""
        self._arrays[name] = (self._end, shape, dtype)
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._end += -(-size // _ALIGNMENT) * _ALIGNMENT

    @property
    def num_bytes(self) -> int:
        """Size of all arrays in bytes; at least 1, because there are no empty allocations."""
        return max(self._end, 1)

    def on_device(self, buffer: DeviceBuffer | MappedBuffer) -> dict[str, DeviceArray]:
        """Return views of the arrays for kernels."""
        view = buffer.device_array if isinstance(buffer, MappedBuffer) else buffer.array
        return {name: view(shape, dtype, offset) for name, (offset, shape, dtype) in self._arrays.items()}

    def on_host(self, buffer: PinnedBuffer) -> dict[str, npt.NDArray[np.generic]]:
        """Return views of pinned memory that contains the planned arrays or a copy of them."""
        return {name: buffer.host_array(shape, dtype, offset) for name, (offset, shape, dtype) in self._arrays.items()}
