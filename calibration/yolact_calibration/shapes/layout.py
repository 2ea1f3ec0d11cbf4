"""Random layout of a scene: shapes, background, distractors, light and sensor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from yolact_calibration.shapes.material import Material, draw_material
from yolact_calibration.shapes.outline import CLASS_NAMES, Placement

__all__ = ["MIN_VISIBLE_AREA_PX", "MIN_VISIBLE_FRACTION", "Distractor", "Layout", "Sensor", "Shape", "draw_layout"]

Single = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MIN_VISIBLE_AREA_PX = 60
"""Minimum number of visible pixels of a shape, checked when it or another shape is placed."""
MIN_VISIBLE_FRACTION = 0.35
"""Minimum visible share of a whole shape, including its part outside the frame."""

_SMALLEST, _LARGEST = 24 / 256, 130 / 256
"""Diameter of the circle around a shape, as a share of the frame's shorter side."""
_PLACING_ATTEMPTS = 16
_CONTRAST_ATTEMPTS = 6
_CLEAR_CONTRAST = 0.4


@dataclasses.dataclass(frozen=True, eq=False)
class Shape:
    """Object in a scene.

    Attributes:
        placement: Class and position of the shape.
        material: Material of the shape; the pattern rotates and moves with it.
        shade: Gradient of the light over the shape: its brightness is 1 plus the scalar product of this and (u, v).
        shadow: Offset x and y and softness in pixels, and darkness in ``[0, 1]``; darkness 0 means no shadow.
    """

    placement: Placement
    material: Material
    shade: tuple[float, float]
    shadow: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Distractor:
    """Region of another material in the background, which is not an object.

    Attributes:
        kind: Kind of region: ``blob`` (a wobbly outline), ``haze`` (no outline) or ``band`` (across the frame).
        placement: Position of the region; its class is meaningless.
        material: Material of the region.
        wobble: Weight and phase of the second and of the third harmonic of a blob's outline.
        opacity: Opacity in ``[0, 1]``.
    """

    kind: str
    placement: Placement
    material: Material
    wobble: tuple[float, float, float, float]
    opacity: float


@dataclasses.dataclass(frozen=True, eq=False)
class Sensor:
    """Light and camera.

    Attributes:
        gain: ``(3,)`` float32 brightness of each channel.
        slope: Change of brightness across the frame's width and height.
        blur_px: Sigma of the blur in pixels.
        noise: Sigma of the noise, as a share of the full range.
    """

    gain: Single
    slope: tuple[float, float]
    blur_px: float
    noise: float


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Layout of a whole scene.

    Attributes:
        background: Material of the background.
        ramp: ``(2, 3)`` float32 change of the background's colour across the frame's width and height.
        distractors: Distractors, lowest first; all of them are below all shapes.
        shapes: Shapes, lowest first.
        sensor: Light and camera.
    """

    background: Material
    ramp: Single
    distractors: tuple[Distractor, ...]
    shapes: tuple[Shape, ...]
    sensor: Sensor


def draw_layout(rng: np.random.Generator, height: int, width: int, max_shapes: int) -> Layout:
    """Draw a random scene in which every shape is clearly visible.

    Args:
        rng: Random number generator.
        height: Number of rows of the frame.
        width: Number of columns of the frame.
        max_shapes: Maximum number of shapes; a full frame has fewer.
    """
    scale = min(height, width) / 256
    background = draw_material(rng, scale)
    ramp = rng.uniform(-0.3, 0.3, (2, 3)).astype(np.float32)
    shapes: list[Shape] = []
    for placement in _draw_placements(rng, height, width, int(rng.integers(1, max_shapes + 1))):
        material = _contrasting_material(rng, scale, background, shapes)
        shapes.append(_dress(rng, scale, placement, material))
    distractors = tuple(_draw_distractor(rng, height, width, shapes) for _ in range(rng.integers(2, 6)))
    sensor = Sensor(
        gain=(rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)).astype(np.float32),
        slope=(float(rng.uniform(-0.25, 0.25)), float(rng.uniform(-0.25, 0.25))),
        blur_px=max(0.0, float(rng.uniform(-0.6, 1.0))),
        noise=float(rng.uniform(0.5, 8)) / 255,
    )
    return Layout(background, ramp, distractors, tuple(shapes), sensor)


def _draw_placements(rng: np.random.Generator, height: int, width: int, num_shapes: int) -> list[Placement]:
    """Draw placements, lowest first; one that hides too much of a shape is redrawn, and omitted after some attempts."""
    top = np.full((height, width), -1, np.int64)
    placements: list[Placement] = []
    visible, least = np.zeros(0, np.int64), np.zeros(0)
    for _ in range(num_shapes):
        for _ in range(_PLACING_ATTEMPTS):
            placement = _draw_placement(rng, height, width)
            window = placement.window().clipped(height, width)
            if window.empty:
                continue
            inside = placement.level(*window.pixel_centres()) < 0
            area = np.count_nonzero(inside)
            needed = max(MIN_VISIBLE_AREA_PX, MIN_VISIBLE_FRACTION * _whole_area(placement, inside))
            if area < needed:
                continue
            hidden = np.bincount(top[window.slices][inside] + 1, minlength=len(placements) + 1)[1:]
            if (visible - hidden >= least).all():
                top[window.slices][inside] = len(placements)
                placements.append(placement)
                visible = np.append(visible - hidden, area)
                least = np.append(least, needed)
                break
    return placements


def _whole_area(placement: Placement, inside: Flags) -> int:
    """Count the pixels of the shape, including those outside the frame."""
    window = placement.window()
    if inside.shape == (window.bottom - window.top, window.right - window.left):
        return int(np.count_nonzero(inside))
    return int(np.count_nonzero(placement.level(*window.pixel_centres()) < 0))


def _draw_placement(rng: np.random.Generator, height: int, width: int) -> Placement:
    diameter = math.exp(rng.uniform(math.log(_SMALLEST), math.log(_LARGEST))) * min(height, width)
    class_id = int(rng.integers(len(CLASS_NAMES)))
    share = float(rng.uniform())
    return Placement(
        class_id=class_id,
        x=float(rng.uniform(-0.02, 1.02)) * width,
        y=float(rng.uniform(-0.02, 1.02)) * height,
        radius_px=diameter / 2,
        angle=float(rng.uniform(0, 2 * math.pi)),
        aspect=float(rng.uniform(0.87, 1.15)),
        shear=float(rng.uniform(-0.15, 0.15)),
        inner=0.45 + 0.2 * share if CLASS_NAMES[class_id] == "ring" else 0.24 + 0.1 * share,
    )


def _contrasting_material(
    rng: np.random.Generator, scale: float, background: Material, shapes: list[Shape]
) -> Material:
    """Draw a material that usually, but not always, stands out from the background and from the other shapes."""
    others = np.stack([background.mean, *(shape.material.mean for shape in shapes)])
    # Sometimes the first material is used: a model must not rely on contrast.
    attempts = 1 if rng.uniform() < 0.12 else _CONTRAST_ATTEMPTS
    best = draw_material(rng, scale)
    for _ in range(attempts - 1):
        if _contrast(best, others) > _CLEAR_CONTRAST:
            break
        best = max(best, draw_material(rng, scale), key=lambda material: _contrast(material, others))
    return best


def _contrast(material: Material, others: Single) -> float:
    """Return the distance in colour from the nearest of the others ``(n, 3)``."""
    return float(np.sqrt(((others - material.mean) ** 2).sum(axis=1)).min())


def _dress(rng: np.random.Generator, scale: float, placement: Placement, material: Material) -> Shape:
    steepness, direction = rng.uniform(0, 0.4), rng.uniform(0, 2 * math.pi)
    offset = rng.uniform(-6, 6, 2) * scale
    softness = rng.uniform(2, 10) * scale
    darkness = max(0.0, rng.uniform(-0.5, 0.5))
    return Shape(
        placement=placement,
        material=material,
        shade=(steepness * math.cos(direction), steepness * math.sin(direction)),
        shadow=(float(offset[0]), float(offset[1]), float(softness), float(darkness)),
    )


def _draw_distractor(rng: np.random.Generator, height: int, width: int, shapes: list[Shape]) -> Distractor:
    """Draw a distractor; about half of them have the material of a shape, so that it does not identify shapes."""
    side = min(height, width)
    like = int(rng.integers(2 * len(shapes) + 1))
    return Distractor(
        kind=("blob", "haze", "band")[rng.integers(3)],
        placement=Placement(
            class_id=0,
            x=float(rng.uniform(0, width)),
            y=float(rng.uniform(0, height)),
            radius_px=float(rng.uniform(0.08, 0.3)) * side,
            angle=float(rng.uniform(0, 2 * math.pi)),
            aspect=float(rng.uniform(0.75, 1.3)),
        ),
        material=shapes[like].material if like < len(shapes) else draw_material(rng, side / 256),
        wobble=(
            float(rng.uniform(0.1, 0.22)),
            float(rng.uniform(0, 2 * math.pi)),
            float(rng.uniform(0.12, 0.22)),
            float(rng.uniform(0, 2 * math.pi)),
        ),
        opacity=float(rng.uniform(0.4, 0.9)),
    )
