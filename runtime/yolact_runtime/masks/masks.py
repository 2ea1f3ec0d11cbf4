"""Compact binary masks: runs of pixels in column-major order, the order of COCO RLE.

A mask costs memory and time in proportion to its outline, not to the frame. Dense arrays, RLE, polygons and id maps are
computed when they are asked for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import FrozenInstanceError
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError
from yolact_runtime.masks import rle
from yolact_runtime.masks.mask import Mask, fill_columns, run_bounds
from yolact_runtime.masks.runs import Runs
from yolact_runtime.masks.selection import resolve_index

__all__ = ["Masks"]

Int = npt.NDArray[np.int64]
Some = npt.NDArray[Any]


class Masks:
    """The binary masks of one frame, held as runs of pixels: about 0.2 MB where dense masks would be 27 MB.

    A sequence: ``len(masks)``, iteration and ``masks[0]`` give a :class:`yolact_runtime.Mask`; slices, lists of indices
    and boolean arrays give ``Masks``. Nothing can be assigned to; the arrays belong to the caller. Thread-safe.

    A pixel's position is ``column * height + row``. The runs of one mask are sorted, disjoint and never touch, so two
    equal masks have equal runs. Runs that a GPU computed stay in int32; :attr:`start`, :attr:`end` and :attr:`offset`
    convert them to int64 when they are first read.

    Example:
        ```python
        areas_px = instances.mask.area()  # (n,)
        largest = instances.mask[areas_px.argmax()]  # a Mask
        rings = largest.polygons()
        ```

    Args:
        height: Rows of the frame.
        width: Columns of the frame.
        offset: First run of each mask, and the number of runs, ``(n + 1,)``. The three arrays are kept, not copied.
        start: First position of each run, ``(runs,)``.
        end: End position of each run, exclusive, ``(runs,)``.
    """

    height: int
    width: int
    _count: int

    def __init__(self, height: int, width: int, offset: Int, start: Int, end: Int) -> None:
        # Through the dictionary, because attributes cannot be assigned.
        self.__dict__.update(
            height=height, width=width, _count=len(offset) - 1, _joined=Runs(offset, start, end).signed()
        )

    @classmethod
    def from_columns(
        cls,
        offset: npt.NDArray[np.integer],
        start: npt.NDArray[np.integer],
        end: npt.NDArray[np.integer],
        height: int,
        width: int,
    ) -> Masks:
        """Return masks of runs that are sorted and not empty. Runs of one mask that touch are joined on first use.

        Args:
            offset: First run of each mask, and the number of runs: ``(n + 1,)`` of any integer type. Arrays of int32
                and int64 are kept, not copied: do not change them afterwards. The same holds for `start` and `end`.
            start: First positions, ``(runs,)``.
            end: End positions, exclusive, ``(runs,)``.
            height: Rows of the frame.
            width: Columns of the frame.
        """
        masks = cls.__new__(cls)
        masks.__dict__.update(
            height=height, width=width, _count=len(offset) - 1, _found=Runs(offset, start, end).signed()
        )
        return masks

    @classmethod
    def empty(cls, count: int, height: int, width: int) -> Masks:
        """Return `count` masks without a pixel, of a frame of `height` rows and `width` columns."""
        return cls(height, width, np.zeros(count + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def from_runs(cls, mask: Int, start: Int, end: Int, count: int, height: int, width: int) -> Masks:
        """Return masks of runs that are sorted by mask and start and do not overlap.

        Empty runs are dropped, and runs of one mask that touch are joined.

        Args:
            mask: Index of the mask that each run belongs to, ``(runs,)``, non-decreasing.
            start: First positions, ``(runs,)``.
            end: End positions, exclusive, ``(runs,)``, ``>= start``.
            count: Number of masks.
            height: Rows of the frame.
            width: Columns of the frame.
        """
        filled = start < end
        if not filled.all():
            mask, start, end = mask[filled], start[filled], end[filled]
        runs = Runs(np.searchsorted(mask, np.arange(count + 1)), start, end).joined()
        return cls(height, width, *(array.astype(np.int64) for array in runs))

    @classmethod
    def from_dense(cls, dense: npt.NDArray[np.bool_]) -> Masks:
        """Return the masks of a ``(n, height, width)`` array: pixels other than zero are inside.

        Raises:
            ShapeError: The array has another number of axes.
        """
        if dense.ndim != 3:
            raise ShapeError(f"dense masks have the shape (n, height, width), found {dense.shape}")
        count, height, width = dense.shape
        positions = np.zeros((count, width * height + 2), np.int8)
        positions[:, 1:-1] = (dense != 0).transpose(0, 2, 1).reshape(count, width * height)
        mask, edge = np.nonzero(np.diff(positions))
        return cls.from_runs(mask[::2], edge[::2], edge[1::2], count, height, width)

    @classmethod
    def from_rle(cls, documents: Sequence[dict[str, object]]) -> Masks:
        """Return the masks of COCO RLE objects ``{"size": [height, width], "counts": str | bytes}`` of one size.

        Raises:
            ShapeError: The sizes differ, or a counts string does not fill its mask.
        """
        if not documents:
            raise ShapeError("an empty list of RLE objects has no frame size; use Masks.empty(0, height, width)")
        if any("size" not in document or "counts" not in document for document in documents):
            raise ShapeError('an RLE object has the fields "size" and "counts"')
        sizes: set[tuple[int, ...]] = {tuple(document["size"]) for document in documents}  # type: ignore[arg-type]  # JSON is untyped
        if len(sizes) != 1:
            raise ShapeError(f"masks of one frame have one size, found {sorted(sizes)}")
        ((height, width),) = sizes
        edges = [rle.decode_edges(document["counts"], height * width) for document in documents]  # type: ignore[arg-type]
        mask = np.repeat(np.arange(len(edges)), [len(edge) // 2 for edge in edges])
        flat = np.concatenate(edges)
        return cls.from_runs(mask, flat[::2], flat[1::2], len(edges), height, width)

    def __repr__(self) -> str:
        return f"<Masks: {len(self)} of {self.width} x {self.height} pixels, {len(self._runs().start)} runs>"

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Mask]:
        for start, end in self._each():
            yield Mask(self.height, self.width, start, end)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Mask: ...

    @overload
    def __getitem__(self, index: slice | npt.NDArray[np.generic] | Sequence[int]) -> Masks: ...

    def __getitem__(self, index: object) -> Mask | Masks:
        """Return one mask, or the selected masks in the given order.

        Args:
            index: An integer gives a :class:`Mask`, a view. A slice, a list or array of integers, or ``(n,)`` booleans
                give ``Masks``, copies. Negative integers count from the end.

        Raises:
            IndexError: There is no such mask, or a boolean array has another length.
            TypeError: The index is of another kind.
        """
        offset, start, end = self._runs()
        found = resolve_index(index, len(self))
        if isinstance(found, int):
            runs = slice(offset[found], offset[found + 1])
            return Mask(self.height, self.width, start[runs], end[runs])
        chosen = np.arange(len(self))[found]
        length = np.diff(offset)[chosen]
        taken = np.concatenate([[0], np.cumsum(length)])
        run = np.arange(taken[-1]) + np.repeat(offset[:-1][chosen] - taken[:-1], length)
        return Masks(self.height, self.width, taken, start[run], end[run])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        if (self.height, self.width) != (other.height, other.width):
            return False
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self._runs(), other._runs(), strict=True))

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def __reduce__(self) -> tuple[Any, ...]:
        return Masks, (self.height, self.width, *self._runs())

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"masks cannot be changed: {name!r} is read-only")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"masks cannot be changed: {name!r} is read-only")

    @property
    def offset(self) -> Int:
        """First run of each mask, and the number of all runs: ``(n + 1,)`` int64.

        The runs of mask ``i`` are ``offset[i] .. offset[i + 1] - 1``.
        """
        return self._wide_runs().offset

    @property
    def start(self) -> Int:
        """First position of each run: ``(runs,)`` int64."""
        return self._wide_runs().start

    @property
    def end(self) -> Int:
        """End position of each run, exclusive: ``(runs,)`` int64."""
        return self._wide_runs().end

    @property
    def nbytes(self) -> int:
        """Memory of the runs, in bytes."""
        return self._runs().nbytes

    def area(self) -> Int:
        """Return the number of pixels inside each mask, ``(n,)`` int64."""
        offset, start, end = self._runs()
        area = np.zeros(len(self), np.int64)
        # A sum ends where the next one begins, so that masks without a run must not begin one.
        filled = np.flatnonzero(offset[:-1] < offset[1:])
        if len(filled):
            area[filled] = np.add.reduceat(end - start, offset[:-1][filled], dtype=np.int64)
        return area

    def bounds(self) -> Int:
        """Return the smallest box around each mask's pixels, ``(n, 4)`` int64.

        Boxes are (left, top, right, bottom) in pixels, end exclusive; an empty mask has zeros. A mask may reach beyond
        the box of its instance, and seldom fills it.
        """
        bounds = [run_bounds(start, end, self.height) for start, end in self._each()]
        return np.array(bounds, np.int64).reshape(-1, 4)

    def dense(self) -> npt.NDArray[np.bool_]:
        """Return ``(n, height, width)`` bool, C-contiguous, in new memory.

        100 masks of a 1920 x 1080 frame take 207 MB. Use ``masks[i].dense()`` for one mask, :meth:`id_map` for an image
        of all.
        """
        masks = np.zeros((len(self), self.height, self.width), bool)
        for mask, (left, _, right, _), (start, end) in zip(masks, self.bounds().tolist(), self._each(), strict=True):
            mask[:, left:right] = fill_columns(start, end, self.height, left, right).T
        return masks

    def id_map(self, dtype: npt.DTypeLike = np.int32) -> npt.NDArray[np.signedinteger]:
        """Return an image of the masks: 0 for pixels of no mask, ``i + 1`` for pixels of mask ``i``.

        Where masks overlap, the earlier one wins, which is the one with the higher confidence.

        Args:
            dtype: An integer dtype that holds ``len(masks)``.

        Returns:
            An image ``(height, width)``, C-contiguous, in new memory. ``id_map()[y, x] - 1`` is the index of a mask,
            or -1.
        """
        flat = np.zeros(self.width * self.height, dtype)
        for i, (start, end) in reversed(list(enumerate(self._each()))):
            rle.paint_runs(flat, start, end, i + 1)
        return np.ascontiguousarray(flat.reshape(self.width, self.height).T)

    def rle(self) -> list[dict[str, object]]:
        """Return a COCO RLE object ``{"size": [height, width], "counts": str}`` for each mask, ready for JSON."""
        counts = rle.encode_runs(*self._runs(), self.height * self.width)
        return [{"size": [self.height, self.width], "counts": text} for text in counts]

    def polygons(self, index: int) -> list[npt.NDArray[np.int64]]:
        """Return the outlines of mask `index`; see :meth:`Mask.polygons`.

        Raises:
            IndexError: There is no such mask.
            TypeError: The index is not an integer.
        """
        return self._one(index).polygons()

    def window(self, index: int) -> tuple[int, int, npt.NDArray[np.bool_]]:
        """Return the smallest window that holds mask `index`; see :meth:`Mask.window`.

        Raises:
            IndexError: There is no such mask.
            TypeError: The index is not an integer.
        """
        return self._one(index).window()

    def iou(self, other: Masks) -> npt.NDArray[np.float64]:
        """Return the intersection over union of every mask with every other one, ``(len(self), len(other))`` float64.

        Two empty masks have 0. The cost follows the outlines, not the frame.

        Raises:
            ShapeError: The masks belong to frames of different sizes.
        """
        if (self.height, self.width) != (other.height, other.width):
            raise ShapeError(
                f"masks of one frame have one size, found {self.height} x {self.width} and "
                f"{other.height} x {other.width}"
            )
        mine, theirs, others = self.area(), other.area(), other._runs()
        result = np.zeros((len(self), len(other)))
        for i, (start, end) in enumerate(self._each()):
            edges = np.stack([start, end], axis=1).ravel()
            inside = np.concatenate([[0], np.cumsum(np.where(np.arange(len(edges)) % 2, 0, np.diff(edges, append=0)))])
            before = [_covered(edges, inside, position) for position in (others.start, others.end)]
            shared = np.concatenate([[0], np.cumsum(before[1] - before[0])])
            intersection = np.diff(shared[others.offset])
            union = mine[i] + theirs - intersection
            result[i] = intersection / np.maximum(union, 1)
        return result

    def _one(self, index: int) -> Mask:
        mask = self[index]
        if not isinstance(mask, Mask):
            raise TypeError(f"one mask has an integer index, found {type(index).__name__}")
        return mask

    def _each(self) -> Iterator[tuple[Some, Some]]:
        """Yield starts and ends of one mask after the other."""
        offset, start, end = self._runs()
        for first, last in itertools.pairwise(offset.tolist()):
            yield start[first:last], end[first:last]

    def _runs(self) -> Runs:
        """Return the runs, joined, in the dtype that they have.

        A converted form is published in one atomic step before its source is dropped, so that a thread that asks at the
        same time finds one of the two, and every caller gets the same arrays.
        """
        forms: dict[str, Any] = self.__dict__
        runs: Runs | None = forms.get("_wide") or forms.get("_joined")
        if runs is None:
            found = forms.get("_found")
            if found is None:  # joined by another thread since
                return self._runs()
            runs = forms.setdefault("_joined", found.joined())
            forms.pop("_found", None)
        return runs

    def _wide_runs(self) -> Runs:
        """Return the runs in int64, which is the only form from then on: the caller may write to these arrays."""
        forms: dict[str, Any] = self.__dict__
        runs: Runs | None = forms.get("_wide")
        if runs is None:
            runs = forms.setdefault("_wide", self._runs().wide())
            forms.pop("_joined", None)
        return runs


def _covered(edges: Int, inside: Int, position: Int) -> Int:
    """Return the number of a mask's pixels before each position.

    Args:
        edges: Positions where the mask begins and ends, alternating.
        inside: Pixels of the mask before each edge.
        position: Positions to look up.
    """
    if not len(edges):
        return np.zeros(len(position), np.int64)
    place = np.searchsorted(edges, position, side="right")
    partial = np.where(place % 2, position - edges[place - 1], 0)
    covered: Int = inside[place - place % 2] + partial
    return covered
