"""Painting and exposure of a scene: background, shadows and shapes on a canvas, then light and sensor."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from yolact_calibration.shapes.layout import Distractor, Layout, Sensor, Shape
from yolact_calibration.shapes.outline import Window

__all__ = ["expose", "paint_background", "paint_shape"]

Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Owner = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]

_BLUR_REACH = 2


def paint_background(layout: Layout, height: int, width: int) -> Single:
    """Paint background and distractors: ``(3, height, width)`` float32 BGR, white is 1, without light or sensor."""
    canvas = np.empty((3, height, width), np.float32)
    ramp = layout.ramp[:, :, None, None]
    for strip in Window(0, 0, width, height).strips():
        x, y = strip.pixel_centres()
        across = (x / width - 0.5).astype(np.float32)
        down = (y / height - 0.5).astype(np.float32)
        canvas[(slice(None), *strip.slices)] = layout.background.paint(x, y) + (ramp[0] * across + ramp[1] * down)
    for distractor in layout.distractors:
        _paint_distractor(canvas, distractor)
    return canvas


def _paint_distractor(canvas: Single, distractor: Distractor) -> None:
    place = distractor.placement
    window = dataclasses.replace(place, radius_px=1.25 * place.radius_px).window()
    if distractor.kind == "band":
        window = Window(0, 0, canvas.shape[2], canvas.shape[1])
    for strip in window.clipped(*canvas.shape[1:]).strips():
        u, v = place.to_plane(*strip.pixel_centres())
        if distractor.kind == "band":
            coverage = np.clip(0.5 - (np.abs(v) - 0.25) * place.radius_px, 0, 1)
        elif distractor.kind == "haze":
            coverage = np.clip(1 - (u * u + v * v), 0, 1)
        else:
            coverage = np.clip(0.5 - _blob(u, v, distractor.wobble) * place.radius_px, 0, 1)
        colour = distractor.material.paint(u * place.radius_px, v * place.radius_px)
        _blend(canvas, strip, colour, distractor.opacity * coverage)


def _blob(u: Double, v: Double, wobble: tuple[float, float, float, float]) -> Double:
    """Return values that are negative inside a circle whose radius varies with two harmonics of the direction."""
    radius = np.sqrt(u * u + v * v)
    unit = (u + 1j * v) / np.maximum(radius, 1e-9)
    second = (unit * unit * complex(math.cos(wobble[1]), math.sin(wobble[1]))).real
    third = (unit * unit * unit * complex(math.cos(wobble[3]), math.sin(wobble[3]))).real
    blob: Double = radius - (0.8 + wobble[0] * second + wobble[2] * third)
    return blob


def paint_shape(canvas: Single, shape: Shape, top: Owner, number: int) -> None:
    """Paint a shape and its shadow on the canvas, and mark where it is on top.

    Args:
        canvas: ``(3, H, W)`` float32 BGR, modified in place.
        shape: Shape to paint, which may lie partly or wholly outside the frame.
        top: ``(H, W)`` int64 map; pixels whose centre is inside the outline become `number`.
        number: Number of the shape.
    """
    _cast_shadow(canvas, shape)
    place = shape.placement
    for strip in place.window().clipped(*top.shape).strips():
        x, y = strip.pixel_centres()
        level = place.level(x, y)
        u, v = place.to_plane(x, y)
        light = (1 + shape.shade[0] * u + shape.shade[1] * v).astype(np.float32)
        colour = shape.material.paint(u * place.radius_px, v * place.radius_px) * light
        # Half covered at the outline: the soft edge of the colours is centred where the mask ends.
        _blend(canvas, strip, colour, np.clip(0.5 - level, 0, 1))
        top[strip.slices][level < 0] = number


def _cast_shadow(canvas: Single, shape: Shape) -> None:
    dx, dy, softness, darkness = shape.shadow
    if darkness == 0:
        return
    place = dataclasses.replace(shape.placement, x=shape.placement.x + dx, y=shape.placement.y + dy)
    for strip in place.window(margin_px=softness).clipped(*canvas.shape[1:]).strips():
        coverage = np.clip(0.5 - place.level(*strip.pixel_centres()) / softness, 0, 1)
        canvas[(slice(None), *strip.slices)] *= (1 - darkness * coverage).astype(np.float32)


def _blend(canvas: Single, window: Window, colour: Single, coverage: Double) -> None:
    below = canvas[(slice(None), *window.slices)]
    below += (colour - below) * coverage.astype(np.float32)


def expose(canvas: Single, sensor: Sensor, rng: np.random.Generator) -> Image:
    """Apply light, blur and noise to a canvas ``(3, H, W)``; return ``(H, W, 3)`` uint8 BGR. Keeps the canvas."""
    _, height, width = canvas.shape
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(sensor.slope[0])
    down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.float32(sensor.slope[1])
    image = np.empty((height, width, 3), np.uint8)
    for strip in Window(0, 0, width, height).strips():
        rows = np.clip(np.arange(strip.top - _BLUR_REACH, strip.bottom + _BLUR_REACH), 0, height - 1)
        light = canvas[:, rows] * sensor.gain[:, None, None]
        light *= 1 + across + down[rows]
        light = _blurred(light, sensor.blur_px)
        light += rng.normal(0, sensor.noise, light.shape).astype(np.float32)
        light *= 255
        image[strip.slices] = np.rint(np.clip(light, 0, 255)).transpose(1, 2, 0)
    return image


def _blurred(light: Single, sigma_px: float) -> Single:
    """Apply a Gaussian of five taps. Input has two rows more at top and bottom than the result; sides are repeated."""
    height, width = light.shape[1] - 2 * _BLUR_REACH, light.shape[2]
    if sigma_px == 0:
        return light[:, _BLUR_REACH : _BLUR_REACH + height]
    taps = [math.exp(-0.5 * ((k - _BLUR_REACH) / sigma_px) ** 2) for k in range(2 * _BLUR_REACH + 1)]
    weights = np.array(taps, np.float32) / np.float32(sum(taps))
    down = sum(weight * light[:, k : k + height] for k, weight in enumerate(weights))
    padded = np.pad(down, ((0, 0), (0, 0), (_BLUR_REACH, _BLUR_REACH)), mode="edge")
    across: Single = sum(weight * padded[:, :, k : k + width] for k, weight in enumerate(weights))
    return across
