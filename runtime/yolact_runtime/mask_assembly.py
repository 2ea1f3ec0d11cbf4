"""Mask assembly on the CPU: prototypes x coefficients -> masks in the frame, as runs, at a cost that follows outlines.

The published order is kept exactly: linear combination, sigmoid, crop at prototype resolution, bilinear upsampling,
``> 0.5``. What differs is that no upsampled image is ever made. Bilinear interpolation is linear between two
neighbouring prototype rows, so along a column of the frame a mask changes at most once in each such segment, and the
place can be computed. Work and memory are therefore ``frame columns x prototype rows`` inside each box, and the result
is born as column-major runs, which is what COCO RLE stores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError
from yolact_runtime.geometry import LinearTaps, crop_windows, linear_taps
from yolact_runtime.masks import Masks

__all__ = ["assemble_masks", "soft_masks"]

Float = npt.NDArray[np.float32]
_THRESHOLD = np.float32(0.5)


class _Windows(NamedTuple):
    """Prototype pixels of each box: ``[left, right) x [top, bottom)``, ``(n,)`` each; empty ones have no pixel."""

    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]
    bottom: npt.NDArray[np.int64]


class _Crossings(NamedTuple):
    """Where columns of masks pass the threshold: frame column, segment, the two values around, mask; ``(m,)`` each."""

    column: npt.NDArray[np.int64]
    segment: npt.NDArray[np.int64]
    before: Float
    after: Float
    mask: npt.NDArray[np.int64]


def soft_masks(prototype: Float, mask_coefficient: Float, xyxy_relative: Float, margin: float = 0.0) -> Float:
    """Cropped mask probabilities at prototype resolution: what the mask-IoU network of YOLACT++ reads.

    Args:
        prototype: ``(K, Hp, Wp)``.
        mask_coefficient: ``(n, K)``.
        xyxy_relative: ``(n, 4)``, relative to the image.
        margin: See :func:`yolact_runtime.geometry.crop_windows`.

    Returns:
        ``(n, Hp, Wp)``, zero outside the box; a new array.
    """
    windows = _windows(prototype, mask_coefficient, xyxy_relative, margin)
    masks = np.zeros((len(xyxy_relative), *prototype.shape[1:]), np.float32)
    columns_first = _columns_first(prototype)
    for i, window in enumerate(zip(*windows, strict=True)):
        left, right, top, bottom = window
        masks[i, top:bottom, left:right] = _probability(columns_first, mask_coefficient[i], *window).T
    return masks


def assemble_masks(
    prototype: Float, mask_coefficient: Float, xyxy_relative: Float, height: int, width: int, margin: float = 0.0
) -> Masks:
    """Binary masks of a frame.

    Args:
        prototype: ``(K, Hp, Wp)`` float32.
        mask_coefficient: ``(n, K)`` float32.
        xyxy_relative: ``(n, 4)``, relative to the image, not clipped.
        height: Rows of the frame.
        width: Columns of the frame.
        margin: Fraction of the box added on each side before cropping; 0 is the published behaviour, ``inf`` no crop.

    Returns:
        ``n`` masks that own their memory.

    Raises:
        ShapeError: The arrays disagree on ``n`` or ``K``.
    """
    windows = _windows(prototype, mask_coefficient, xyxy_relative, margin)
    rows, columns = linear_taps(prototype.shape[1], height), linear_taps(prototype.shape[2], width)
    columns_first = _columns_first(prototype)
    found = [
        _find_crossings(i, _probability(columns_first, mask_coefficient[i], *window), window, columns)
        for i, window in enumerate(zip(*windows, strict=True))
        if window[0] < window[1] and window[2] < window[3]
    ]
    if not found:
        return Masks.empty(len(xyxy_relative), height, width)
    crossings = _Crossings(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    row = _crossing_rows(crossings, rows)
    # Every column starts and ends outside the mask, so crossings alternate: into the mask, out of it.
    position = crossings.column * height + row
    return Masks.from_runs(crossings.mask[::2], position[::2], position[1::2], len(xyxy_relative), height, width)


def _windows(prototype: Float, mask_coefficient: Float, xyxy: Float, margin: float) -> _Windows:
    if prototype.ndim != 3 or mask_coefficient.shape != (len(xyxy), prototype.shape[0]) or xyxy.shape[1:] != (4,):
        raise ShapeError(
            f"mask assembly wants prototypes (K, Hp, Wp), coefficients (n, K) and boxes (n, 4); found "
            f"{prototype.shape}, {mask_coefficient.shape} and {xyxy.shape}"
        )
    left, right = crop_windows(xyxy[:, 0], xyxy[:, 2], prototype.shape[2], margin)
    top, bottom = crop_windows(xyxy[:, 1], xyxy[:, 3], prototype.shape[1], margin)
    return _Windows(left, right, top, bottom)


def _columns_first(prototype: Float) -> Float:
    """``(Wp, Hp, K)``: a window's columns are then runs of memory that a matrix-vector product reads in place."""
    return np.ascontiguousarray(prototype.transpose(2, 1, 0), dtype=np.float32)


def _probability(columns_first: Float, coefficient: Float, left: int, right: int, top: int, bottom: int) -> Float:
    """``(right - left, bottom - top)`` sigmoid of the linear combination inside one window, columns first."""
    linear = np.matmul(columns_first[left:right, top:bottom], coefficient)
    # exp() of anything below -88 would overflow; the sigmoid is zero there to the last bit of float32.
    np.maximum(linear, np.float32(-80), out=linear)
    np.negative(linear, out=linear)
    np.exp(linear, out=linear)
    linear += np.float32(1)
    probability: Float = np.reciprocal(linear, out=linear)
    return probability


def _find_crossings(
    index: int, probability: Float, window: tuple[int, int, int, int], columns: LinearTaps
) -> _Crossings:
    """Interpolate across columns, and list the segments between prototype rows in which a frame column changes side."""
    left, right, top, bottom = window
    # The crop leaves zeros around the window, and they take part in the interpolation.
    padded = np.zeros((right - left + 2, bottom - top + 2), np.float32)
    padded[1:-1, 1:-1] = probability
    first, last = columns.first[max(left - 1, 0)], columns.first[right]
    value = padded.take(columns.low[first:last] - (left - 1), axis=0)
    difference = padded.take(columns.high[first:last] - (left - 1), axis=0)
    difference -= value
    difference *= columns.fraction[first:last, None]
    value += difference
    inside = value > _THRESHOLD
    place = np.flatnonzero(inside[:, 1:] != inside[:, :-1])
    column, segment = np.divmod(place, inside.shape[1] - 1)
    flat = place + column  # a row of `value` is one longer than a row of segments
    values = value.ravel()
    mask = np.full(len(place), index)
    return _Crossings(column + first, segment + (top - 1), values[flat], values[flat + 1], mask)


def _crossing_rows(crossings: _Crossings, rows: LinearTaps) -> npt.NDArray[np.int64]:
    """First frame row on the far side of each crossing.

    Segment ``s`` lies between prototype rows ``s`` and ``s + 1``. Those before the first row and after the last one
    have no pixel: masks that touch the frame's edge start at row 0 and end at the frame's height.
    """
    segment, before, after = crossings.segment, crossings.before, crossings.after
    height, ratio = rows.target, rows.target / rows.source
    lowest = np.concatenate([[0], rows.first[:-2], [height]])[segment + 1]
    highest = np.concatenate([[0], rows.first[1:-1], [height]])[segment + 1]
    change = after - before
    exact = (segment + (_THRESHOLD - before) / change + 0.5) * ratio - 0.5
    row: npt.NDArray[np.int64] = np.clip(np.ceil(exact).astype(np.int64), lowest, highest)
    # The division that finds a crossing and the interpolation that defines a pixel round differently, and the pixel
    # decides. Only where a crossing passes closer to a pixel than that rounding can the two disagree.
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
    """Move rows by one where the interpolated value itself, evaluated in float32, says so."""
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
