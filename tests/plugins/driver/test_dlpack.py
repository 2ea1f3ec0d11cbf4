"""Capsules against NumPy's own implementation, as consumer and as producer; only the device type differs on a GPU.

NumPy before 2.1 knows DLPack as it was before 1.0. Where such a NumPy is installed, only the bytes of dlpack.h, written
and read here by their offsets, hold the layout of 1.0.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yolact_plugins.driver import dlpack
from yolact_plugins.driver.dlpack import CPU, export_capsule, import_capsule
from yolact_plugins.errors import ShapeError

DTYPES = [np.uint8, np.int8, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64]
if np.lib.NumpyVersion(np.__version__) >= "1.25.0":
    # Before, NumPy exchanged no bool.
    DTYPES.append(np.bool_)
VIEWS = st.sampled_from([(), (slice(None, None, 2),), (slice(None, None, -1),), (..., None)])
NUMPY_KNOWS_DLPACK_1 = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
VERSIONED = st.booleans() if NUMPY_KNOWS_DLPACK_1 else st.just(False)
with_dlpack_1 = pytest.mark.skipif(not NUMPY_KNOWS_DLPACK_1, reason="NumPy exchanges DLPack 1.0 from version 2.1 on")

# By dlpack.h 1.0 on a 64-bit machine. DLManagedTensorVersioned: major, minor, context, deleter, flags; then DLTensor:
# data, device type, device number, axes, type code, bits, lanes, shape, strides, offset.
VERSIONED_LAYOUT = "<IIQQQQiiiBBHQQQ"
Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
get_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, Destructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class Producer:
    """Exports a NumPy array with our code, to be taken by np.from_dlpack."""

    def __init__(self, array: np.ndarray[Any, Any], *, writable: bool = True, versioned: bool | None = None) -> None:
        self.array, self.writable, self.versioned = array, writable, versioned
        self.num_done = 0

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU, 0

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> Any:
        return export_capsule(
            self.array.ctypes.data,
            self.array.shape,
            self.array.dtype,
            self.array.strides,
            (CPU, 0),
            done=self._done,
            versioned=max_version is not None if self.versioned is None else self.versioned,
            writable=self.writable,
        )

    def _done(self) -> None:
        self.num_done += 1


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    dtype = draw(st.sampled_from(DTYPES))
    array = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)))
    return array[draw(VIEWS)]


@given(arrays(), VERSIONED)
def test_numpy_reads_what_we_export(array: np.ndarray[Any, Any], versioned: bool) -> None:
    producer = Producer(array, versioned=versioned)
    taken = np.from_dlpack(producer)
    assert (taken.shape, taken.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(taken, array)
    if array.size:
        assert taken.ctypes.data == array.ctypes.data
        assert [s for s, n in zip(taken.strides, taken.shape, strict=True) if n > 1] == [
            s for s, n in zip(array.strides, array.shape, strict=True) if n > 1
        ]
    assert producer.num_done == 0
    del taken
    gc.collect(0)
    assert producer.num_done == 1
    assert not dlpack._exported


@given(arrays(), VERSIONED)
def test_we_read_what_numpy_exports(array: np.ndarray[Any, Any], versioned: bool) -> None:
    capsule = array.__dlpack__(max_version=(1, 0)) if versioned else array.__dlpack__()
    layout = import_capsule(capsule).layout
    assert (layout.shape, layout.dtype, layout.device) == (array.shape, array.dtype, (CPU, 0))
    assert layout.writable
    if array.size:
        assert layout.pointer == array.ctypes.data
        assert [s for s, n in zip(layout.strides_bytes, layout.shape, strict=True) if n > 1] == [
            s for s, n in zip(array.strides, array.shape, strict=True) if n > 1
        ]


@pytest.mark.parametrize("writable", [True, False])
def test_what_we_export_has_the_layout_of_dlpack_1(writable: bool) -> None:
    array = np.arange(24, dtype=np.int16).reshape(4, 6)[:, ::2]
    capsule = Producer(array, versioned=True, writable=writable).__dlpack__()
    managed = get_pointer(capsule, b"dltensor_versioned")
    content = ctypes.string_at(managed, struct.calcsize(VERSIONED_LAYOUT))
    major, minor, _, deleter, flags, data, *described, shape, strides, offset = struct.unpack(VERSIONED_LAYOUT, content)
    assert (major, minor, flags, data, offset) == (1, 0, int(not writable), array.ctypes.data, 0)
    assert deleter
    # On the CPU, number 0, two axes; a signed integer of 16 bits, one lane.
    assert described == [1, 0, 2, 0, 16, 1]
    assert struct.unpack("<qq", ctypes.string_at(shape, 16)) == (4, 3)
    assert struct.unpack("<qq", ctypes.string_at(strides, 16)) == (6, 2)


@pytest.mark.parametrize("flags", [0, 1])
def test_we_read_the_layout_of_dlpack_1(flags: int) -> None:
    deleted: list[int] = []
    deleter = Deleter(deleted.append)
    array = np.arange(24, dtype=np.float32)
    sizes = (ctypes.c_int64 * 4)(2, 3, 6, 2)
    shape = ctypes.addressof(sizes)
    tensor = (array.ctypes.data, 1, 0, 2, 2, 32, 1, shape, shape + 16, 8)
    address = ctypes.cast(deleter, ctypes.c_void_p).value
    managed = ctypes.create_string_buffer(struct.pack(VERSIONED_LAYOUT, 1, 2, 0, address, flags, *tensor))
    foreign = import_capsule(new_capsule(ctypes.addressof(managed), b"dltensor_versioned", Destructor()))
    assert foreign.layout == dlpack.TensorLayout(
        array.ctypes.data + 8, (2, 3), np.dtype(np.float32), (24, 8), (CPU, 0), writable=not flags
    )
    assert deleted == []
    del foreign
    gc.collect(0)
    assert deleted == [ctypes.addressof(managed)]


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("strides", [True, False])
def test_a_tensor_begins_at_its_offset(versioned: bool, strides: bool) -> None:
    """A producer may give the allocation as the pointer, and say by an offset where in it the tensor begins."""
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    producer = Producer(array, versioned=versioned)
    capsule = producer.__dlpack__()
    managed, *_ = next(iter(dlpack._exported.values()))
    managed.tensor.byte_offset = 24
    managed.tensor.shape[0] = 3
    if not strides:
        managed.tensor.strides = None
    layout = import_capsule(capsule).layout
    assert layout.pointer == array[1:].ctypes.data
    assert (layout.shape, layout.strides_bytes) == ((3, 6), (24, 4))
    content = np.frombuffer(ctypes.string_at(layout.pointer, 72), np.float32)
    np.testing.assert_array_equal(content.reshape(3, 6), array[1:])


def test_a_tensor_without_strides_is_in_c_order() -> None:
    array = np.zeros((2, 3, 4), np.int16)
    capsule = Producer(array).__dlpack__()
    managed, *_ = next(iter(dlpack._exported.values()))
    managed.tensor.strides = None
    assert import_capsule(capsule).layout.strides_bytes == array.strides


@pytest.mark.parametrize("keywords", [{}, pytest.param({"max_version": (1, 0)}, marks=with_dlpack_1)])
def test_what_we_take_is_kept_and_given_back_once(keywords: dict[str, Any]) -> None:
    array = np.arange(6.0)
    before = sys.getrefcount(array)
    tensor = import_capsule(array.__dlpack__(**keywords))
    assert sys.getrefcount(array) == before + 1
    del tensor
    assert sys.getrefcount(array) == before


def test_a_capsule_that_nobody_takes_gives_the_memory_back() -> None:
    producer = Producer(np.zeros(3))
    for versioned in (False, True):
        producer.versioned = versioned
        capsule = producer.__dlpack__()
        del capsule
    assert producer.num_done == 2


def test_a_capsule_is_taken_once() -> None:
    capsule = np.zeros(3).__dlpack__()
    import_capsule(capsule)
    with pytest.raises(ShapeError, match="is not a DLPack capsule, or was consumed before"):
        import_capsule(capsule)
    with pytest.raises(ShapeError, match="is not a DLPack capsule"):
        import_capsule(object())


def test_read_only_memory_cannot_be_said_before_dlpack_1() -> None:
    with pytest.raises(ShapeError, match=r"needs DLPack 1\.0"):
        Producer(np.zeros(3), writable=False, versioned=False).__dlpack__()


@with_dlpack_1
def test_read_only_memory_is_said_in_both_directions() -> None:
    array = np.zeros(3)
    assert not np.from_dlpack(Producer(array, writable=False, versioned=True)).flags.writeable
    array.flags.writeable = False
    assert not import_capsule(array.__dlpack__(max_version=(1, 0))).layout.writable


@pytest.mark.parametrize("dtype", ["S3", "O", "M8[s]", ">f4", [("a", "f4")]])
def test_dtypes_that_dlpack_does_not_know(dtype: Any) -> None:
    with pytest.raises(ShapeError, match="DLPack has no dtype"):
        Producer(np.zeros(3, dtype)).__dlpack__()


def test_strides_between_elements() -> None:
    field = np.zeros(3, [("a", "u1"), ("b", "<f4")])["b"]
    with pytest.raises(ShapeError, match="counts strides in elements"):
        Producer(field).__dlpack__()


@pytest.mark.parametrize(("code", "bits", "lanes"), [(4, 16, 1), (2, 32, 4), (1, 4, 1)])
def test_foreign_types_that_numpy_does_not_know_are_given_back(code: int, bits: int, lanes: int) -> None:
    """bfloat16, vectors, 4-bit integers."""
    producer = Producer(np.zeros(3, np.float32))
    capsule = producer.__dlpack__()
    managed, *_ = next(iter(dlpack._exported.values()))
    managed.tensor.code, managed.tensor.bits, managed.tensor.lanes = code, bits, lanes
    with pytest.raises(ShapeError, match=f"type code {code} with {bits} bits and {lanes} lanes has no NumPy dtype"):
        import_capsule(capsule)
    gc.collect()
    assert producer.num_done == 1


def test_a_later_generation_of_dlpack_is_not_guessed_at() -> None:
    producer = Producer(np.zeros(3), versioned=True)
    capsule = producer.__dlpack__()
    managed, *_ = next(iter(dlpack._exported.values()))
    managed.major = 2
    with pytest.raises(ShapeError, match=r"unsupported DLPack version 2\.0"):
        import_capsule(capsule)
    gc.collect()
    assert producer.num_done == 1
