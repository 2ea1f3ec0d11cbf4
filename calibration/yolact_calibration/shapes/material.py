"""Materials of shapes, background and distractors: two colours mixed by a procedural pattern."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

__all__ = ["PATTERNS", "Material", "draw_material"]

PATTERNS = ("plain", "stripes", "checks", "speckle", "clouds")

Float = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

_LATTICE_SIZE = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Two colours with the pattern that mixes them.

    Attributes:
        pattern: Name of the pattern, one of :data:`PATTERNS`.
        first: ``(3,)`` float32 BGR colour in ``[0, 1]``.
        second: ``(3,)`` float32 BGR colour in ``[0, 1]``.
        period_px: Period of the pattern in pixels.
        angle: Rotation of the pattern in radians.
        sharpness: Sharpness of the edges between the colours of stripes and checks, 1 or more.
        lattice: ``(32, 32)`` float32 random numbers in ``[0, 1]`` for speckle and clouds.
    """

    pattern: str
    first: Single
    second: Single
    period_px: float
    angle: float
    sharpness: float
    lattice: Single

    @property
    def mean(self) -> Single:
        """Approximate mean colour, ``(3,)`` float32 BGR."""
        mean: Single = self.first if self.pattern == "plain" else (self.first + self.second) / np.float32(2)
        return mean

    def paint(self, x: Float, y: Float) -> Single:
        """Return ``(3, rows, columns)`` float32 BGR colours at points of the material's own plane.

        Args:
            x: Coordinates to the right in pixels; broadcasts with `y` to ``(rows, columns)``.
            y: Coordinates downwards in pixels.
        """
        cos, sin = math.cos(self.angle) / self.period_px, math.sin(self.angle) / self.period_px
        u = (cos * x + sin * y).astype(np.float32)
        v = (cos * y - sin * x).astype(np.float32)
        if self.pattern == "plain":
            return np.broadcast_to(self.first[:, None, None], (3, *u.shape))
        share = self._share(u, v)
        return self.first[:, None, None] + (self.second - self.first)[:, None, None] * share

    def _share(self, u: Single, v: Single) -> Single:
        """Return the share of the second colour in ``[0, 1]``."""
        if self.pattern == "stripes":
            return self._wave(u)
        if self.pattern == "checks":
            across, along = self._wave(u), self._wave(v)
            return across + along - 2 * across * along
        if self.pattern == "speckle":
            return self._lattice_at(_cell(np.floor(3 * u)), _cell(np.floor(3 * v)))
        return self._clouds(u, v)

    def _wave(self, position: Single) -> Single:
        """Return a triangle wave of period 1, steepened by the sharpness and clipped to ``[0, 1]``."""
        triangle = np.abs(2 * (position - np.floor(position)) - 1) - np.float32(0.5)
        wave: Single = np.clip(triangle * np.float32(self.sharpness) + np.float32(0.5), 0, 1)
        return wave

    def _clouds(self, u: Single, v: Single) -> Single:
        """Return smooth noise, interpolated from the lattice."""
        column, row = np.floor(u), np.floor(v)
        across, along = u - column, v - row
        across, along = across * across * (3 - 2 * across), along * along * (3 - 2 * along)
        left, right, top, bottom = _cell(column), _cell(column + 1), _cell(row), _cell(row + 1)
        upper_left, lower_left = self._lattice_at(left, top), self._lattice_at(left, bottom)
        upper = upper_left + (self._lattice_at(right, top) - upper_left) * across
        lower = lower_left + (self._lattice_at(right, bottom) - lower_left) * across
        return upper + (lower - upper) * along

    def _lattice_at(self, column: Index, row: Index) -> Single:
        value: Single = self.lattice.ravel().take(row * _LATTICE_SIZE + column)
        return value


def _cell(position: Single) -> Index:
    """Convert whole numbers to indices into the periodic lattice; its size is a power of two."""
    return position.astype(np.int64) & (_LATTICE_SIZE - 1)


def draw_material(rng: np.random.Generator, scale: float) -> Material:
    """Draw a random material.

    Args:
        rng: Random number generator.
        scale: Length of the frame's shorter side in units of 256 pixels; patterns grow with it.
    """
    first = rng.uniform(0.05, 0.95, 3)
    second = first + rng.uniform(0.25, 0.7) * (rng.uniform(0.0, 1.0, 3) - first)
    return Material(
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        first=first.astype(np.float32),
        second=second.astype(np.float32),
        period_px=float(rng.uniform(5, 24)) * scale,
        angle=float(rng.uniform(0, math.pi)),
        sharpness=float(rng.uniform(1, 6)),
        lattice=rng.uniform(0, 1, (_LATTICE_SIZE, _LATTICE_SIZE)).astype(np.float32),
    )
