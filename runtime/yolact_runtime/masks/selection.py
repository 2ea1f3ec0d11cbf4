"""Indices of sequences of instances and of masks: integers as in a list, everything else as in NumPy."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["resolve_index"]


def resolve_index(index: object, count: int) -> int | slice | npt.NDArray[np.intp]:
    """Return the positions that an index selects in a sequence.

    Args:
        index: An integer of any library, a slice, or ``(m,)`` integers or ``(count,)`` booleans in a list or an
            array.
        count: Length of the sequence.

    Returns:
        A position from 0 to ``count - 1``; the slice itself; or ``(m,)`` positions, not negative.

    Raises:
        IndexError: There is no such position, or booleans of another length.
        TypeError: The index is of another kind. ``True`` is one: where a mask of booleans was meant, it would select
            the instance 1.
    """
    if isinstance(index, slice):
        return index
    if hasattr(index, "__index__") and not isinstance(index, bool) and not hasattr(index, "__array__"):
        return _position(operator.index(index), count)
    array = _as_array(index)
    if array.dtype.kind == "b" and array.ndim == 1:
        if len(array) != count:
            raise IndexError(f"a boolean index has one entry per instance: expected {count}, found {len(array)}")
        return np.flatnonzero(array)
    if array.dtype.kind in "iu" and array.ndim == 0:
        return _position(int(array), count)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise _unusable(index)
    outside = (array < -count) | (array >= count)
    if outside.any():
        raise _out_of_range(int(array[outside][0]), count)
    positions = array.astype(np.intp)
    return np.where(positions < 0, positions + count, positions)


def _as_array(index: object) -> npt.NDArray[Any]:
    is_sequence = isinstance(index, Sequence) and not isinstance(index, str | bytes | tuple)
    if not is_sequence and not hasattr(index, "__array__"):
        raise _unusable(index)
    try:
        array = np.asarray(index)
    except ValueError as error:  # rows of different lengths
        raise _unusable(index) from error
    # NumPy makes floats of nothing.
    return array.astype(np.intp) if is_sequence and array.shape == (0,) else array


def _position(index: int, count: int) -> int:
    if not -count <= index < count:
        raise _out_of_range(index, count)
    return index + count if index < 0 else index


def _out_of_range(index: int, count: int) -> IndexError:
    shown = str(index) if abs(index) < 1 << 64 else "with that many digits"
    return IndexError(f"index {shown} is out of range: there are {count}")


def _unusable(index: object) -> TypeError:
    try:
        shown = f" {index!r:.80}"
    except Exception:  # of any class; the object has no text
        shown = ""
    return TypeError(
        f"an index is an integer, a slice, or a list or array of integers or booleans; found "
        f"{type(index).__name__}{shown}"
    )
