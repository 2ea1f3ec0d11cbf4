"""Outlines of the six shapes and their placement in the image; a formula decides which points are inside."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["CLASS_NAMES", "Placement", "Window"]

CLASS_NAMES = ("disc", "ring", "square", "triangle", "star", "cross")

Float = npt.NDArray[np.float64]

_STRIP_SIZE = 8192
_HALF_SIDE = math.sqrt(0.5)
_ARM_LENGTH = 0.94
# The pentagram's five lines, at this distance from its centre, pass through pairs of its outer points.
_STAR_LINE = math.cos(2 * math.pi / 5)


@dataclasses.dataclass(frozen=True)
class Window:
    """Rectangle of pixels with exclusive ends; it may extend beyond the frame."""

    left: int
    top: int
    right: int
    bottom: int

    def clipped(self, height: int, width: int) -> Window:
        """Return the part inside a frame, which may be empty."""
        left, top = min(max(self.left, 0), width), min(max(self.top, 0), height)
        return Window(left, top, max(min(self.right, width), left), max(min(self.bottom, height), top))

    @property
    def empty(self) -> bool:
        """Whether the window has no pixels."""
        return self.left >= self.right or self.top >= self.bottom

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of rows and columns, for indexing a frame that contains the window."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def strips(self) -> Iterator[Window]:
        """Yield strips of a few thousand pixels, top first; arrays of that size stay in the cache."""
        num_rows = max(1, _STRIP_SIZE // max(1, self.right - self.left))
        for top in range(self.top, self.bottom, num_rows):
            yield Window(self.left, top, self.right, min(top + num_rows, self.bottom))

    def pixel_centres(self) -> tuple[Float, Float]:
        """Return x ``(1, columns)`` and y ``(rows, 1)`` of the pixel centres: float64, in pixels of the frame."""
        x, y = np.arange(self.left, self.right, dtype=np.float64), np.arange(self.top, self.bottom, dtype=np.float64)
        return x[None, :] + 0.5, y[:, None] + 0.5


@dataclasses.dataclass(frozen=True)
class Placement:
    """Shape in the image: its outline, and the affine map from the outline's plane to the frame.

    In its own plane every outline lies in the unit circle around the origin.

    Attributes:
        class_id: Index into :data:`CLASS_NAMES`.
        x: Horizontal centre of the shape in pixels of the frame.
        y: Vertical centre of the shape in pixels of the frame, downwards.
        radius_px: Radius in pixels of the circle around the shape before it is stretched.
        angle: Rotation in radians, from x towards y.
        aspect: Factor by which the shape is stretched along its x, and by whose inverse along its y; 1 is none.
        shear: Factor of y by which points move along x; 0 is none.
        inner: Radius of a ring's hole, or half the width of a cross's arm, at most 0.34. Others ignore it.
    """

    class_id: int
    x: float
    y: float
    radius_px: float
    angle: float = 0.0
    aspect: float = 1.0
    shear: float = 0.0
    inner: float = 0.34

    def to_plane(self, x: Float, y: Float) -> tuple[Float, Float]:
        """Convert points of the frame, in pixels, to points (u, v) of the shape's plane."""
        a, b, c, d = self._matrix()
        # Stretch and shear preserve areas, so the determinant is the square of the radius.
        determinant = a * d - b * c
        dx, dy = x - self.x, y - self.y
        return (d / determinant) * dx - (b / determinant) * dy, (a / determinant) * dy - (c / determinant) * dx

    def level(self, x: Float, y: Float) -> Float:
        """Return values that are negative inside the outline, and near it about the distance in pixels."""
        u, v = self.to_plane(x, y)
        return _OUTLINES[self.class_id](u, v, self.inner) * self.radius_px

    def window(self, margin_px: float = 1.0) -> Window:
        """Return a window with every pixel inside the outline and `margin_px` around it."""
        a, b, c, d = self._matrix()
        half_width, half_height = math.hypot(a, b) + margin_px, math.hypot(c, d) + margin_px
        return Window(
            math.floor(self.x - half_width),
            math.floor(self.y - half_height),
            math.ceil(self.x + half_width),
            math.ceil(self.y + half_height),
        )

    def _matrix(self) -> tuple[float, float, float, float]:
        """Return rows (a, b), (c, d) of the map from the plane to pixels: rotation, stretch, shear and radius."""
        cos, sin = math.cos(self.angle) * self.radius_px, math.sin(self.angle) * self.radius_px
        along_v = (self.shear, 1 / self.aspect)
        return (
            cos * self.aspect,
            cos * along_v[0] - sin * along_v[1],
            sin * self.aspect,
            sin * along_v[0] + cos * along_v[1],
        )


def _disc(u: Float, v: Float, _inner: float) -> Float:
    return np.sqrt(u * u + v * v) - 1


def _ring(u: Float, v: Float, inner: float) -> Float:
    return np.abs(np.sqrt(u * u + v * v) - (1 + inner) / 2) - (1 - inner) / 2


def _square(u: Float, v: Float, _inner: float) -> Float:
    return np.maximum(np.abs(u), np.abs(v)) - _HALF_SIDE


def _triangle(u: Float, v: Float, _inner: float) -> Float:
    return np.maximum(math.sqrt(0.75) * np.abs(u) - 0.5 * v, v) - 0.5


def _star(u: Float, v: Float, _inner: float) -> Float:
    """Return the level of a pentagram: a point is inside if it is on the inner side of at least four of five lines."""
    highest = np.full(np.broadcast_shapes(u.shape, v.shape), -np.inf)
    second = highest
    for k in range(5):
        angle = 2 * math.pi * k / 5 + math.pi / 2
        side = math.cos(angle) * u + math.sin(angle) * v
        second = np.maximum(second, np.minimum(highest, side))
        highest = np.maximum(highest, side)
    return second - _STAR_LINE


def _cross(u: Float, v: Float, inner: float) -> Float:
    across, along = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(across - _ARM_LENGTH, along - inner), np.maximum(across - inner, along - _ARM_LENGTH))


_OUTLINES = (_disc, _ring, _square, _triangle, _star, _cross)
