"""Import of GPU arrays of PyTorch, CuPy, PyCUDA and others without a copy, after checks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver import dlpack
from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.errors import ShapeError

__all__ = ["is_device_array", "take_array"]

_PREFIX = "this array cannot be used without a copy:"


def is_device_array(candidate: object) -> bool:
    """Return whether an object lies on a GPU, according to DLPack or a CUDA array interface."""
    where = getattr(candidate, "__dlpack_device__", None)
    if where is not None:
        return int(where()[0]) in {dlpack.CUDA, dlpack.CUDA_MANAGED}
    return hasattr(candidate, "__cuda_array_interface__")


def take_array(
    candidate: Any,
    device: Device,
    stream: Stream,
    *,
    dtype: npt.DTypeLike | None = None,
    ndim: int | None = None,
    contiguous: bool = True,
    writable: bool = False,
) -> DeviceArray:
    """View a foreign array; `stream` waits, on the device, for writes that its owner has enqueued.

    DLPack is preferred, because PyTorch's CUDA array interface does not state which stream is writing. The view keeps
    the foreign memory until it is collected; keep the view until the work that reads it is done.

    Args:
        candidate: Object with ``__dlpack__`` or ``__cuda_array_interface__``, such as a :class:`DeviceArray`.
        device: The device that the array must be on.
        stream: Stream in which the array will be used.
        dtype: Required dtype; None accepts any.
        ndim: Required number of axes; None accepts any.
        contiguous: Whether the array must be in C order without gaps; otherwise strides are kept.
        writable: Whether the array must be writable.

    Raises:
        ShapeError: The object is not a GPU array, or fails a check; the message says which one and what to do.
    """
    if not is_device_array(candidate):
        raise ShapeError(
            f"a {type(candidate).__name__} is not a GPU array: it has neither __dlpack__ for CUDA nor "
            f"__cuda_array_interface__"
        )
    by_dlpack = hasattr(candidate, "__dlpack__") and hasattr(candidate, "__dlpack_device__")
    array = (_take_dlpack if by_dlpack else _take_interface)(candidate, device, stream)
    if dtype is not None and array.dtype != np.dtype(dtype):
        raise ShapeError(f"{_PREFIX} it is {array.dtype} and must be {np.dtype(dtype)}; convert it")
    if ndim is not None and len(array.shape) != ndim:
        raise ShapeError(f"{_PREFIX} it has shape {array.shape} and must have {ndim} axes")
    if contiguous and not array.is_contiguous:
        raise ShapeError(
            f"{_PREFIX} its strides of {array.strides} bytes leave gaps or another order in shape {array.shape}; "
            f"make it contiguous"
        )
    if writable and not array.writable:
        raise ShapeError(f"{_PREFIX} it is read-only, and results are to be written to it")
    return array


def _take_dlpack(candidate: Any, device: Device, stream: Stream) -> DeviceArray:
    _, number = candidate.__dlpack_device__()
    if int(number) != device.ordinal:
        raise ShapeError(f"{_PREFIX} it is on GPU {number}, the segmenter on GPU {device.ordinal}; move it there")
    # By the specification 0 is ambiguous, and the legacy default stream is 1.
    handle = stream.handle or 1
    try:
        capsule = candidate.__dlpack__(stream=handle, max_version=(1, 0))
    except TypeError:
        # The producer implements DLPack as it was before 1.0.
        capsule = candidate.__dlpack__(stream=handle)
    tensor = dlpack.import_capsule(capsule)
    layout = tensor.layout
    return DeviceArray(
        device,
        layout.pointer,
        layout.shape,
        layout.dtype,
        strides=layout.strides_bytes,
        owner=tensor,
        writable=layout.writable,
    )


def _take_interface(candidate: Any, device: Device, stream: Stream) -> DeviceArray:
    interface = candidate.__cuda_array_interface__
    try:
        version, shape = interface["version"], tuple(interface["shape"])
        (pointer, read_only), dtype = interface["data"], np.dtype(interface["typestr"])
    except (KeyError, TypeError, ValueError) as error:
        raise ShapeError(f"{_PREFIX} its __cuda_array_interface__ is broken ({error!r})") from error
    if version < 2 or interface.get("mask") is not None:
        raise ShapeError(
            f"{_PREFIX} its interface has version {version}, or a mask; version 2 or 3 without a mask is required"
        )
    if math.prod(shape):
        _check_place(int(pointer), device)
        if interface.get("stream") is not None:
            _wait_for_handle(int(interface["stream"]), device, stream)
    strides = interface.get("strides")
    return DeviceArray(
        device,
        int(pointer or 0),
        shape,
        dtype,
        strides=None if strides is None else tuple(strides),
        owner=candidate,
        writable=not read_only,
    )


def _check_place(pointer: int, device: Device) -> None:
    """Check the GPU with the driver, because the interface does not state it."""
    driver = device.driver
    which = driver.constant("CUpointer_attribute", "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL")
    number = int(driver.call("cuPointerGetAttribute", which, pointer))
    if number != device.ordinal:
        raise ShapeError(f"{_PREFIX} it is on GPU {number}, the segmenter on GPU {device.ordinal}; move it there")


def _wait_for_handle(handle: int, device: Device, stream: Stream) -> None:
    if handle != stream.handle:
        with Stream(device, borrowed=handle) as foreign, Event(device) as event:
            event.record(foreign)
            stream.wait_for(event)
