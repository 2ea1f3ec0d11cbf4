"""What is in a scene of shapes, drawn at random: shapes, background, distractors, light and sensor."""

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
"""A shape of which less is to be seen is not placed, nor one that would leave less of another."""
MIN_VISIBLE_FRACTION = 0.35
"""The same, as a share of the whole shape, what lies outside the frame included."""

_SMALLEST, _LARGEST = 24 / 256, 130 / 256
"""Diameter of the circle around a shape, as a share of the frame's shorter side."""
_PLACING_ATTEMPTS = 16
_CONTRAST_ATTEMPTS = 6
_CLEAR_CONTRAST = 0.4


@dataclasses.dataclass(frozen=True, eq=False)
class Shape:
    """One object.

    Attributes:
        placement: Its class and where it lies.
        material: What it is made of; the pattern turns and moves with it.
        shade: Gradient of the light over the shape: its brightness is 1 plus the scalar product of this and (u, v).
        shadow: Offset x and y and softness in pixels, and darkness in ``[0, 1]``; darkness 0 is no shadow.
    """

    placement: Placement
    material: Material
    shade: tuple[float, float]
    shadow: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Distractor:
    """A region of another material in the background, which is no object.

    Attributes:
        kind: ``blob`` (a wobbly outline), ``haze`` (no outline) or ``band`` (across the frame).
        placement: Where it lies; its class means nothing.
        material: What it is made of.
        wobble: Blob only: weight and phase of the second and of the third harmonic of its outline.
        opacity: In ``[0, 1]``.
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
        gain: ``(3,)`` float32, brightness of each channel.
        slope: Change of brightness across the frame's width and height.
        blur_px: Sigma of the blur.
        noise: Sigma of the noise, the full range being 1.
    """

    gain: Single
    slope: tuple[float, float]
    blur_px: float
    noise: float


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A whole scene.

    Attributes:
        background: Its material.
        ramp: ``(2, 3)`` float32: change of the background's colour across the frame's width and height.
        distractors: Lowest first; all of them are below all shapes.
        shapes: Lowest first.
        sensor: Light and camera.
    """

    background: Material
    ramp: Single
    distractors: tuple[Distractor, ...]
    shapes: tuple[Shape, ...]
    sensor: Sensor


def draw_layout(rng: np.random.Generator, height: int, width: int, max_shapes: int) -> Layout:
    """A random scene in which every shape is well visible.

    Args:
        rng: Where the random numbers come from.
        height: Rows of the frame.
        width: Columns of the frame.
        max_shapes: At most so many shapes; fewer where the frame is full.
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
    """Lowest first; a place that would hide too much of a shape is drawn again, and after some attempts left out."""
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
    """Pixels of the shape, those outside the frame included."""
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
    """A material that mostly, not always, stands out from the background and from the other shapes."""
    others = np.stack([background.mean, *(shape.material.mean for shape in shapes)])
    # Now and then whatever comes first is taken: contrast must not be certain.
    attempts = 1 if rng.uniform() < 0.12 else _CONTRAST_ATTEMPTS
    best = draw_material(rng, scale)
    for _ in range(attempts - 1):
        if _contrast(best, others) > _CLEAR_CONTRAST:
            break
        best = max(best, draw_material(rng, scale), key=lambda material: _contrast(material, others))
    return best


def _contrast(material: Material, others: Single) -> float:
    """Distance in colour from the nearest of the others ``(n, 3)``."""
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
    """About half of them are made of the material of one of the shapes, so that the material does not tell."""
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
