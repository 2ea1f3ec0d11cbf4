"""Capsules against NumPy's own implementation, as consumer and as producer; only the device type differs on a GPU."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yolact_plugins import dlpack
from yolact_plugins.dlpack import CPU, export_capsule, import_capsule
from yolact_plugins.errors import ShapeError

DTYPES = [np.uint8, np.int8, np.int32, np.int64, np.uint64, np.float16, np.float32, np.float64, np.bool_]
VIEWS = st.sampled_from([(), (slice(None, None, 2),), (slice(None, None, -1),), (..., None)])


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


@given(arrays(), st.booleans())
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


@given(arrays(), st.booleans())
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


def test_a_tensor_without_strides_is_in_c_order() -> None:
    array = np.zeros((2, 3, 4), np.int16)
    capsule = Producer(array).__dlpack__()
    managed, *_ = next(iter(dlpack._exported.values()))
    managed.tensor.strides = None
    assert import_capsule(capsule).layout.strides_bytes == array.strides


def test_what_we_take_is_kept_and_given_back_once() -> None:
    import sys

    array = np.arange(6.0)
    before = sys.getrefcount(array)
    tensor = import_capsule(array.__dlpack__(max_version=(1, 0)))
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
    with pytest.raises(ShapeError, match="no DLPack capsule, or one that was used already"):
        import_capsule(capsule)
    with pytest.raises(ShapeError, match="no DLPack capsule"):
        import_capsule(object())


def test_read_only_memory_is_said_in_both_directions() -> None:
    array = np.zeros(3)
    assert not np.from_dlpack(Producer(array, writable=False, versioned=True)).flags.writeable
    with pytest.raises(ShapeError, match=r"needs DLPack 1\.0"):
        Producer(array, writable=False, versioned=False).__dlpack__()
    array.flags.writeable = False
    assert not import_capsule(array.__dlpack__(max_version=(1, 0))).layout.writable


@pytest.mark.parametrize("dtype", ["S3", "O", "M8[s]", ">f4", [("a", "f4")]])
def test_dtypes_that_dlpack_does_not_know(dtype: Any) -> None:
    with pytest.raises(ShapeError, match="DLPack has no"):
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
    with pytest.raises(ShapeError, match=r"speaks DLPack 2\.0"):
        import_capsule(capsule)
    gc.collect()
    assert producer.num_done == 1
