"""Segmentations of an annotation file: polygons or run lengths, checked piece by piece when they are read."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yolact_calibration.errors import MissingDependencyError, ShapeError
from yolact_calibration.labels.fields import MAX_COORDINATE_PX, FieldError, is_number, shown
from yolact_runtime.masks import rle
from yolact_runtime.masks.masks import Masks

__all__ = ["Segmentation", "draw", "read_segmentation"]

Segmentation = tuple["array[float]", ...] | str
"""Type of a segmentation: rings ``x, y, x, y, ..`` in pixels, drawn as in COCO; or the counts of compressed RLE."""

_LEAST_POINTS = 3
# The memory in which COCO's code draws an outline grows with its length: 20 bytes per pixel.
_LONGEST_OUTLINE_PX = 1 << 22
_PLAIN = frozenset({float, int})


def read_segmentation(value: Any, height: int, width: int) -> tuple[Segmentation | None, int]:
    """Check a segmentation completely, so that the result can be drawn.

    Args:
        value: Value in the file.
        height: Number of rows of the image.
        width: Number of columns of the image.

    Returns:
        The segmentation, or None if there is none: null, an empty list, a list of empty lists. And the number of stray
        pieces that were left out: rings that are not outlines, because they have fewer than three different points
        or half a point. They cover no pixel. If there is nothing better, rings whose points coincide stay, because
        COCO itself has some; a segmentation of nothing but single points and pairs is an empty tuple.

    Raises:
        FieldError: The value is neither polygons nor run lengths of the image's size, or cannot be drawn.
    """
    if value is None:
        return None, 0
    if isinstance(value, dict):
        return _read_run_lengths(value, height, width), 0
    if not isinstance(value, list | tuple) or not all(isinstance(ring, list | tuple) for ring in value):
        raise FieldError(
            f"segmentation is {shown(value)}; it must be a list of polygons [x, y, x, y, ..] of 3 points or more, or "
            f"run lengths (RLE)"
        )
    rings = [ring for ring in value if ring]
    if not rings:
        return None, 0
    checked = [array("d", _checked(ring)) for ring in rings]
    outlines = tuple(filter(_is_outline, checked)) or tuple(filter(_has_points, checked))
    return outlines, len(rings) - len(outlines)


def _checked(ring: Sequence[Any]) -> Sequence[float]:
    """Return a ring whose numbers are finite and not too far away, or raise an error."""
    if _PLAIN.issuperset(map(type, ring)):
        try:
            # No coordinate exceeds the length of the vector of all of them, and comparisons with NaN are false.
            reach = math.hypot(*ring)
        except OverflowError:
            reach = math.inf
        if reach <= MAX_COORDINATE_PX and 2 * reach * len(ring) <= _LONGEST_OUTLINE_PX:
            return ring
    for number, value in enumerate(ring):
        if not is_number(value) or not -MAX_COORDINATE_PX <= value <= MAX_COORDINATE_PX:
            raise FieldError(
                f"segmentation has the coordinate {shown(value)} at index {number} of a polygon; coordinates must be "
                f"numbers of pixels"
            )
    points = np.array(ring[: len(ring) // 2 * 2], np.float64).reshape(-1, 2)
    length = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1, initial=0).sum()
    if length > _LONGEST_OUTLINE_PX:
        raise FieldError(f"segmentation has an outline of {length:.3g} pixels, more than {_LONGEST_OUTLINE_PX}")
    return ring


def _has_points(ring: array[float]) -> bool:
    return len(ring) % 2 == 0 and len(ring) >= 2 * _LEAST_POINTS


def _is_outline(ring: array[float]) -> bool:
    """Return whether a ring has at least three different points."""
    if not _has_points(ring):
        return False
    first, second, third = (ring[0], ring[1]), (ring[2], ring[3]), (ring[4], ring[5])
    if first != second != third != first:
        return True
    return len(set(zip(ring[::2], ring[1::2], strict=True))) >= _LEAST_POINTS


def _read_run_lengths(value: Mapping[str, Any], height: int, width: int) -> str:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list | tuple) or not all(map(is_number, size)) or list(size) != [height, width]:
        raise FieldError(
            f"segmentation is a mask of size {shown(size)} in an image of [{height}, {width}] (height, width)"
        )
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if isinstance(counts, str):
        try:
            rle.decode_edges(counts, height * width)
        except ShapeError as error:
            raise FieldError(f"segmentation: {error}") from error
        return counts
    if not isinstance(counts, list | tuple):
        raise FieldError(f"segmentation has the counts {shown(counts)}; run lengths must be text or a list of numbers")
    return _compressed(counts, height, width)


def _compressed(counts: Sequence[Any], height: int, width: int) -> str:
    """Convert numeric run lengths to COCO's text, which takes a tenth of the memory."""
    size = height * width
    for count in counts:
        if not is_number(count) or not 0 <= count <= size or count != math.floor(count):
            raise FieldError(
                f"segmentation has the run length {shown(count)}; they must be whole numbers from 0 to {size}"
            )
    edges = np.cumsum(np.array(counts, np.int64))
    if not len(edges) or int(edges[-1]) != size or len(edges) > size + 2:
        raise FieldError(f"segmentation has run lengths of {sum(map(int, counts))} pixels, but the image has {size}")
    edges = edges[: len(edges) // 2 * 2]
    start, end = edges[::2], edges[1::2]
    mask = Masks.from_runs(np.zeros(len(start), np.int64), start, end, 1, height, width)
    return str(mask.rle()[0]["counts"])


def draw(segmentations: Sequence[Segmentation], height: int, width: int) -> Masks:
    """Draw the masks of segmentations in one image, as COCO's own code does.

    Args:
        segmentations: Results of :func:`read_segmentation`.
        height: Number of rows of the image.
        width: Number of columns of the image.

    Raises:
        MissingDependencyError: There are polygons, and faster-coco-eval is not installed.
    """
    if not segmentations:
        return Masks.empty(0, height, width)
    size = [height, width]
    counts = [item if isinstance(item, str) else _drawn(item, height, width) for item in segmentations]
    return Masks.from_rle([{"size": size, "counts": text} for text in counts])


def _drawn(rings: tuple[array[float], ...], height: int, width: int) -> str | bytes:
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise MissingDependencyError("faster-coco-eval", "Reading COCO polygons", "eval") from error
    merged: str | bytes = mask.merge(mask.frPyObjects([ring.tolist() for ring in rings], height, width))["counts"]
    return merged
