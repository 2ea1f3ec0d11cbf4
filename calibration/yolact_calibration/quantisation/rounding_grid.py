"""Rounding of activations to eight bits in two ways, and the expected error of a histogram's values."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

from yolact_calibration.quantisation.histogram import Mass

__all__ = ["ExpectedError", "Grid", "levels"]

Float = npt.NDArray[np.float64]
# A bin narrower than this, relative to its position, counts as a single value.
_POINT = 1e-9


class Grid(str, Enum):
    """Meaning of the eight-bit integers.

    INT8: ``scale * q``, q in -128..127, ``scale = max(-low, high) / 127``. UINT8: ``scale * (q - zero_point)``, q in
    0..255, ``scale = (high - low) / 255``, the zero point whole so that 0 stays exactly 0.
    """

    INT8 = "int8"
    UINT8 = "uint8"


def levels(grid: Grid, low: Float, high: Float) -> tuple[Float, Float, Float]:
    """Return the scale, and its first and last multiple, of ranges ``[low, high]`` that contain 0 (any shape)."""
    if grid is Grid.INT8:
        scale = np.maximum(-low, high) / 127
        first, last = np.full_like(scale, -128), np.full_like(scale, 127)
    else:
        scale = (high - low) / 255
        zero_point = np.rint(np.divide(-low, scale, out=np.zeros_like(scale), where=scale > 0))
        first, last = -zero_point, 255 - zero_point
    return np.where(scale > 0, scale, 1.0), first, last


class ExpectedError:
    """Sum of squared errors of a histogram's values, for any range.

    Values are assumed to be uniform inside a bin, and the error is integrated exactly: it is valid for bins narrower
    and wider than a step, below half a step, and beyond the clipping threshold.

    Args:
        mass: Occupied bins of the histogram.
        grid: Grid to which values are rounded.
    """

    def __init__(self, mass: Mass, grid: Grid) -> None:
        self._grid = grid
        width = mass.upper - mass.lower
        point = width <= _POINT * np.maximum(np.abs(mass.lower), np.abs(mass.upper))
        self._points, self._point_counts = mass.lower[point], mass.counts[point]
        lower, upper, density = mass.lower[~point], mass.upper[~point], mass.counts[~point] / width[~point]
        # Adjacent bins share an edge: each edge is evaluated once.
        self._edges, places = np.unique(np.concatenate([lower, upper]), return_inverse=True)
        signed = np.concatenate([-density, density])
        self._weights = np.bincount(places.reshape(-1), weights=signed, minlength=len(self._edges))

    def __call__(self, low: Float, high: Float) -> Float:
        """Compute the errors of ranges.

        Args:
            low: ``(N,)`` float64 lower ends.
            high: ``(N,)`` float64 upper ends.

        Returns:
            ``(N,)`` float64 sums of squared errors.
        """
        scale, first, last = (values[:, None] for values in levels(self._grid, low, high))
        position = self._edges / scale
        level = np.clip(np.rint(position), first, last)
        position -= level
        # The integral of (x - nearest level)**2 from 0, in steps: 1/12 for each whole step, and a cubic for the rest.
        level *= 1 / 12
        position *= position * position * (1 / 3)
        position += level
        within = scale[:, 0] ** 3 * (position @ self._weights)
        nearest = scale * np.clip(np.rint(self._points / scale), first, last)
        errors: Float = np.maximum(within, 0) + (self._points - nearest) ** 2 @ self._point_counts
        return errors
