"""What shapes, background and distractors are made of: two colours and a procedural pattern that mixes them."""

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
    """Two colours and how they mix.

    Attributes:
        pattern: One of :data:`PATTERNS`.
        first: ``(3,)`` float32 in ``[0, 1]``, blue first.
        second: The other colour.
        period_px: Size of the pattern.
        angle: Rotation of the pattern, radians.
        sharpness: Of the edges between the colours of stripes and checks, 1 or more.
        lattice: ``(32, 32)`` float32 in ``[0, 1]``: the random numbers behind speckle and clouds.
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
        """``(3,)`` about the mean colour."""
        mean: Single = self.first if self.pattern == "plain" else (self.first + self.second) / np.float32(2)
        return mean

    def paint(self, x: Float, y: Float) -> Single:
        """``(3, rows, columns)`` float32, blue first, at points of the material's own plane, in pixels.

        Args:
            x: Broadcasts with `y` to ``(rows, columns)``.
            y: Downwards.
        """
        cos, sin = math.cos(self.angle) / self.period_px, math.sin(self.angle) / self.period_px
        u = (cos * x + sin * y).astype(np.float32)
        v = (cos * y - sin * x).astype(np.float32)
        if self.pattern == "plain":
            return np.broadcast_to(self.first[:, None, None], (3, *u.shape))
        share = self._share(u, v)
        return self.first[:, None, None] + (self.second - self.first)[:, None, None] * share

    def _share(self, u: Single, v: Single) -> Single:
        """How much of the second colour, in ``[0, 1]``."""
        if self.pattern == "stripes":
            return self._wave(u)
        if self.pattern == "checks":
            across, along = self._wave(u), self._wave(v)
            return across + along - 2 * across * along
        if self.pattern == "speckle":
            return self._lattice_at(_cell(np.floor(3 * u)), _cell(np.floor(3 * v)))
        return self._clouds(u, v)

    def _wave(self, position: Single) -> Single:
        """A triangle wave of period 1, steepened by the sharpness and cut to ``[0, 1]``."""
        triangle = np.abs(2 * (position - np.floor(position)) - 1) - np.float32(0.5)
        wave: Single = np.clip(triangle * np.float32(self.sharpness) + np.float32(0.5), 0, 1)
        return wave

    def _clouds(self, u: Single, v: Single) -> Single:
        """Smooth noise: the lattice, interpolated."""
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
    """Index into the lattice, which repeats, of whole numbers; its size is a power of two."""
    return position.astype(np.int64) & (_LATTICE_SIZE - 1)


def draw_material(rng: np.random.Generator, scale: float) -> Material:
    """A random material.

    Args:
        rng: Where the random numbers come from.
        scale: Size of the frame's shorter side in units of 256 pixels; patterns grow with it.
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
