"""One binary mask of a frame, as runs of pixels in column-major order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.masks import polygons, rle

__all__ = ["Mask", "fill_columns", "run_bounds"]


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """One binary mask: a view of one entry of :class:`yolact_runtime.Masks`, which ``masks[i]`` and iteration give.

    A pixel's position is ``column * height + row``. The runs are sorted, disjoint and never touch, so two equal masks
    have equal runs.

    Attributes:
        height: Rows of the frame.
        width: Columns of the frame.
        start: First position of each run, ``(runs,)`` int32 or int64. A view of what the masks held; once they
            convert their runs to int64, what is written to one no longer appears in the other.
        end: End position of each run, exclusive, ``(runs,)`` of the same dtype.
    """

    height: int
    width: int
    start: npt.NDArray[Any]
    end: npt.NDArray[Any]

    def __repr__(self) -> str:
        return f"<Mask: {self.area()} of {self.width} x {self.height} pixels, {len(self.start)} runs>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return (
            (self.height, self.width) == (other.height, other.width)
            and np.array_equal(self.start, other.start)
            and np.array_equal(self.end, other.end)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def area(self) -> int:
        """Return the number of pixels inside the mask."""
        return int(np.sum(self.end - self.start, dtype=np.int64))

    def bounds(self) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) in pixels, end exclusive, of the pixels inside; zeros for an empty mask."""
        return run_bounds(self.start, self.end, self.height)

    def dense(self) -> npt.NDArray[np.bool_]:
        """Return ``(height, width)`` bool, C-contiguous; the array is new, and the caller's."""
        dense = np.zeros((self.height, self.width), bool)
        left, top, inside = self.window()
        dense[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        return dense

    def window(self) -> tuple[int, int, npt.NDArray[np.bool_]]:
        """Return left column, top row and ``(rows, columns)`` bool of the smallest window that holds the mask.

        The window of an empty mask is ``(0, 0)`` with no rows and no columns.
        """
        left, top, right, bottom = self.bounds()
        return left, top, fill_columns(self.start, self.end, self.height, left, right)[:, top:bottom].T

    def rle(self) -> dict[str, object]:
        """Return the COCO RLE object ``{"size": [height, width], "counts": str}``, which ``json.dumps`` takes."""
        (counts,) = rle.encode_runs(np.array([0, len(self.start)]), self.start, self.end, self.height * self.width)
        return {"size": [self.height, self.width], "counts": counts}

    def polygons(self) -> list[npt.NDArray[np.int64]]:
        """Return the outlines: rings ``(vertices, 2)`` of (x, y) pixel corners, the first vertex not repeated.

        Outer rings run clockwise on the screen and holes the other way. Filling them by the even-odd rule gives the
        mask back to the pixel.
        """
        left, top, inside = self.window()
        return [ring + np.array([left, top]) for ring in polygons.trace(inside)]


def run_bounds(start: npt.NDArray[Any], end: npt.NDArray[Any], height: int) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom), end exclusive, of the pixels of one mask's runs; zeros without runs.

    Args:
        start: First positions, ``(runs,)``, sorted.
        end: End positions, exclusive, ``(runs,)``.
        height: Rows of the frame.
    """
    if not len(start):
        return 0, 0, 0, 0
    left, right = int(start[0]) // height, (int(end[-1]) - 1) // height + 1
    if (start // height != (end - 1) // height).any():  # a run goes on in the next column
        return left, 0, right, height
    return left, int((start % height).min()), right, int(((end - 1) % height).max()) + 1


def fill_columns(
    start: npt.NDArray[Any], end: npt.NDArray[Any], height: int, left: int, right: int
) -> npt.NDArray[np.bool_]:
    """Return ``(right - left, height)`` bool: columns `left` to `right` of the mask with these runs, transposed.

    Args:
        start: First positions, ``(runs,)``, sorted; all runs lie in these columns.
        end: End positions, exclusive, ``(runs,)``.
        height: Rows of the frame.
        left: First column.
        right: End column, exclusive.
    """
    edges = np.empty(2 * len(start) + 2, np.int64)
    edges[0], edges[-1] = left * height, right * height
    edges[1:-1:2], edges[2:-1:2] = start, end
    inside = np.arange(len(edges) - 1) % 2 == 1
    return np.repeat(inside, np.diff(edges)).reshape(right - left, height)
