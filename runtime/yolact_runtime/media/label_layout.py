"""Placement of labels: beside their boxes, clear of each other and, as far as possible, of the objects."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["LabelLayout"]

Int = npt.NDArray[np.int64]
Float = npt.NDArray[np.float32]
_CELL_PX = 4
"""Number of mask pixels per cell of the coverage map."""
# Corner of the label relative to left and top of the box, in widths and heights of the box and of the label, and the
# penalty against the first place; covering one object with the whole label costs 1.
_PLACES = np.array(
    [
        # box w, label w, box h, label h, cost
        (0.0, 0.0, 0.0, -1.0, 0.00),  # above, from the left edge on
        (1.0, -1.0, 0.0, -1.0, 0.05),
        (0.5, -0.5, 0.0, -1.0, 0.05),
        (0.0, 0.0, 0.0, 0.0, 0.10),  # inside the upper edge
        (1.0, -1.0, 0.0, 0.0, 0.15),
        (0.0, 0.0, 1.0, 0.0, 0.15),  # below
        (1.0, -1.0, 1.0, 0.0, 0.20),
        (0.5, -0.5, 1.0, 0.0, 0.20),
        (0.0, 0.0, 1.0, -1.0, 0.20),  # inside the lower edge
        (1.0, -1.0, 1.0, -1.0, 0.25),
        (1.0, 0.0, 0.0, 0.0, 0.20),  # to the right
        (1.0, 0.0, 0.5, -0.5, 0.25),
        (1.0, 0.0, 1.0, -1.0, 0.25),
        (0.0, -1.0, 0.0, 0.0, 0.25),  # to the left
        (0.0, -1.0, 0.5, -0.5, 0.30),
        (0.0, -1.0, 1.0, -1.0, 0.30),
        (1.0, 0.0, 0.0, -1.0, 0.30),  # at the corners
        (0.0, -1.0, 0.0, -1.0, 0.35),
        (1.0, 0.0, 1.0, 0.0, 0.35),
        (0.0, -1.0, 1.0, 0.0, 0.35),
        (0.5, -0.5, 0.5, -0.5, 0.50),  # in the middle
    ],
    np.float32,
)
_OWN_MASK, _OTHER_BOX = 0.4, 0.3
"""Costs of a label that lies completely on its own object, and completely inside another box."""
_MOST_HIDDEN = 0.4
"""Maximum share of a box under one label, so that a small object is not hidden."""


class LabelLayout:
    """The free space of one picture, which labels occupy one after the other.

    Args:
        boxes: Boxes ``(n, 4)`` int64, pixels (left, top, right, bottom), inside the picture.
        covered: Mask ``(H, W)`` bool of the pixels of any object.
    """

    def __init__(self, boxes: Int, covered: npt.NDArray[np.bool_]) -> None:
        self._height, self._width = covered.shape
        self._boxes = boxes.astype(np.float32)
        self._areas = np.maximum((self._boxes[:, 2:] - self._boxes[:, :2]).prod(axis=1), 1)
        cells = covered[::_CELL_PX, ::_CELL_PX]
        self._sums = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1), np.int32)
        np.cumsum(np.cumsum(cells, axis=0, dtype=np.int32), axis=1, out=self._sums[1:, 1:])
        self._taken = np.zeros((0, 4), np.float32)

    def place(self, index: int, rows: int, columns: int) -> tuple[int, int] | None:
        """Occupy the best free place for a label.

        Args:
            index: Index of the box that the label belongs to.
            rows: Height of the label in pixels.
            columns: Width of the label in pixels.

        Returns:
            Left column and top row such that the whole label lies inside the picture, overlaps no earlier label and
            hides no box; None if there is no such place.
        """
        if rows > self._height or columns > self._width or not rows or not columns:
            return None
        spots = self._spots(index, rows, columns)
        size = np.float32(rows * columns)
        cost = _PLACES[:, 4].copy()
        shared = _overlaps(spots, self._boxes)
        hides = (shared > _MOST_HIDDEN * self._areas).any(axis=1)
        own = shared[:, index] / size
        cost += _OTHER_BOX * np.minimum(shared.sum(axis=1) / size - own, 1)
        cost += self._covered(spots) * (1 - (1 - _OWN_MASK) * own)
        hides |= (_overlaps(spots, self._taken) > 0).any(axis=1)
        cost[hides] = np.inf
        best = int(np.argmin(cost))
        if not np.isfinite(cost[best]):
            return None
        self._taken = np.concatenate([self._taken, spots[best : best + 1]])
        return int(spots[best, 0]), int(spots[best, 1])

    def _spots(self, index: int, rows: int, columns: int) -> Float:
        """Return candidate rectangles ``(places, 4)``, moved into the picture."""
        left, top, right, bottom = self._boxes[index]
        spots = np.empty((len(_PLACES), 4), np.float32)
        spots[:, 0] = left + _PLACES[:, 0] * (right - left) + _PLACES[:, 1] * columns
        spots[:, 1] = top + _PLACES[:, 2] * (bottom - top) + _PLACES[:, 3] * rows
        spots[:, 0] = np.clip(np.floor(spots[:, 0]), 0, self._width - columns)
        spots[:, 1] = np.clip(np.floor(spots[:, 1]), 0, self._height - rows)
        spots[:, 2], spots[:, 3] = spots[:, 0] + columns, spots[:, 1] + rows
        return spots

    def _covered(self, spots: Float) -> Float:
        """Return the part of each rectangle that lies on objects, ``(places,)``."""
        cells = (spots / _CELL_PX).astype(np.int64)
        left, top = cells[:, 0], cells[:, 1]
        right = np.minimum(np.maximum(cells[:, 2], left + 1), self._sums.shape[1] - 1)
        bottom = np.minimum(np.maximum(cells[:, 3], top + 1), self._sums.shape[0] - 1)
        sums = self._sums
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        part: Float = (inside / np.maximum((right - left) * (bottom - top), 1)).astype(np.float32)
        return part


def _overlaps(some: Float, others: Float) -> Float:
    """Return the number of pixels that pairs of rectangles share, ``(n, m)``."""
    across = np.minimum(some[:, None, 2], others[:, 2]) - np.maximum(some[:, None, 0], others[:, 0])
    down = np.minimum(some[:, None, 3], others[:, 3]) - np.maximum(some[:, None, 1], others[:, 1])
    shared: Float = np.maximum(across, 0) * np.maximum(down, 0)
    return shared
