"""An array on the GPU, and its exchange with other libraries without a copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver import dlpack
from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.driver.ownership import Owned
from yolact_plugins.errors import ShapeError

__all__ = ["DeviceArray", "contiguous_strides"]

# Value that DLPack and the CUDA array interface use for the legacy default stream; 0 is ambiguous and forbidden.
_LEGACY_STREAM = 1


class DeviceArray:
    """A non-owning view of device memory for kernels, PyTorch, CuPy and others.

    It implements ``__cuda_array_interface__`` (version 3) and ``__dlpack__``. A DLPack consumer keeps the memory alive,
    even after its buffer is closed. A consumer that uses the CUDA array interface must keep a reference to this object
    (PyTorch, CuPy and PyCUDA do), and the buffer must not be closed meanwhile.

    Args:
        device: The device that holds the memory.
        pointer: Device address of the first element.
        shape: Number of elements along each axis.
        dtype: Data type of the elements.
        strides: Number of bytes between elements along each axis; None means C order without gaps.
        owner: Object that is kept alive as long as this view; an :class:`Owned` is also held by every DLPack consumer.
        writable: Whether others may write to the memory.
        stream: Stream in which the elements are written, which consumers wait for; None if they are already complete.

    Raises:
        ShapeError: A size is negative, or the strides do not match the shape.
    """

    def __init__(
        self,
        device: Device,
        pointer: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        *,
        strides: tuple[int, ...] | None = None,
        owner: object = None,
        writable: bool = True,
        stream: Stream | None = None,
    ) -> None:
        self.device = device
        self.pointer = pointer
        self.shape = tuple(int(side) for side in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.strides = contiguous_strides(self.shape, self.dtype) if strides is None else tuple(strides)
        self.owner = owner
        self.writable = writable
        self.stream = stream
        if any(side < 0 for side in self.shape) or len(self.strides) != len(self.shape):
            raise ShapeError(f"no array has shape {self.shape} with strides of {self.strides} bytes")

    @property
    def num_bytes(self) -> int:
        """Size of the elements in bytes, not counting gaps."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the array is in C order without gaps; strides of axes of size 1 and of empty arrays are ignored."""
        if 0 in self.shape:
            return True
        expected = contiguous_strides(self.shape, self.dtype)
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, expected, strict=True))

    def upload(self, array: npt.NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy from the host in a stream.

        Args:
            array: C-contiguous host array of the same shape and dtype. Pinned memory must stay unchanged until the copy
                is done; any other memory may be reused when this returns.
            stream: Stream in which the copy is enqueued.

        Raises:
            ShapeError: The arrays do not match, or one of them has gaps.
        """
        self._check_host(array)
        if self.num_bytes:
            call = self.device.driver.call
            call("cuMemcpyHtoDAsync", self.pointer, array.ctypes.data, self.num_bytes, stream.handle)

    def download(self, array: npt.NDArray[Any], stream: Stream) -> None:
        """Enqueue a copy to the host in a stream.

        Args:
            array: Writable C-contiguous host array of the same shape and dtype. Pinned memory is filled when the stream
                gets there; for any other memory this call waits.
            stream: Stream in which the copy is enqueued.

        Raises:
            ShapeError: The arrays do not match, one of them has gaps, or `array` is read-only.
        """
        self._check_host(array)
        if not array.flags.writeable:
            raise ShapeError("cannot download into a read-only array")
        if self.num_bytes:
            call = self.device.driver.call
            call("cuMemcpyDtoHAsync", array.ctypes.data, self.pointer, self.num_bytes, stream.handle)

    def numpy(self, stream: Stream) -> npt.NDArray[Any]:
        """Copy the array to a new NumPy array and wait for it. For tests and inspection."""
        array = np.empty(self.shape, self.dtype)
        self.download(array, stream)
        stream.synchronize()
        return array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer if self.num_bytes else 0, not self.writable),
            "strides": None if self.is_contiguous else self.strides,
            "stream": None if self.stream is None else self.stream.handle or _LEGACY_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device.ordinal

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a capsule for ``from_dlpack``; the consumer's `stream` waits for the producer's.

        Raises:
            BufferError: The consumer requests a copy or another device.
            ShapeError: The memory is read-only, and the consumer's DLPack version cannot express that.
        """
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("this array is exported where it is, without a copy; copy it afterwards")
        if self.stream is not None and stream != -1:
            _let_wait(self.stream, Stream(self.device, borrowed=stream or _LEGACY_STREAM))
        owner = self.owner
        if isinstance(owner, Owned):
            owner.hold()
        try:
            return dlpack.export_capsule(
                self.pointer,
                self.shape,
                self.dtype,
                self.strides,
                self.__dlpack_device__(),
                done=owner.drop if isinstance(owner, Owned) else _Keep(owner),
                versioned=max_version is not None and max_version[0] >= 1,
                writable=self.writable,
            )
        except BaseException:
            if isinstance(owner, Owned):
                owner.drop()
            raise

    def _check_host(self, array: npt.NDArray[Any]) -> None:
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ShapeError(
                f"the array on the GPU is {self.dtype} of shape {self.shape}, the one on the host "
                f"{array.dtype} of shape {array.shape}"
            )
        if not (self.is_contiguous and array.flags.c_contiguous):
            raise ShapeError("arrays are copied only without gaps: use numpy.ascontiguousarray")


class _Keep:
    """A callable without effect that keeps an object alive until it is itself released."""

    def __init__(self, kept: object) -> None:
        self.kept = kept

    def __call__(self) -> None:
        self.kept = None


def contiguous_strides(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[int, ...]:
    """Return the number of bytes between elements along each axis in C order without gaps."""
    item = np.dtype(dtype).itemsize
    return tuple(item * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _let_wait(producer: Stream, consumer: Stream) -> None:
    """Make future work in `consumer` wait for the work enqueued in `producer`."""
    with consumer:
        if producer.handle != consumer.handle:
            with Event(producer.device) as event:
                event.record(producer)
                consumer.wait_for(event)
