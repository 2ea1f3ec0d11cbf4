"""Mask assembly on the CPU: from prototypes and coefficients to runs of the frame, at a cost that depends on outlines.

The published order is kept exactly: linear combination, sigmoid, crop at prototype resolution, bilinear upsampling, ``>
0.5``. The difference is that no upsampled image is ever created. Call the square between four neighbouring prototype
pixels a cell. If all four are on one side of the threshold, so is everything interpolated between them. In the other
cells, the outline, bilinear interpolation is linear along a column of the frame, so the mask changes at most once
there, and the position can be computed. The result consists of column-major runs, the format of COCO RLE.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_runtime.cpu.geometry import LinearTaps, crop_windows, linear_taps
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.masks import Masks
from yolact_runtime.masks.rle import run_positions

__all__ = ["assemble_masks", "soft_masks"]

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]
_THRESHOLD = np.float32(0.5)
# Masks processed at once: their intermediate arrays fit in a second-level cache.
_BLOCK_MASKS = 16


class _Windows(NamedTuple):
    """Prototype pixels of each box: ``[left, right) x [top, bottom)``, ``(n,)`` each; empty ones have no pixel."""

    left: Int
    right: Int
    top: Int
    bottom: Int


class _Padded(NamedTuple):
    """Probabilities of all windows in one buffer, columns first, with a rim of zeros around each window.

    The crop leaves zeros around a window, which take part in the interpolation; they also keep the cells of one window
    from reaching into the next.

    Attributes:
        value: Flat array, with two rims more than the windows need at the end.
        start: Position of each window's first value, ``(n,)``.
        height: Number of rows of each window with its rim, ``(n,)``.
    """

    value: Float
    start: Int
    height: Int


class _Outline(NamedTuple):
    """Cells that the outline of a mask passes through, ``(cells,)`` each.

    Attributes:
        mask: Index of the mask.
        column: Prototype column left of the cell; -1 if the cell begins with the rim.
        row: Prototype row above the cell; -1 if the cell begins with the rim.
        corners: Probabilities ``(4, cells)``: upper left, lower left, upper right, lower right.
    """

    mask: Int
    column: Int
    row: Int
    corners: Float


class _Crossings(NamedTuple):
    """Positions at which a column of the frame crosses the threshold inside a cell, ``(crossings,)`` each.

    Attributes:
        mask: Index of the mask.
        column: Column of the frame.
        segment: Prototype row above the crossing.
        before: Probability at that row.
        after: Probability at the row below.
    """

    mask: Int
    column: Int
    segment: Int
    before: Float
    after: Float


def soft_masks(prototype: Float, mask_coefficient: Float, xyxy_relative: Float, margin: float = 0.0) -> Float:
    """Compute the cropped probabilities at prototype resolution that the mask-IoU network of YOLACT++ reads.

    Args:
        prototype: Prototypes, ``(K, Hp, Wp)``.
        mask_coefficient: Mask coefficients, ``(n, K)``.
        xyxy_relative: Boxes, ``(n, 4)``, relative to the image.
        margin: Fraction of the box's length added on both sides; see :func:`yolact_runtime.cpu.geometry.crop_windows`.

    Returns:
        A new array ``(n, Hp, Wp)``, zero outside the box.

    Raises:
        ShapeError: The arrays disagree on ``n`` or ``K``.
    """
    windows = _windows(prototype, mask_coefficient, xyxy_relative, margin)
    padded = _probabilities(prototype, mask_coefficient, windows)
    masks = np.zeros((len(xyxy_relative), *prototype.shape[1:]), np.float32)
    for i, (left, right, top, bottom) in enumerate(zip(*windows, strict=True)):
        if left < right and top < bottom:
            masks[i, top:bottom, left:right] = _window(padded, i, right - left)[1:-1, 1:-1].T
    return masks


def assemble_masks(
    prototype: Float, mask_coefficient: Float, xyxy_relative: Float, height: int, width: int, margin: float = 0.0
) -> Masks:
    """Compute the binary masks of a frame.

    Args:
        prototype: Prototypes, ``(K, Hp, Wp)`` float32.
        mask_coefficient: Mask coefficients, ``(n, K)`` float32.
        xyxy_relative: Boxes, ``(n, 4)``, relative to the image, not clipped.
        height: Number of rows of the frame.
        width: Number of columns of the frame.
        margin: Fraction of the box added on each side before cropping; 0 is the published behaviour, ``inf`` no crop.

    Returns:
        The ``n`` masks, which own their memory.

    Raises:
        ShapeError: The arrays disagree on ``n`` or ``K``.
    """
    windows = _windows(prototype, mask_coefficient, xyxy_relative, margin)
    rows, columns = linear_taps(prototype.shape[1], height), linear_taps(prototype.shape[2], width)
    padded = _probabilities(prototype, mask_coefficient, windows)
    masks, positions = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, len(xyxy_relative), _BLOCK_MASKS):
        outline = _find_outline(padded, windows, range(first, min(first + _BLOCK_MASKS, len(xyxy_relative))))
        crossings = _find_crossings(outline, columns)
        masks.append(crossings.mask)
        positions.append(crossings.column * height + _crossing_rows(crossings, rows))
    mask, position = np.concatenate(masks), np.concatenate(positions)
    # Every column starts and ends outside the mask, so crossings alternate: into the mask, out of it.
    return Masks.from_runs(mask[::2], position[::2], position[1::2], len(xyxy_relative), height, width)


def _windows(prototype: Float, mask_coefficient: Float, xyxy: Float, margin: float) -> _Windows:
    if prototype.ndim != 3 or mask_coefficient.shape != (len(xyxy), prototype.shape[0]) or xyxy.shape[1:] != (4,):
        raise ShapeError(
            f"mask assembly requires prototypes (K, Hp, Wp), coefficients (n, K) and boxes (n, 4); found "
            f"{prototype.shape}, {mask_coefficient.shape} and {xyxy.shape}"
        )
    left, right = crop_windows(xyxy[:, 0], xyxy[:, 2], prototype.shape[2], margin)
    top, bottom = crop_windows(xyxy[:, 1], xyxy[:, 3], prototype.shape[1], margin)
    return _Windows(left, right, top, bottom)


def _probabilities(prototype: Float, mask_coefficient: Float, windows: _Windows) -> _Padded:
    """Compute the sigmoid of the linear combination inside the windows only."""
    # Columns first, prototypes last: a matrix-vector product then reads a window as runs of memory in place.
    columns_first = np.ascontiguousarray(prototype.transpose(2, 1, 0), dtype=np.float32)
    width, height = windows.right - windows.left, windows.bottom - windows.top
    filled = (width > 0) & (height > 0)
    size = np.where(filled, (width + 2) * (height + 2), 0)
    end = np.cumsum(size)
    rim = int(height.max(initial=0)) + 3
    # Zero after the sigmoid: its negated argument is infinite outside the windows.
    value = np.full((int(end[-1]) if len(end) else 0) + rim, np.inf, np.float32)
    padded = _Padded(value, end - size, height + 2)
    for i in np.flatnonzero(filled).tolist():
        left, right, top, bottom = (int(side[i]) for side in windows)
        linear = np.matmul(columns_first[left:right, top:bottom], mask_coefficient[i])
        np.negative(linear, out=_window(padded, i, right - left)[1:-1, 1:-1])
    # exp() overflows to infinity and the reciprocal makes it zero, which is exactly the sigmoid.
    with np.errstate(over="ignore"):
        np.exp(value, out=value)
    value += np.float32(1)
    np.reciprocal(value, out=value)
    return padded


def _window(padded: _Padded, index: int, width: int) -> Float:
    """Return a view of one window with its rim, columns first."""
    start, height = int(padded.start[index]), int(padded.height[index])
    return padded.value[start : start + (width + 2) * height].reshape(width + 2, height)


def _find_outline(padded: _Padded, windows: _Windows, masks: range) -> _Outline:
    """Find the cells whose corners are not all on one side of the threshold, by mask, column and row."""
    found = []
    for i in masks:
        start, height = int(padded.start[i]), int(padded.height[i])
        width = int(windows.right[i] - windows.left[i]) + 2
        size = width * height if width > 2 and height > 2 else 0
        inside = padded.value[start : start + size] > _THRESHOLD
        # Cells as a run of memory. Those that begin in a window's last row lie between two rims and are never mixed.
        count = max(size - height - 1, 0)
        upper, lower = inside[:count], inside[1 : count + 1]
        right, lower_right = inside[height : height + count], inside[height + 1 :]
        found.append(np.flatnonzero((upper != lower) | (right != lower_right) | (upper != right)))
    return _collect(padded, windows, masks, found)


def _collect(padded: _Padded, windows: _Windows, masks: range, found: list[Int]) -> _Outline:
    """Collect the corners of cells, which are given as positions in their windows."""
    mask = np.repeat(np.array(masks), [len(places) for places in found])
    place = np.concatenate(found)
    height = padded.height[mask]
    column, row = np.divmod(place, height)
    place = place + padded.start[mask]
    corners = padded.value[np.stack([place, place + 1, place + height, place + height + 1])]
    return _Outline(mask, windows.left[mask] + column - 1, windows.top[mask] + row - 1, corners)


def _find_crossings(outline: _Outline, columns: LinearTaps) -> _Crossings:
    """Interpolate the outline's cells across the columns of the frame that lie in them, in the order of runs."""
    # A stack consists of vertically adjacent cells of one mask, which share their frame columns.
    opens = np.ones(len(outline.mask), bool)
    np.logical_or(outline.mask[1:] != outline.mask[:-1], outline.column[1:] != outline.column[:-1], out=opens[1:])
    stack = np.flatnonzero(opens)
    cells_in_stack = np.diff(stack, append=len(opens))
    # No frame column lies in a cell that begins with the rim left of the first prototype column.
    edge = np.concatenate([[0], columns.first])
    first, last = edge[outline.column[stack] + 1], edge[outline.column[stack] + 2]
    column = run_positions(first, last)
    fraction = columns.fraction[column]
    # For every frame column of a stack, the stack's cells from top to bottom.
    count = np.repeat(cells_in_stack, last - first)
    top = np.repeat(stack, last - first)
    cell = run_positions(top, top + count)
    fraction = np.repeat(fraction, count)
    upper_left, lower_left, upper_right, lower_right = outline.corners
    # Rounding cannot carry this form over the threshold between two corners on one side of it: above 0.5 the difference
    # is exact, below it an error is less than half a step at 0.5. So the excluded cells have no crossing either.
    before = (upper_right - upper_left)[cell]
    before *= fraction
    before += upper_left[cell]
    after = (lower_right - lower_left)[cell]
    after *= fraction
    after += lower_left[cell]
    passed = np.flatnonzero((before > _THRESHOLD) != (after > _THRESHOLD))
    cell, column = cell[passed], np.repeat(column, count)[passed]
    return _Crossings(outline.mask[cell], column, outline.row[cell], before[passed], after[passed])


def _crossing_rows(crossings: _Crossings, rows: LinearTaps) -> npt.NDArray[np.int64]:
    """Return the first frame row on the far side of each crossing.

    Segment ``s`` lies between prototype rows ``s`` and ``s + 1``. The segments before the first row and after the last
    one have no pixel: masks that touch the frame's edge start at row 0 and end at the frame's height.
    """
    segment, before, after = crossings.segment, crossings.before, crossings.after
    height, ratio = rows.target, rows.target / rows.source
    lowest = np.concatenate([[0], rows.first[:-2], [height]])[segment + 1]
    highest = np.concatenate([[0], rows.first[1:-1], [height]])[segment + 1]
    change = after - before
    exact = (segment + (_THRESHOLD - before) / change + 0.5) * ratio - 0.5
    row: npt.NDArray[np.int64] = np.clip(np.ceil(exact).astype(np.int64), lowest, highest)
    # The division that finds a crossing and the interpolation that defines a pixel round differently, and the pixel
    # decides. They can only disagree if a crossing passes closer to a pixel than that rounding.
    rounding = ratio * np.float32(4e-7) / np.abs(change) + np.float32(1e-4)
    close = np.flatnonzero(np.abs(exact - np.rint(exact)) < rounding)
    row[close] = _settle(row[close], lowest[close], highest[close], before[close], after[close], rows)
    return row


def _settle(
    row: npt.NDArray[np.int64],
    lowest: npt.NDArray[np.int64],
    highest: npt.NDArray[np.int64],
    before: Float,
    after: Float,
    rows: LinearTaps,
) -> npt.NDArray[np.int64]:
    """Move rows by one where the interpolated value itself, evaluated in float32, requires it."""
    rising = after > _THRESHOLD

    def crossed(pixel: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        fraction = rows.fraction[np.minimum(pixel, rows.target - 1)]
        value = before * (1 - fraction) + after * fraction
        result: npt.NDArray[np.bool_] = (value > _THRESHOLD) == rising
        return result

    too_late = (row > lowest) & crossed(row - 1)
    too_early = (row < highest) & ~crossed(row)
    settled: npt.NDArray[np.int64] = row - too_late + (too_early & ~too_late)
    return settled
