"""An array on the GPU: where its elements are, who owns them, and how others may use them without a copy."""

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

# Numbers by which DLPack and the CUDA array interface name the two default streams; 0 is ambiguous and not allowed.
_LEGACY_STREAM = 1


class DeviceArray:
    """A view of device memory, for kernels, PyTorch, CuPy and others; owns nothing itself.

    It has ``__cuda_array_interface__`` (version 3) and ``__dlpack__``. A DLPack consumer keeps the memory, even past
    the closing of its buffer. One that uses the CUDA array interface must keep this object, and nobody may close the
    buffer while it does; PyTorch, CuPy and PyCUDA keep it.

    Args:
        device: Where the memory is.
        pointer: First element.
        shape: Elements along each axis.
        dtype: Of the elements.
        strides: Bytes along each axis; None is C order without gaps.
        owner: Kept alive as long as this view; an :class:`Owned` is also held by every DLPack consumer.
        writable: Others may write.
        stream: Where the elements are, or will be, written; others wait for it. None: they are there already.

    Raises:
        ShapeError: Negative sizes, or strides that do not go with the shape.
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
        """Of the elements, gaps not counted."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """C order without gaps; strides of axes with one element, and of empty arrays, do not matter."""
        if 0 in self.shape:
            return True
        expected = contiguous_strides(self.shape, self.dtype)
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, expected, strict=True))

    def upload(self, array: npt.NDArray[Any], stream: Stream) -> None:
        """Copy from the host, in the stream.

        Args:
            array: Same shape and dtype, C-contiguous. In pinned memory it must stay unchanged until the copy is done;
                any other memory may be used again when this returns.
            stream: Orders the copy.

        Raises:
            ShapeError: The arrays do not match, or one of them has gaps.
        """
        self._check_host(array)
        if self.num_bytes:
            call = self.device.driver.call
            call("cuMemcpyHtoDAsync", self.pointer, array.ctypes.data, self.num_bytes, stream.handle)

    def download(self, array: npt.NDArray[Any], stream: Stream) -> None:
        """Copy to the host, in the stream.

        Args:
            array: Same shape and dtype, C-contiguous, writable. In pinned memory it is filled when the stream gets
                there; with any other memory this call waits for it.
            stream: Orders the copy.

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
        """A new array on the host; waits. For tests and for looking."""
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
        """A capsule for ``from_dlpack``; `stream`, the consumer's, waits for ours.

        Raises:
            BufferError: A copy, or another device, is asked for.
            ShapeError: The consumer is too old to know read-only memory, and this is such.
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
    """Does nothing when called; keeps an object until it is itself let go."""

    def __init__(self, kept: object) -> None:
        self.kept = kept

    def __call__(self) -> None:
        self.kept = None


def contiguous_strides(shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[int, ...]:
    """Bytes along each axis in C order without gaps."""
    item = np.dtype(dtype).itemsize
    return tuple(item * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _let_wait(producer: Stream, consumer: Stream) -> None:
    """What `consumer` does from now on waits for what `producer` has been given."""
    with consumer:
        if producer.handle != consumer.handle:
            with Event(producer.device) as event:
                event.record(producer)
                consumer.wait_for(event)
