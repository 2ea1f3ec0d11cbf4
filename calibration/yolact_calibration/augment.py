"""Augmentation: what SSD does to an image, with masks that stay exact.

All geometry (expand, crop, mirror, resize) is one axis-parallel window of the source image, so pixels are interpolated
once and masks are sampled once. Source: the SSD paper, section 2.2, which the published training of YOLACT follows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from yolact_runtime.manifest import InputSpec

__all__ = ["AugmentOptions", "Window", "choose_window", "distort_colours", "normalise", "sample_image", "sample_masks"]

Float = npt.NDArray[np.float32]
_CROP_TRIALS = 50
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
    """

    colour: bool = True
    expand: float = 4.0
    crop: bool = True
    mirror: bool = True

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
    centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    for _ in range(_CROP_TRIALS):
        width, height = window.width * rng.uniform(0.3, 1.0), window.height * rng.uniform(0.3, 1.0)
        if not 0.5 <= height / width <= 2.0:
            continue
        left = window.left + rng.uniform(0, window.width - width)
        top = window.top + rng.uniform(0, window.height - height)
        box = np.array([left, top, left + width, top + height])
        inside = ((centre > box[:2]) & (centre < box[2:])).all(axis=1)
        if inside.any() and _overlaps(xyxy, box).max() >= least:
            return Window(left, top, width, height, is_crop=True)
    return window


def _overlaps(xyxy: Float, box: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shared = np.prod(np.clip(np.minimum(xyxy[:, 2:], box[2:]) - np.maximum(xyxy[:, :2], box[:2]), 0, None), axis=1)
    areas = np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    overlaps: npt.NDArray[np.float64] = shared / np.maximum(areas - shared, 1e-9)
    return overlaps


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
        ``(height, width, 3)`` float32 on the 0..255 scale, and ``(height, width)`` bool: which pixels lie in the image;
        the others repeat its edge and are to be filled.
    """
    rows, row_fraction, row_inside = _taps(_positions(window.top, window.height, height, False), image.shape[0])
    columns, column_fraction, column_inside = _taps(
        _positions(window.left, window.width, width, window.mirrored), image.shape[1]
    )
    # Whole rows of uint8 first: the smaller gather.
    low, high = image[rows[0]].astype(np.float32), image[rows[1]].astype(np.float32)
    blended = low + (high - low) * row_fraction[:, None, None]
    left, right = blended[:, columns[0]], blended[:, columns[1]]
    return left + (right - left) * column_fraction[None, :, None], row_inside[:, None] & column_inside[None]


def _taps(position: npt.NDArray[np.float64], size: int) -> tuple[npt.NDArray[np.int64], Float, npt.NDArray[np.bool_]]:
    """Two source pixels for each position, the weight of the second, and whether the position lies in the image."""
    inside = (position >= 0) & (position < size)
    centred = np.clip(position - 0.5, 0, size - 1)
    low = np.minimum(centred.astype(np.int64), max(size - 2, 0))
    return np.stack([low, np.minimum(low + 1, size - 1)]), (centred - low).astype(np.float32), inside


def sample_masks(dense: npt.NDArray[np.bool_], window: Window, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Masks ``(n, H, W)`` under the same window: the source pixel that each input pixel's centre lies in.

    Returns:
        ``(n, height, width)`` bool; nothing is inside beyond the image.
    """
    rows = np.floor(_positions(window.top, window.height, height, False)).astype(np.int64)
    columns = np.floor(_positions(window.left, window.width, width, window.mirrored)).astype(np.int64)
    row_inside = (rows >= 0) & (rows < dense.shape[1])
    column_inside = (columns >= 0) & (columns < dense.shape[2])
    taken = dense[:, np.clip(rows, 0, dense.shape[1] - 1)][:, :, np.clip(columns, 0, dense.shape[2] - 1)]
    masks: npt.NDArray[np.bool_] = taken & (row_inside[:, None] & column_inside[None])
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
    # Every step is linear, so the three channels pass one matrix.
    changed = (image @ (matrix.T * contrast)) + offset
    result: Float = np.clip(changed, 0, 255).astype(np.float32, copy=False)
    return result


def _hue_rotation(degrees: float) -> Float:
    angle = np.deg2rad(degrees)
    rotation = np.eye(3, dtype=np.float32)
    rotation[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix: Float = _FROM_YIQ @ rotation @ _TO_YIQ
    return matrix


def normalise(image: Float, spec: InputSpec, filled: npt.NDArray[np.bool_] | None = None) -> Float:
    """``(H, W, 3)`` float32, blue first, 0..255, as the network's ``(3, H, W)``; unfilled pixels become the mean."""
    planes = (image - np.array(spec.mean_bgr, np.float32)) / np.array(spec.std_bgr, np.float32)
    if filled is not None and not filled.all():
        planes[~filled] = 0.0
    if spec.channel_order == "RGB":
        planes = planes[:, :, ::-1]
    return np.ascontiguousarray(planes.transpose(2, 0, 1), dtype=np.float32)
