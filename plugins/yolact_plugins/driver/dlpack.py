"""DLPack, the exchange of arrays without copies, in ctypes: export and import of capsules.

Structures and rules: dlpack.h 1.0 and the Python specification of DLPack. A capsule points to a "managed tensor". A
consumer renames the capsule and calls the tensor's deleter when it is done; an unconsumed capsule calls the deleter
when it is destroyed. Exported tensors are kept in a table by address until their deleter is called.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.errors import ShapeError

__all__ = ["CPU", "CUDA", "CUDA_MANAGED", "ForeignTensor", "export_capsule", "import_capsule"]

CPU, CUDA, CUDA_MANAGED = 1, 2, 13
"""Device types: kDLCPU, kDLCUDA, kDLCUDAManaged."""
_VERSION, _READ_ONLY = (1, 0), 1
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
# Capsules point to their names, so these objects must live as long as the process.
_PLAIN, _USED_PLAIN = b"dltensor", b"used_dltensor"
_VERSIONED, _USED_VERSIONED = b"dltensor_versioned", b"used_dltensor_versioned"


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _ManagedVersioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


def _python_function(name: str, result: Any, *arguments: Any) -> Any:
    # A separate prototype: attributes of ctypes.pythonapi's functions are shared with all of their users.
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
# The capsule as a bare address: its destructor must not count references to an object that is being destroyed.
_is_valid = _python_function("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_get_pointer = _python_function("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)
_set_name = _python_function("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_new = _python_function("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)

_exported: dict[int, tuple[Any, ...]] = {}


def _let_go(address: int) -> None:
    *_, done = _exported.pop(address)
    done()


def _destroy(capsule: int) -> None:
    for name in (_PLAIN, _VERSIONED):
        if _is_valid(capsule, name):
            # The capsule was not consumed.
            _let_go(_get_pointer(capsule, name))


# C keeps their addresses, so they live as long as the process.
_delete_exported, _destroy_capsule = _Deleter(_let_go), _Destructor(_destroy)


def export_capsule(
    pointer: int,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    strides_bytes: tuple[int, ...],
    device: tuple[int, int],
    *,
    done: Callable[[], None],
    versioned: bool,
    writable: bool = True,
) -> Any:
    """Describe memory in a new capsule.

    Args:
        pointer: Device address of the first element.
        shape: Number of elements along each axis.
        dtype: Data type that DLPack can describe: integer, floating-point, complex or bool.
        strides_bytes: Number of bytes between elements along each axis; multiples of the item size.
        device: DLPack device type and device number.
        done: Callback that runs once, in any thread, when the consumer or the unconsumed capsule releases the memory.
        versioned: Whether to export a DLPack 1.0 tensor; older ones cannot express that memory is read-only.
        writable: Whether the consumer may write.

    Raises:
        ShapeError: The dtype or strides cannot be described, or read-only memory is requested in the old format.
    """
    kind = np.dtype(dtype)
    if kind.kind not in _CODES or not kind.isnative:
        raise ShapeError(f"DLPack has no dtype {kind}; convert the array to a native integer, float, complex or bool")
    if any(stride % kind.itemsize for stride in strides_bytes):
        raise ShapeError(
            f"DLPack counts strides in elements; {strides_bytes} bytes are not multiples of the size of {kind}"
        )
    if not versioned and not writable:
        raise ShapeError("read-only memory needs DLPack 1.0; the consumer asks for an older one: give it a copy")
    managed: Any = _ManagedVersioned() if versioned else _Managed()
    extent = (ctypes.c_int64 * len(shape))(*shape)
    strides = (ctypes.c_int64 * len(shape))(*[stride // kind.itemsize for stride in strides_bytes])
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id = pointer, *device
    tensor.ndim, tensor.code, tensor.bits, tensor.lanes = len(shape), _CODES[kind.kind], kind.itemsize * 8, 1
    tensor.shape = ctypes.cast(extent, ctypes.POINTER(ctypes.c_int64))
    tensor.strides = ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64))
    managed.deleter = ctypes.cast(_delete_exported, ctypes.c_void_p)
    if versioned:
        managed.major, managed.minor = _VERSION
        managed.flags = 0 if writable else _READ_ONLY
    address = ctypes.addressof(managed)
    _exported[address] = (managed, extent, strides, done)
    return _new(address, _VERSIONED if versioned else _PLAIN, _destroy_capsule)


@dataclass(frozen=True)
class TensorLayout:
    """The layout of a tensor; see :class:`ForeignTensor`."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides_bytes: tuple[int, ...]
    device: tuple[int, int]
    writable: bool


class ForeignTensor:
    """A tensor of another library, whose deleter is called when this object is collected.

    Attributes:
        layout: Pointer, shape, dtype, strides in bytes, device type and number, and whether it may be written.
    """

    def __init__(self, address: int, versioned: bool) -> None:
        self._deleter = 0
        managed: Any = (_ManagedVersioned if versioned else _Managed).from_address(address)
        self._address, self._deleter = address, managed.deleter or 0
        if versioned and managed.major != _VERSION[0]:
            version = f"{managed.major}.{managed.minor}"
            raise ShapeError(f"unsupported DLPack version {version}; 1.x or older is required")
        # The old format cannot express read-only memory, and its producers mean writable memory.
        writable = not (versioned and managed.flags & _READ_ONLY)
        self.layout = _layout(managed.tensor, writable)

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # While the interpreter exits, names of this module and of the producer's may be None; the process frees the
        # memory.
        if self._deleter and not _is_finalizing():
            _Deleter(self._deleter)(self._address)


def import_capsule(capsule: Any) -> ForeignTensor:
    """Consume a capsule, so that no one else can.

    Args:
        capsule: Result of an object's ``__dlpack__``.

    Raises:
        ShapeError: The object is not a DLPack capsule or was consumed before, or NumPy does not have the tensor's
            dtype.
    """
    for name, used in ((_VERSIONED, _USED_VERSIONED), (_PLAIN, _USED_PLAIN)):
        if _is_valid(id(capsule), name):
            address = _get_pointer(id(capsule), name)
            _set_name(capsule, used)
            return ForeignTensor(address, versioned=name is _VERSIONED)
    raise ShapeError(f"{capsule!r} is not a DLPack capsule, or was consumed before: each can be used once")


def _layout(tensor: _Tensor, writable: bool) -> TensorLayout:
    kind = _KINDS.get(tensor.code)
    if kind is None or tensor.lanes != 1 or tensor.bits % 8:
        raise ShapeError(
            f"DLPack type code {tensor.code} with {tensor.bits} bits and {tensor.lanes} lanes has no NumPy dtype; use "
            f"integers, float16, float32 or bool (bfloat16: convert it)"
        )
    dtype = np.dtype(f"{kind}{tensor.bits // 8}")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides[: tensor.ndim])
    else:
        strides = tuple(dtype.itemsize * math.prod(shape[axis + 1 :]) for axis in range(tensor.ndim))
    pointer = (tensor.data or 0) + tensor.byte_offset
    return TensorLayout(pointer, shape, dtype, strides, (tensor.device_type, tensor.device_id), writable)
