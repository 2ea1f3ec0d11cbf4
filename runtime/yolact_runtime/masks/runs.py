"""Runs of several masks, and their conversion to the canonical form and to int64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Runs"]

_SIGNED = (np.dtype(np.int32), np.dtype(np.int64))


class Runs(NamedTuple):
    """Runs of pixels in column-major order, sorted by mask and position, none empty.

    Attributes:
        offset: First run of each mask, and the number of runs, ``(n + 1,)``. Runs of mask ``i`` are
            ``offset[i] .. offset[i + 1] - 1``.
        start: First position of each run, ``(runs,)``.
        end: End position of each run, exclusive, ``(runs,)``.
    """

    offset: npt.NDArray[Any]
    start: npt.NDArray[Any]
    end: npt.NDArray[Any]

    def joined(self) -> Runs:
        """Join the runs of one mask that touch; return itself if there are none.

        Runs computed on the GPU are in columns: they touch only where a mask fills the foot of a column and the head of
        the next. So most frames need no more than this check.
        """
        touches = self.start[1:] == self.end[:-1]
        # The last run of one mask and the first of the next may touch and stay separate.
        first = self.offset[1:-1]
        touches[first[(first > 0) & (first < len(self.start))] - 1] = False
        if not touches.any():
            return self
        before = np.flatnonzero(touches)
        # Of two touching runs, the start of the former and the end of the latter remain.
        gone = np.searchsorted(before, self.offset - 1).astype(self.offset.dtype)
        return Runs(self.offset - gone, np.delete(self.start, before + 1), np.delete(self.end, before))

    def signed(self) -> Runs:
        """Convert the arrays to signed integers: int32 and int64 stay as they are, other dtypes become int64."""
        return Runs(*(array if array.dtype in _SIGNED else array.astype(np.int64) for array in self))

    def wide(self) -> Runs:
        """Convert the arrays to int64; arrays that are int64 are not copied."""
        return Runs(*(array.astype(np.int64, copy=False) for array in self))

    @property
    def nbytes(self) -> int:
        """Size of the three arrays in bytes."""
        return sum(array.nbytes for array in self)
