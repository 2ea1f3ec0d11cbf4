"""Doubts about annotations that are valid individually, with counts."""

from __future__ import annotations

import dataclasses
import operator
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_calibration.labels.coco import CocoAnnotations, CocoImage, CocoInstance, boxes_xyxy
from yolact_calibration.labels.fields import listed
from yolact_calibration.labels.segmentation import draw
from yolact_plugins.files import counted

__all__ = ["Doubts", "find_doubts"]

Float = npt.NDArray[np.float64]
# Hand-drawn boxes overlap hand-drawn outlines by more than this.
_LEAST_BOX_OVERLAP = 0.5
# Boxes may extend slightly over the border if an object does.
_LEAST_INSIDE, _MOST_OVER_PX = 0.75, 2.0
# The area that an outline covers differs from the area that its points enclose if it has only a few pixels.
_SMALL_PX = 8.0


@dataclasses.dataclass
class Doubts:
    """Findings about annotations, collected image by image.

    Attributes:
        num_instances: Number of annotations, without crowds.
        num_crowds: Number of crowds.
        num_drawn: Number of annotations whose outline covers a pixel.
    """

    num_instances: int = 0
    num_crowds: int = 0
    num_drawn: int = 0
    _without_pixels: list[str] = dataclasses.field(default_factory=list)
    _tiny_box: list[str] = dataclasses.field(default_factory=list)
    _outer_box: list[str] = dataclasses.field(default_factory=list)
    _other_box: list[str] = dataclasses.field(default_factory=list)
    _repeated: list[str] = dataclasses.field(default_factory=list)

    def look_at(
        self, image: CocoImage, entries: Sequence[CocoInstance], bounds: npt.NDArray[Any], drawn: Sequence[bool]
    ) -> None:
        """Compare the annotations of an image with each other, with the image, and with their outlines.

        Args:
            image: Image of the annotations.
            entries: Annotations of the image, ``n`` of them.
            bounds: ``(n, 4)`` xyxy bounds of the outlines, in pixels inside of the image.
            drawn: Whether each outline covers a pixel.
        """
        if not entries:
            return
        boxes = boxes_xyxy(entries).astype(np.float64)
        frame = np.array([0.0, 0.0, image.width, image.height])
        inside = np.clip(boxes, np.zeros(4), frame[[2, 3, 2, 3]])
        is_tiny: npt.NDArray[np.bool_] = np.logical_and((boxes[:, 2:] <= 1).all(axis=1), min(frame[2:]) > 2)
        over = np.abs(boxes - inside).max(axis=1)
        is_outer = (over > _MOST_OVER_PX) & (_areas(inside) < _LEAST_INSIDE * _areas(boxes))
        overlap = _overlaps(boxes, bounds.astype(np.float64))
        rows = zip(entries, is_tiny.tolist(), is_outer.tolist(), overlap.tolist(), drawn, strict=True)
        for entry, tiny, outer, shared, has_pixels in rows:
            self.num_crowds += entry.is_crowd
            self.num_instances += not entry.is_crowd
            has_outline = entry.segmentation is not None
            self.num_drawn += has_outline and has_pixels
            name = f"{entry.annotation_id} in {image.file_name}"
            if has_outline and not has_pixels:
                self._without_pixels.append(name)
            if tiny:
                self._tiny_box.append(name)
            elif outer:
                self._outer_box.append(name)
            elif has_outline and has_pixels and shared < _LEAST_BOX_OVERLAP:
                self._other_box.append(name)
        self._repeated += [f"{item.annotation_id} in {image.file_name}" for item in _repetitions(entries)]

    def findings(self) -> Iterator[str]:
        """Yield readable sentences about the doubts."""
        if not self.num_instances and not self.num_crowds:
            yield "these images have no annotations: nothing can be found, and every figure is undefined"
        elif not self.num_instances:
            yield (
                f"all annotations ({self.num_crowds}) are crowds (iscrowd is 1): nothing can be found, and every "
                f"figure is undefined"
            )
        for names, what in (
            (
                self._without_pixels,
                "an outline that covers no pixel of the image, so it teaches nothing and cannot be found",
            ),
            (
                self._tiny_box,
                "a box within the first pixel of the image, as if coordinates were fractions of its width and height; "
                "they must be pixels",
            ),
            (
                self._outer_box,
                "a box of which a quarter or more is outside of the image; bbox is left, top, width and height, in "
                "pixels",
            ),
            (
                self._other_box,
                "a box that is not around the outline (they overlap by less than half), so box AP and mask AP "
                "measure different things",
            ),
            (
                self._repeated,
                "the category, box and outline of another one in the same image; both count as objects, and only one "
                "of them can be found",
            ),
        ):
            if names:
                yield f"{counted(len(names), 'annotation')} with {what}: {listed(names)}"


def find_doubts(annotations: CocoAnnotations) -> Doubts:
    """Examine all annotations; only small outlines are drawn, which takes a tenth of the time.

    Raises:
        MissingDependencyError: There are polygons, and faster-coco-eval is not installed.
    """
    doubts = Doubts()
    for image in annotations.images:
        if entries := annotations.instances.get(image.image_id, ()):
            doubts.look_at(image, entries, *_outlines(image, entries))
    return doubts


def _outlines(image: CocoImage, entries: Sequence[CocoInstance]) -> tuple[Float, list[bool]]:
    """Return the bounds of outlines, and whether each covers a pixel."""
    bounds, drawn = np.zeros((len(entries), 4)), [True] * len(entries)
    for i, entry in enumerate(entries):
        if entry.segmentation is None:
            continue
        box = None if isinstance(entry.segmentation, str) else _plain_bounds(entry.segmentation, image)
        if box is None:
            mask = draw([entry.segmentation], image.height, image.width)
            box, drawn[i] = mask.bounds()[0], bool(mask.area()[0])
        bounds[i] = box
    return bounds, drawn


def _plain_bounds(rings: tuple[array[float], ...], image: CocoImage) -> tuple[float, float, float, float] | None:
    """Return the bounds of an outline inside of the image; None if it is too small or thin to know without drawing."""
    x, y = [ring[::2] for ring in rings], [ring[1::2] for ring in rings]
    left, right = max(min(map(min, x)), 0.0), min(max(map(max, x)), float(image.width))
    top, bottom = max(min(map(min, y)), 0.0), min(max(map(max, y)), float(image.height))
    if right - left < _SMALL_PX or bottom - top < _SMALL_PX:
        return None
    area = max(abs(_enclosed(*ring)) for ring in zip(x, y, strict=True))
    return (left, top, right, bottom) if area > _SMALL_PX else None


def _enclosed(x: array[float], y: array[float]) -> float:
    """Return the signed area of a polygon, whose sign depends on its orientation."""
    twice: float = sum(map(operator.mul, x, y[1:] + y[:1])) - sum(map(operator.mul, y, x[1:] + x[:1]))
    return twice / 2


def _repetitions(entries: Sequence[CocoInstance]) -> Iterator[CocoInstance]:
    """Yield instances that repeat an earlier one."""
    seen: dict[tuple[object, ...], list[CocoInstance]] = {}
    for item in entries:
        earlier = seen.setdefault((item.category_id, item.is_crowd, item.bbox), [])
        if any(other.segmentation == item.segmentation for other in earlier):
            yield item
        earlier.append(item)


def _areas(boxes: Float) -> Float:
    areas: Float = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _overlaps(first: Float, second: Float) -> Float:
    """Return ``(n,)`` IoU of boxes ``(n, 4)``, pair by pair; 0 for two without area."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    union = _areas(first) + _areas(second) - shared
    ratio: Float = np.divide(shared, union, out=np.zeros(len(first)), where=union > 0)
    return ratio
