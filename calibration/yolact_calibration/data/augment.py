"""Augmentation: what SSD does to an image, with masks that stay exact.

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
# An image is a speck beyond.
_MAX_EXPAND = 16
# Least IoU of the crop with at least one object; None leaves the image whole, 0 accepts any crop.
_CROP_MODES = (None, 0.1, 0.3, 0.7, 0.9, 0.0)
_LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)
# BGR -> luma and two chroma axes (YIQ), in which a hue change is a rotation.
_TO_YIQ = np.array([[0.114, 0.587, 0.299], [-0.3213, -0.2744, 0.5959], [0.3114, -0.5227, 0.2115]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ.astype(np.float64)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """How strongly images are changed. The defaults are SSD's.

    Attributes:
        colour: Change brightness, contrast, saturation and hue.
        expand: Largest ratio of the canvas that an image is shrunk into; 1 does not shrink.
        crop: Take random parts of the image.
        mirror: Flip half of the images left to right.

    Raises:
        UsageError: A field is no number of its kind, or out of its range; the message names it.
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
        """Images as they are, stretched to the input."""
        return cls(colour=False, expand=1.0, crop=False, mirror=False)


@dataclasses.dataclass(frozen=True)
class Window:
    """The part of the source that becomes the network input; it may reach beyond the image.

    Attributes:
        left: Pixels of the source.
        top: Pixels of the source.
        width: Pixels of the source, above 0.
        height: Pixels of the source, above 0.
        mirrored: Left and right are swapped in the input.
        is_crop: Objects whose centre lies outside were left out on purpose.
    """

    left: float
    top: float
    width: float
    height: float
    mirrored: bool = False
    is_crop: bool = False


def choose_window(height: int, width: int, xyxy: Float, options: AugmentOptions, rng: np.random.Generator) -> Window:
    """A random window of an image of `height` x `width` with objects ``xyxy (n, 4)``, pixels."""
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
    """A part of the window that overlaps an object enough and has an object's centre inside; else the whole window."""
    least = _CROP_MODES[int(rng.integers(len(_CROP_MODES)))]
    if least is None:
        return window
    # A handful of boxes, fifty times: numbers are faster than arrays.
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
    """IoU of two boxes, xyxy."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / max(union, 1e-9)


def _positions(start: float, length: float, size: int, flipped: bool) -> npt.NDArray[np.float64]:
    """Source coordinates of the centres of `size` input pixels; pixel ``i`` of the source covers ``[i, i + 1)``."""
    position: npt.NDArray[np.float64] = start + (np.arange(size, dtype=np.float64) + 0.5) * (length / size)
    return position[::-1] if flipped else position


def sample_image(
    image: npt.NDArray[np.uint8], window: Window, height: int, width: int
) -> tuple[Float, npt.NDArray[np.bool_]]:
    """The window at the size of the input: bilinear with half-pixel centres, as at run time.

    Args:
        image: ``(H, W, 3)`` uint8.
        window: What to take.
        height: Rows of the input.
        width: Columns of the input.

    Returns:
        ``(height, width, 3)`` float32 on the 0..255 scale, a view of planes; and ``(height, width)`` bool: which pixels
        lie in the image. The others are 0 and are to be filled.
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
        inside: Which they are; they are neighbours.
        low: The first source pixel of each.
        high: The second; the one after it, or the same at the edge.
        fraction: Weight of the second, float32.
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
    """The one stretch of True in `inside`, or an empty one."""
    places = np.flatnonzero(inside)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _interpolate(image: npt.NDArray[np.uint8], rows: _Taps, columns: _Taps) -> Float:
    """``(3, rows, columns)`` float32: rows are blended as they lie in memory, columns plane by plane."""
    first, last = (int(columns.low.min()), int(columns.high.max()) + 1) if len(columns.low) else (0, 0)
    # Only what the window needs, as uint8 still: the smaller gather.
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
    """``low + (high - low) * fraction`` in place: returns `low`."""
    high -= low
    high *= fraction
    low += high
    return low


def sample_masks(dense: npt.NDArray[np.bool_], window: Window, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Masks ``(n, H, W)`` under the same window: the source pixel that each input pixel's centre lies in.

    Returns:
        ``(n, height, width)`` bool; nothing is inside beyond the image.
    """
    rows = np.floor(_positions(window.top, window.height, height, False)).astype(np.int64)
    columns = np.floor(_positions(window.left, window.width, width, window.mirrored)).astype(np.int64)
    row_span = _span((rows >= 0) & (rows < dense.shape[1]))
    column_span = _span((columns >= 0) & (columns < dense.shape[2]))
    masks = np.zeros((len(dense), height, width), bool)
    masks[:, row_span, column_span] = dense.take(rows[row_span], axis=1).take(columns[column_span], axis=2)
    return masks


def distort_colours(image: Float, rng: np.random.Generator) -> Float:
    """Brightness, contrast, saturation and hue, each changed in half of the images.

    Args:
        image: ``(H, W, 3)`` float32, blue first, 0..255. Not modified.
        rng: Source of chance.

    Returns:
        A new image, clipped to 0..255.
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
    # Every step is linear, so the three channels pass one matrix; plane by plane, as sample_image lays them.
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
    """``(H, W, 3)`` float32, blue first, 0..255, as the network's ``(3, H, W)``; unfilled pixels become the mean."""
    planes = np.empty((3, *image.shape[:2]), np.float32)
    # The mean, after the shift and the scale, is 0.
    unfilled = None if filled is None or filled.all() else ~filled
    for plane, channel in zip(planes, (2, 1, 0) if spec.channel_order == "RGB" else (0, 1, 2), strict=True):
        np.subtract(image[:, :, channel], np.float32(spec.mean_bgr[channel]), out=plane)
        plane *= np.float32(1 / spec.std_bgr[channel])
        if unfilled is not None:
            np.copyto(plane, 0, where=unfilled)
    return planes
