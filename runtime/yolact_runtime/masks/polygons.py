"""Outlines of binary masks as rings of pixel corners."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["trace"]

# Directions on the grid of pixel corners, clockwise on the screen (y grows downwards): right, down, left, up.
_STEP = ((1, 0), (0, 1), (-1, 0), (0, -1))


def trace(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """Find the rings around the connected parts and holes of a mask.

    Args:
        mask: Dense mask, ``(height, width)``.

    Returns:
        Rings ``(vertices, 2)`` of (x, y) corners; pixel (0, 0) has the corners (0, 0) and (1, 1). Outer rings are
        clockwise on the screen, holes anticlockwise, the first vertex is not repeated, and only turns are listed.
        Pixels that touch at a corner belong to different rings.
    """
    ends = _directed_edges(mask)
    rings: list[npt.NDArray[np.int64]] = []
    while ends:
        # The topmost, leftmost corner left has one edge leaving it, so the ring ends when it comes back there.
        corner = next(iter(ends))
        direction = ends[corner][0]
        vertices: list[tuple[int, int]] = []
        while corner in ends:
            turned = _take(ends, corner, direction)
            if turned != direction or not vertices:
                vertices.append(corner)
            direction = turned
            corner = (corner[0] + _STEP[direction][0], corner[1] + _STEP[direction][1])
        rings.append(np.array(vertices, np.int64))
    return rings


def _directed_edges(mask: npt.NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """Map each corner to the directions of the pixel edges that leave it with the mask on their right."""
    padded = np.pad(mask, 1).astype(np.int8)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    # Edges above a pixel run right, below it left; left of it up, right of it down.
    found = (
        (0, np.argwhere(across == 1), (0, 0)),
        (2, np.argwhere(across == -1), (0, 1)),
        (3, np.argwhere(down == 1), (1, 0)),
        (1, np.argwhere(down == -1), (0, 0)),
    )
    ends: dict[tuple[int, int], list[int]] = {}
    for direction, places, (dy, dx) in found:
        for y, x in (places + np.array([dy, dx])).tolist():
            ends.setdefault((x, y), []).append(direction)
    return dict(sorted(ends.items(), key=lambda item: (item[0][1], item[0][0])))


def _take(ends: dict[tuple[int, int], list[int]], corner: tuple[int, int], direction: int) -> int:
    """Remove and return the edge to follow: the right turn first, so that diagonal neighbours are not joined."""
    options = ends[corner]
    chosen = min(options, key=lambda option: (direction + 1 - option) % 4)
    options.remove(chosen)
    if not options:
        del ends[corner]
    return chosen
