"""Augmentation as in SSD, with masks that stay exact.

All geometry (expand, crop, mirror, resize) is one axis-parallel window of the source image, so pixels are interpolated
once and masks are sampled once. Source: the SSD paper, section 2.2, which the published training of YOLACT follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from yolact_calibration.errors import UsageError
from yolact_runtime.model.manifest import InputSpec
from yolact_runtime.option_numbers import keep_numbers

__all__ = ["AugmentOptions", "Window", "choose_window", "distort_colours", "normalise", "sample_image", "sample_masks"]

Float = npt.NDArray[np.float32]
_CROP_TRIALS = 50
# The image would be tiny beyond this ratio.
_MAX_EXPAND = 16
# Minimum IoU of the crop with at least one object; None keeps the whole image, 0 accepts any crop.
_CROP_MODES = (None, 0.1, 0.3, 0.7, 0.9, 0.0)
_LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)
# BGR -> luma and two chroma axes (YIQ), in which a hue change is a rotation.
_TO_YIQ = np.array([[0.114, 0.587, 0.299], [-0.3213, -0.2744, 0.5959], [0.3114, -0.5227, 0.2115]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ.astype(np.float64)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """Strength of the augmentation; the defaults are SSD's.

    Attributes:
        colour: If True, change brightness, contrast, saturation and hue.
        expand: Largest ratio of the canvas that an image is placed in, between 1 (off) and 16.
        crop: If True, take random parts of the image.
        mirror: If True, flip half of the images left to right.

    Raises:
        UsageError: A field has the wrong type, or is out of range; the message names it.
    """

    colour: bool = True
    expand: float = 4.0
    crop: bool = True
    mirror: bool = True

    def __post_init__(self) -> None:
        keep_numbers(self, real=("expand",))
        if not 1 <= self.expand <= _MAX_EXPAND:
            raise UsageError(f"expand must be 1 (off) to {_MAX_EXPAND}, found {self.expand}")

    @classmethod
    def none(cls) -> AugmentOptions:
        """Return options that only stretch images to the input."""
        return cls(colour=False, expand=1.0, crop=False, mirror=False)


@dataclasses.dataclass(frozen=True)
class Window:
    """Part of the source image that becomes the network input; it may extend beyond the image.

    Attributes:
        left: Left edge in pixels of the source.
        top: Upper edge in pixels of the source.
        width: Width in pixels of the source, above 0.
        height: Height in pixels of the source, above 0.
        mirrored: Whether left and right are swapped in the input.
        is_crop: Whether it is a random crop, so that objects whose centre lies outside are left out on purpose.
    """

    left: float
    top: float
    width: float
    height: float
    mirrored: bool = False
    is_crop: bool = False


def choose_window(height: int, width: int, xyxy: Float, options: AugmentOptions, rng: np.random.Generator) -> Window:
    """Choose a random window of an image of `height` x `width` pixels.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        xyxy: ``(n, 4)`` float32 boxes of the objects, in pixels.
        options: Augmentations that are allowed.
        rng: Random number generator.
    """
    left, top, canvas_width, canvas_height = 0.0, 0.0, float(width), float(height)
    if options.expand > 1 and rng.random() < 0.5:
        ratio = rng.uniform(1.0, options.expand)
        canvas_width, canvas_height = width * ratio, height * ratio
        left, top = -rng.uniform(0, canvas_width - width), -rng.uniform(0, canvas_height - height)
    window = Window(left, top, canvas_width, canvas_height)
    if options.crop and len(xyxy):
        window = _crop(window, xyxy, rng)
    return dataclasses.replace(window, mirrored=options.mirror and bool(rng.random() < 0.5))


def _crop(window: Window, xyxy: Float, rng: np.random.Generator) -> Window:
    """Return a random part of the window that overlaps an object enough and has an object's centre, else all of it."""
    least = _CROP_MODES[int(rng.integers(len(_CROP_MODES)))]
    if least is None:
        return window
    # A few boxes, fifty times: Python numbers are faster than arrays here.
    boxes: list[list[float]] = xyxy.tolist()
    for _ in range(_CROP_TRIALS):
        width, height = window.width * rng.uniform(0.3, 1.0), window.height * rng.uniform(0.3, 1.0)
        if not 0.5 <= height / width <= 2.0:
            continue
        left = window.left + rng.uniform(0, window.width - width)
        top = window.top + rng.uniform(0, window.height - height)
        crop = (left, top, left + width, top + height)
        if any(_holds_centre(crop, box) for box in boxes) and any(_overlap(crop, box) >= least for box in boxes):
            return Window(left, top, width, height, is_crop=True)
    return window


def _holds_centre(crop: Sequence[float], box: Sequence[float]) -> bool:
    return crop[0] < (box[0] + box[2]) / 2 < crop[2] and crop[1] < (box[1] + box[3]) / 2 < crop[3]


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the IoU of two xyxy boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / max(union, 1e-9)


def _positions(start: float, length: float, size: int, flipped: bool) -> npt.NDArray[np.float64]:
    """Return source coordinates of `size` input pixels' centres; pixel ``i`` of the source covers ``[i, i + 1)``."""
    position: npt.NDArray[np.float64] = start + (np.arange(size, dtype=np.float64) + 0.5) * (length / size)
    return position[::-1] if flipped else position


def sample_image(
    image: npt.NDArray[np.uint8], window: Window, height: int, width: int
) -> tuple[Float, npt.NDArray[np.bool_]]:
    """Resample a window to the size of the input: bilinear with half-pixel centres, as at run time.

    Args:
        image: ``(H, W, 3)`` uint8 pixels.
        window: Window of the image to resample.
        height: Number of rows of the input.
        width: Number of columns of the input.

    Returns:
        ``(height, width, 3)`` float32 pixels in 0..255, a view of planes; and a ``(height, width)`` bool mask of the
        pixels inside the image. The others are 0, and are to be filled by the caller.
    """
    rows = _taps(_positions(window.top, window.height, height, False), image.shape[0])
    columns = _taps(_positions(window.left, window.width, width, window.mirrored), image.shape[1])
    planes = np.zeros((3, height, width), np.float32)
    planes[:, rows.inside, columns.inside] = _interpolate(image, rows, columns)
    inside = np.zeros((height, width), bool)
    inside[rows.inside, columns.inside] = True
    return planes.transpose(1, 2, 0), inside


@dataclasses.dataclass(frozen=True, eq=False)
class _Taps:
    """Interpolation along one axis, for the input pixels whose centres lie in the image.

    Attributes:
        inside: Input pixels inside the image, which are contiguous.
        low: ``(n,)`` int64 index of the first source pixel of each.
        high: ``(n,)`` int64 index of the second, which is the next pixel, or the same one at the edge.
        fraction: ``(n,)`` float32 weight of the second.
    """

    inside: slice
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]
    fraction: Float


def _taps(position: npt.NDArray[np.float64], size: int) -> _Taps:
    span = _span((position >= 0) & (position < size))
    centred = np.clip(position[span] - 0.5, 0, size - 1)
    low = np.minimum(centred.astype(np.int64), max(size - 2, 0))
    return _Taps(span, low, np.minimum(low + 1, size - 1), (centred - low).astype(np.float32))


def _span(inside: npt.NDArray[np.bool_]) -> slice:
    """Return the only run of True in `inside`, or an empty slice."""
    places = np.flatnonzero(inside)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _interpolate(image: npt.NDArray[np.uint8], rows: _Taps, columns: _Taps) -> Float:
    """Return ``(3, rows, columns)`` float32 pixels: rows are blended as they lie in memory, columns plane by plane."""
    first, last = (int(columns.low.min()), int(columns.high.max()) + 1) if len(columns.low) else (0, 0)
    # Only the columns that the window needs, and still uint8, so that less is gathered.
    source = np.ascontiguousarray(image[:, first:last]).reshape(len(image), -1)
    blended = _blend(
        source.take(rows.low, axis=0).astype(np.float32),
        source.take(rows.high, axis=0).astype(np.float32),
        rows.fraction[:, None],
    )
    channel = np.arange(3)[:, None]
    # Positions in a row of interleaved pixels, plane after plane: the gather also separates the channels.
    low, high = ((3 * (column - first) + channel).ravel() for column in (columns.low, columns.high))
    gathered = _blend(blended.take(low, axis=1), blended.take(high, axis=1), np.tile(columns.fraction, 3))
    return gathered.reshape(len(gathered), 3, len(columns.low)).transpose(1, 0, 2)


def _blend(low: Float, high: Float, fraction: Float) -> Float:
    """Compute ``low + (high - low) * fraction`` in place and return `low`."""
    high -= low
    high *= fraction
    low += high
    return low


def sample_masks(dense: npt.NDArray[np.bool_], window: Window, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Resample masks ``(n, H, W)`` in a window, by the source pixel that contains each input pixel's centre.

    Returns:
        ``(n, height, width)`` bool masks, False beyond the image.
    """
    rows = np.floor(_positions(window.top, window.height, height, False)).astype(np.int64)
    columns = np.floor(_positions(window.left, window.width, width, window.mirrored)).astype(np.int64)
    row_span = _span((rows >= 0) & (rows < dense.shape[1]))
    column_span = _span((columns >= 0) & (columns < dense.shape[2]))
    masks = np.zeros((len(dense), height, width), bool)
    masks[:, row_span, column_span] = dense.take(rows[row_span], axis=1).take(columns[column_span], axis=2)
    return masks


def distort_colours(image: Float, rng: np.random.Generator) -> Float:
    """Change brightness, contrast, saturation and hue, each in half of the images.

    Args:
        image: ``(H, W, 3)`` float32 BGR pixels in 0..255. Not modified.
        rng: Random number generator.

    Returns:
        A new ``(H, W, 3)`` float32 image, clipped to 0..255.
    """
    matrix, offset = np.eye(3, dtype=np.float32), np.float32(0)
    if rng.random() < 0.5:
        offset = np.float32(rng.uniform(-32, 32))
    contrast = np.float32(rng.uniform(0.5, 1.5)) if rng.random() < 0.5 else np.float32(1)
    if rng.random() < 0.5:
        saturation = np.float32(rng.uniform(0.5, 1.5))
        matrix = matrix * saturation + (1 - saturation) * _LUMA_BGR[None]
    if rng.random() < 0.5:
        matrix = _hue_rotation(float(rng.uniform(-18, 18))) @ matrix
    # Every step is linear, so one matrix covers all three channels; plane by plane, the layout of sample_image.
    planes: Float = (matrix * contrast).astype(np.float32) @ image.transpose(2, 0, 1).reshape(3, -1)
    planes += offset
    np.clip(planes, 0, 255, out=planes)
    return planes.reshape(3, *image.shape[:2]).transpose(1, 2, 0)


def _hue_rotation(degrees: float) -> Float:
    angle = np.deg2rad(degrees)
    rotation = np.eye(3, dtype=np.float32)
    rotation[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return (_FROM_YIQ @ rotation @ _TO_YIQ).astype(np.float32)


def normalise(image: Float, spec: InputSpec, filled: npt.NDArray[np.bool_] | None = None) -> Float:
    """Convert ``(H, W, 3)`` float32 BGR in 0..255 to the network's ``(3, H, W)``; unfilled pixels become the mean."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    # The mean, after the shift and the scale, is 0.
    unfilled = None if filled is None or filled.all() else ~filled
    for plane, channel in zip(planes, (2, 1, 0) if spec.channel_order == "RGB" else (0, 1, 2), strict=True):
        np.subtract(image[:, :, channel], np.float32(spec.mean_bgr[channel]), out=plane)
        plane *= np.float32(1 / spec.std_bgr[channel])
        if unfilled is not None:
            np.copyto(plane, 0, where=unfilled)
    return planes
