"""Images of textured, shaded, occluding shapes with exact truth, and clips of moving ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import UsageError
from yolact_calibration.shapes.canvas import expose, paint_background, paint_shape
from yolact_calibration.shapes.layout import Layout, Shape, draw_layout
from yolact_calibration.shapes.outline import CLASS_NAMES, Placement
from yolact_runtime.masks.masks import Masks
from yolact_runtime.option_numbers import check_between, keep_numbers, shown_number

__all__ = ["CLASS_NAMES", "MAX_SIDE_PX", "MIN_SIDE_PX", "Scene", "SceneOptions", "make_clip", "make_scene"]

Single = npt.NDArray[np.float32]

MIN_SIDE_PX, MAX_SIDE_PX = 64, 4096
"""Bounds of a scene's width and height in pixels."""
_MAX_SHAPES = 64
_NOBODY = -1
_LAYOUT_STREAM, _NOISE_STREAM, _MOTION_STREAM = range(3)


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """Options of a scene. Shapes and patterns grow with the frame's shorter side.

    Attributes:
        height: Number of rows of the frame, 64 to 4096.
        width: Number of columns of the frame, 64 to 4096.
        max_shapes: Maximum number of shapes, 1 to 64; a scene has at least one, and fewer if the frame is full.

    Raises:
        UsageError: An option is out of range; the message names it.
    """

    height: int = 256
    width: int = 256
    max_shapes: int = 8

    def __post_init__(self) -> None:
        keep_numbers(self, whole=("height", "width", "max_shapes"))
        for name in ("height", "width"):
            check_between(name, getattr(self, name), MIN_SIDE_PX, MAX_SIDE_PX)
        if not 1 <= self.max_shapes <= _MAX_SHAPES:
            raise UsageError(f"max_shapes must be 1 to {_MAX_SHAPES}, found {shown_number(self.max_shapes)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Image with its truth. The caller owns every array.

    Attributes:
        image: ``(H, W, 3)`` uint8 BGR pixels.
        class_id: ``(n,)`` int64 indices into :data:`CLASS_NAMES`.
        mask: Masks of the ``n`` shapes' visible pixels: those whose centre is inside the shape's outline and inside no
            outline of a shape above. They are disjoint.
        xyxy: ``(n, 4)`` float32 boxes, tight around the visible pixels, right and bottom exclusive, in pixels of the
            frame.
        shape_id: ``(n,)`` int64 numbers, increasing from the lowest shape to the highest; in a clip, a shape keeps its
            number.
    """

    image: npt.NDArray[np.uint8]
    class_id: npt.NDArray[np.int64]
    mask: Masks
    xyxy: npt.NDArray[np.float32]
    shape_id: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)


def make_scene(seed: int, options: SceneOptions = SceneOptions()) -> Scene:
    """Create the scene of a seed, which is always the same.

    At least 35 % of every shape and 60 of its pixels are visible, and every shape has its truth.

    Args:
        seed: Seed of the scene, 0 or more.
        options: Size and number of shapes.

    Raises:
        UsageError: The seed is negative.
    """
    layout = draw_layout(_stream(seed, _LAYOUT_STREAM), options.height, options.width, options.max_shapes)
    background = paint_background(layout, options.height, options.width)
    return _photograph(layout, layout.shapes, background, _stream(seed, _NOISE_STREAM, 0))


def make_clip(seed: int, num_frames: int, options: SceneOptions = SceneOptions()) -> Iterator[Scene]:
    """Create a clip of drifting and rotating shapes. The first frame is :func:`make_scene` of the same seed.

    Shapes pass over each other and leave the frame; a frame has the truth of every shape with a visible pixel.

    Args:
        seed: Seed of the clip, 0 or more.
        num_frames: Number of frames, 1 or more.
        options: Size and number of shapes.

    Raises:
        UsageError: The seed is negative, or `num_frames` is below 1. Raised at the call, not at the first frame.
    """
    if num_frames < 1:
        raise UsageError(f"a clip must have 1 frame or more, found {num_frames}")
    layout = draw_layout(_stream(seed, _LAYOUT_STREAM), options.height, options.width, options.max_shapes)
    return _film(seed, num_frames, layout, options)


def _film(seed: int, num_frames: int, layout: Layout, options: SceneOptions) -> Iterator[Scene]:
    rng = _stream(seed, _MOTION_STREAM)
    motions = [_draw_motion(rng, shape.placement, options) for shape in layout.shapes]
    background = paint_background(layout, options.height, options.width)
    for frame in range(num_frames):
        shapes = [motion.moved(shape, frame) for motion, shape in zip(motions, layout.shapes, strict=True)]
        yield _photograph(layout, shapes, background, _stream(seed, _NOISE_STREAM, frame))


def _stream(seed: int, *key: int) -> np.random.Generator:
    """Create an independent generator for each purpose, so that a change in one does not affect others."""
    if seed < 0:
        raise UsageError(f"a seed must be 0 or more, found {seed}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclasses.dataclass(frozen=True)
class _Motion:
    """Oscillation around the position in the first frame, with a steady rotation.

    Attributes:
        swing_px: Amplitudes of the centre along x and y in pixels.
        speed: Angular frequencies of the oscillations in radians per frame.
        phase: Phases of the oscillations in the first frame, in radians.
        spin: Rotation in radians per frame.
    """

    swing_px: tuple[float, float]
    speed: tuple[float, float]
    phase: tuple[float, float]
    spin: float

    def moved(self, shape: Shape, frame: int) -> Shape:
        """Return the shape `frame` frames after the first."""
        dx, dy = (
            swing * (math.sin(speed * frame + phase) - math.sin(phase))
            for swing, speed, phase in zip(self.swing_px, self.speed, self.phase, strict=True)
        )
        place = shape.placement
        moved = dataclasses.replace(place, x=place.x + dx, y=place.y + dy, angle=place.angle + self.spin * frame)
        return dataclasses.replace(shape, placement=moved)


def _draw_motion(rng: np.random.Generator, place: Placement, options: SceneOptions) -> _Motion:
    swing = rng.uniform(0.08, 0.25, 2) * (options.width, options.height)
    speed = 2 * math.pi / rng.uniform(80, 240, 2)
    # The shape starts on the outer half of its oscillation, so that it moves towards the middle of the frame.
    phase = rng.uniform(0, math.pi, 2)
    return _Motion(
        swing_px=(float(swing[0]), float(swing[1])),
        speed=(float(speed[0]), float(speed[1])),
        phase=(
            math.copysign(phase[0], place.x - options.width / 2),
            math.copysign(phase[1], place.y - options.height / 2),
        ),
        spin=float(rng.uniform(-0.04, 0.04)),
    )


def _photograph(layout: Layout, shapes: Sequence[Shape], background: Single, rng: np.random.Generator) -> Scene:
    """Paint shapes over the background, note which is on top at every pixel, and expose the sensor."""
    canvas = background.copy()
    top = np.full(canvas.shape[1:], _NOBODY, np.int64)
    for shape_id, shape in enumerate(shapes):
        paint_shape(canvas, shape, top, shape_id)
    shape_id_on_top, mask = _masks_on_top(top)
    return Scene(
        image=expose(canvas, layout.sensor, rng),
        class_id=np.array([shapes[i].placement.class_id for i in shape_id_on_top], np.int64),
        mask=mask,
        xyxy=mask.bounds().astype(np.float32),
        shape_id=shape_id_on_top,
    )


def _masks_on_top(top: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Masks]:
    """Return the increasing numbers in a map ``(H, W)`` of topmost shapes, and the mask of each."""
    height, width = top.shape
    column_major = top.T.ravel()
    start = np.concatenate([[0], np.flatnonzero(np.diff(column_major)) + 1])
    end = np.append(start[1:], column_major.size)
    owner = column_major[start]
    order = np.argsort(owner, kind="stable")
    order = order[owner[order] != _NOBODY]
    visible, index = np.unique(owner[order], return_inverse=True)
    return visible, Masks.from_runs(index, start[order], end[order], len(visible), height, width)
