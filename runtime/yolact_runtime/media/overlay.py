"""Pictures of results: masks, outlines, boxes and labels over a frame."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolact_runtime.masks.instances import Instances
from yolact_runtime.media.lettering import text_coverage

__all__ = ["draw_instances", "instance_colour"]

Frame = npt.NDArray[np.uint8]
_MASK_OPACITY = 0.45
# Successive hues lie this far apart on the colour wheel, which keeps any number of neighbours in a list distinct.
_GOLDEN_RATIO = 0.618034


def instance_colour(index: int) -> npt.NDArray[np.float32]:
    """``(3,)`` blue, green, red in 0..255; neighbouring indices differ strongly."""
    saturation, value = ((0.85, 1.0), (0.6, 1.0), (0.9, 0.8))[index // 8 % 3]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1.0, saturation, value)
    return np.array([blue, green, red], np.float32) * 255


def draw_instances(frame: Frame, instances: Instances, class_names: Sequence[str]) -> Frame:
    """Draw instances, the best on top.

    Args:
        frame: ``(H, W, 3)`` uint8, blue first; not modified.
        instances: Of this frame.
        class_names: Indexed by class id.

    Returns:
        A new image of the same size.
    """
    image = frame.copy()
    line = max(1, round(min(frame.shape[:2]) / 350))
    order = list(reversed(range(len(instances))))
    for i in order:
        _paint_mask(image, *instances.mask.window(i), instance_colour(i), line)
    # The limit is beyond any picture; a box without bounds would not fit into an integer.
    boxes = np.trunc(np.clip(instances.xyxy, -1e6, 1e6)).astype(np.int64)
    for i in order:
        _draw_frame(image, boxes[i], instance_colour(i), line)
    letter = int(np.clip(min(frame.shape[:2]) / 40, 8, 48))
    for i in order:
        name = class_names[instances.class_id[i]]
        _draw_label(image, f"{name} {instances.confidence[i]:.2f}", boxes[i], instance_colour(i), letter)
    return image


def _paint_mask(
    image: Frame, left: int, top: int, inside: npt.NDArray[np.bool_], colour: npt.NDArray[np.float32], line: int
) -> None:
    """Tint the pixels of a mask, and darken, then colour, its rim, so that it stands out from any background."""
    view = image[top : top + inside.shape[0], left : left + inside.shape[1]]
    tinted = view[inside].astype(np.float32) * (1 - _MASK_OPACITY) + colour * _MASK_OPACITY
    view[inside] = tinted.astype(np.uint8)
    core = _erode(inside, line)
    view[inside & ~core] = colour.astype(np.uint8)
    view[core & ~_erode(core, 1)] = (colour * 0.35).astype(np.uint8)


def _erode(mask: npt.NDArray[np.bool_], steps: int) -> npt.NDArray[np.bool_]:
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _draw_frame(image: Frame, box: npt.NDArray[np.int64], colour: npt.NDArray[np.float32], line: int) -> None:
    height, width = image.shape[:2]
    left, top, right, bottom = np.clip(box, 0, [width, height, width, height]).tolist()
    value = colour.astype(np.uint8)
    image[top : min(top + line, bottom), left:right] = value
    image[max(bottom - line, top) : bottom, left:right] = value
    image[top:bottom, left : min(left + line, right)] = value
    image[top:bottom, max(right - line, left) : right] = value


def _draw_label(
    image: Frame, text: str, box: npt.NDArray[np.int64], colour: npt.NDArray[np.float32], letter: int
) -> None:
    """A filled tag above the box, or inside its top edge where there is no room, with text that contrasts."""
    pad = max(2, letter // 4)
    coverage = np.pad(text_coverage(text, letter), pad)
    rows, columns = min(coverage.shape[0], image.shape[0]), min(coverage.shape[1], image.shape[1])
    left = int(np.clip(box[0], 0, image.shape[1] - columns))
    top = int(box[1]) - rows if box[1] >= rows else int(np.clip(box[1], 0, image.shape[0] - rows))
    top = min(top, image.shape[0] - rows)
    # Of black and white the one with the higher contrast (WCAG 2): never below 4.5.
    luminance = (colour / 255) ** 2.2 @ np.array([0.0722, 0.7152, 0.2126], np.float32)
    ink = 0.0 if luminance > 0.18 else 255.0
    alpha = coverage[:rows, :columns, None]
    image[top : top + rows, left : left + columns] = (colour * (1 - alpha) + np.float32(ink) * alpha).astype(np.uint8)
