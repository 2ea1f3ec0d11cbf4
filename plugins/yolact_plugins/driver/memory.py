"""Memory buffers: on the GPU, pinned on the host, and on the host mapped into the GPU."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.ownership import Owned, close_after_failure
from yolact_plugins.errors import ShapeError

__all__ = ["DeviceBuffer", "MappedBuffer", "PinnedBuffer"]

_PORTABLE, _DEVICE_MAP = 1, 2


class DeviceBuffer(Owned):
    """An owned buffer of GPU memory. Its content is initially undefined.

    Args:
        device: The device that holds the memory; kept alive.
        num_bytes: Size in bytes, at least 1.

    Raises:
        CudaOutOfMemoryError: There is not enough free GPU memory.

    Attributes:
        pointer: Device address, aligned to 256 bytes.
        num_bytes: Size in bytes.
    """

    def __init__(self, device: Device, num_bytes: int) -> None:
        _check_size(num_bytes)
        device.require_open()
        self.device = device
        self.num_bytes = num_bytes
        with device.current():
            self.pointer = int(device.driver.call("cuMemAlloc", num_bytes))
        super().__init__(device)

    def array(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset_bytes: int = 0, stream: Stream | None = None
    ) -> DeviceArray:
        """View a part of the buffer in C order.

        The view prevents the buffer from being collected, but not from being closed.

        Args:
            shape: Number of elements along each axis.
            dtype: Data type of the elements.
            offset_bytes: Offset of the first element in bytes; a multiple of the element's size.
            stream: Stream in which the elements are written; see :class:`DeviceArray`.

        Raises:
            ShapeError: The part extends beyond the buffer, or is not aligned.
        """
        self.require_open()
        _check_part(shape, dtype, offset_bytes, self.num_bytes)
        return DeviceArray(self.device, self.pointer + offset_bytes, shape, dtype, owner=self, stream=stream)

    def fill(self, byte: int, stream: Stream) -> None:
        """Enqueue setting every byte, in the stream."""
        self.require_open()
        self.device.driver.call("cuMemsetD8Async", self.pointer, byte, self.num_bytes, stream.handle)

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuMemFree", self.pointer)


class PinnedBuffer(Owned):
    """An owned buffer of page-locked host memory, which the GPU copies from and to asynchronously.

    It comes from the driver's old allocator (``cuMemHostAlloc``), because Jetsons have no host memory pools.

    Args:
        device: A device, which is kept alive; other devices of the process may use the memory, too.
        num_bytes: Size in bytes, at least 1.

    Raises:
        CudaOutOfMemoryError: There is not enough memory.

    Attributes:
        address: Address on the host.
        num_bytes: Size in bytes.
    """

    _flags = _PORTABLE

    def __init__(self, device: Device, num_bytes: int) -> None:
        _check_size(num_bytes)
        device.require_open()
        self.device = device
        self.num_bytes = num_bytes
        with device.current():
            self.address = int(device.driver.call("cuMemHostAlloc", num_bytes, self._flags))
        super().__init__(device)

    def host_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset_bytes: int = 0) -> npt.NDArray[Any]:
        """View a part as a NumPy array, which prevents the buffer from being collected. Do not use it after closing.

        Raises:
            ShapeError: The part extends beyond the buffer, or is not aligned.
        """
        self.require_open()
        return self._view(shape, dtype, offset_bytes, self)

    def lasting_array(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset_bytes: int = 0) -> npt.NDArray[Any]:
        """View a part as a NumPy array for other owners: the memory outlives the closing until no such array is left.

        Raises:
            ShapeError: The part extends beyond the buffer, or is not aligned.
        """
        self.require_open()
        return self._view(shape, dtype, offset_bytes, _Hold(self))

    def _view(self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset_bytes: int, owner: object) -> npt.NDArray[Any]:
        num_bytes = _check_part(shape, dtype, offset_bytes, self.num_bytes)
        if num_bytes == 0:
            return np.empty(shape, dtype)
        content: Any = (ctypes.c_uint8 * num_bytes).from_address(self.address + offset_bytes)
        content.owner = owner
        return np.frombuffer(content, dtype, math.prod(shape)).reshape(shape)

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuMemFreeHost", self.address)


class MappedBuffer(PinnedBuffer):
    """Pinned memory that kernels access directly: without a copy on a Jetson, over the bus elsewhere.

    Attributes:
        pointer: Device address of the same memory.
    """

    _flags = _PORTABLE | _DEVICE_MAP

    def __init__(self, device: Device, num_bytes: int) -> None:
        super().__init__(device, num_bytes)
        try:
            with device.current():
                self.pointer = int(device.driver.call("cuMemHostGetDevicePointer", self.address, 0))
        except BaseException:
            close_after_failure(self.close)
            raise

    def device_array(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike, offset_bytes: int = 0, stream: Stream | None = None
    ) -> DeviceArray:
        """View a part for kernels; see :meth:`DeviceBuffer.array`. The host must not write while kernels read."""
        self.require_open()
        _check_part(shape, dtype, offset_bytes, self.num_bytes)
        return DeviceArray(self.device, self.pointer + offset_bytes, shape, dtype, owner=self, stream=stream)


class _Hold:
    """A reference that holds an owned object as long as it lives."""

    def __init__(self, held: Owned) -> None:
        held.hold()
        self._held = held

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # If the interpreter is exiting, the process frees everything.
        if not _is_finalizing():
            self._held.drop()


def _check_size(num_bytes: int) -> None:
    if num_bytes < 1:
        raise ShapeError(f"a buffer has at least one byte; {num_bytes} are requested")


def _check_part(shape: tuple[int, ...], dtype: npt.DTypeLike, offset_bytes: int, available: int) -> int:
    """Return the size of the part in bytes."""
    item = np.dtype(dtype).itemsize
    num_bytes = math.prod(shape) * item
    if min(shape, default=0) < 0 or not 0 <= offset_bytes <= available - num_bytes:
        raise ShapeError(
            f"{np.dtype(dtype)} of shape {shape} from byte {offset_bytes} on does not fit a buffer of {available} bytes"
        )
    if offset_bytes % item:
        raise ShapeError(f"{np.dtype(dtype)} cannot start at byte {offset_bytes}: {item} does not divide it")
    return num_bytes
