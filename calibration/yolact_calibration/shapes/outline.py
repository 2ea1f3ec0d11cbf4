"""The outlines of the six shapes, and where one lies in the picture: a formula says what is inside it."""

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
# The pentagram's five lines, at this distance from its middle, pass through pairs of its outer points.
_STAR_LINE = math.cos(2 * math.pi / 5)


@dataclasses.dataclass(frozen=True)
class Window:
    """A rectangle of pixels, ends exclusive; it may reach beyond the frame."""

    left: int
    top: int
    right: int
    bottom: int

    def clipped(self, height: int, width: int) -> Window:
        """The part inside a frame; it may be empty."""
        left, top = min(max(self.left, 0), width), min(max(self.top, 0), height)
        return Window(left, top, max(min(self.right, width), left), max(min(self.bottom, height), top))

    @property
    def empty(self) -> bool:
        """No pixel in it."""
        return self.left >= self.right or self.top >= self.bottom

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing a frame that holds the window."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def strips(self) -> Iterator[Window]:
        """The window in strips of some thousand pixels, top first; arrays of that size stay in the cache."""
        num_rows = max(1, _STRIP_SIZE // max(1, self.right - self.left))
        for top in range(self.top, self.bottom, num_rows):
            yield Window(self.left, top, self.right, min(top + num_rows, self.bottom))

    def pixel_centres(self) -> tuple[Float, Float]:
        """Coordinates x ``(1, columns)`` and y ``(rows, 1)`` of the pixel centres, float64, pixels of the frame."""
        x, y = np.arange(self.left, self.right, dtype=np.float64), np.arange(self.top, self.bottom, dtype=np.float64)
        return x[None, :] + 0.5, y[:, None] + 0.5


@dataclasses.dataclass(frozen=True)
class Placement:
    """One shape in the picture: its outline, and the affine map from the outline's plane to the frame.

    In its own plane every outline lies in the unit circle around the origin.

    Attributes:
        class_id: Index into :data:`CLASS_NAMES`.
        x: Middle of the shape, pixels of the frame.
        y: The same, downwards.
        radius_px: Of the circle around the shape before it is stretched.
        angle: Rotation, radians, from x towards y.
        aspect: Stretches by this along the shape's x and by its inverse along y; 1 is none.
        shear: Moves points along x by this times their y; 0 is none.
        inner: Ring: radius of the hole. Cross: half the width of an arm, at most 0.34. Others ignore it.
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
        """Points of the frame, in pixels, as points (u, v) of the shape's plane."""
        a, b, c, d = self._matrix()
        # Stretch and shear keep areas, so the determinant is the square of the radius.
        determinant = a * d - b * c
        dx, dy = x - self.x, y - self.y
        return (d / determinant) * dx - (b / determinant) * dy, (a / determinant) * dy - (c / determinant) * dx

    def level(self, x: Float, y: Float) -> Float:
        """Negative inside the outline, positive outside; near the outline about the distance from it in pixels."""
        u, v = self.to_plane(x, y)
        return _OUTLINES[self.class_id](u, v, self.inner) * self.radius_px

    def window(self, margin_px: float = 1.0) -> Window:
        """Holds every pixel inside the outline and `margin_px` around it."""
        a, b, c, d = self._matrix()
        half_width, half_height = math.hypot(a, b) + margin_px, math.hypot(c, d) + margin_px
        return Window(
            math.floor(self.x - half_width),
            math.floor(self.y - half_height),
            math.ceil(self.x + half_width),
            math.ceil(self.y + half_height),
        )

    def _matrix(self) -> tuple[float, float, float, float]:
        """Rows (a, b), (c, d) of the map from the plane to pixels: rotation times stretch and shear times radius."""
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
    """A pentagram: a point is inside if it is on the inner side of at least four of the five lines."""
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
