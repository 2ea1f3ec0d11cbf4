"""Preprocessing of frames for the network: stretch, normalise, planar channels, in one blocked pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.cpu.bit_depth import to_eight_bits
from yolact_runtime.cpu.geometry import LinearTaps, linear_taps
from yolact_runtime.errors import FrameError
from yolact_runtime.model.manifest import InputSpec

__all__ = ["as_bgr", "preprocess", "stretch"]

Float = npt.NDArray[np.float32]
# Rows per block: two float32 blocks of a 1920-pixel frame fit in a second-level cache.
_BLOCK_ROWS = 16


def as_bgr(
    frame: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], bit_depth: int | None = None
) -> npt.NDArray[np.uint8]:
    """Check a frame and convert it to three channels of eight bits.

    Args:
        frame: Array ``(H, W, 3)`` of uint8, blue first; ``(H, W)`` or ``(H, W, 1)`` grayscale; ``(H, W, 4)`` BGRA,
            whose alpha is ignored. Any strides. May be uint16 if `bit_depth` is given. Not modified.
        bit_depth: Number of significant bits of uint16 samples, 8 to 16; they are scaled by
            :func:`yolact_runtime.cpu.bit_depth.to_eight_bits`, like the samples of files.

    Returns:
        Array ``(H, W, 3)``; a view of `frame` if possible.

    Raises:
        FrameError: The frame is invalid, or has a value of more than `bit_depth` bits.
    """
    if not isinstance(frame, np.ndarray) or frame.dtype not in (np.uint8, np.uint16):
        found = f"{frame.dtype} array" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise FrameError(f"a frame is a uint8 array with values 0..255, found {found}; convert it first")
    if frame.dtype == np.uint16 and bit_depth is None:
        raise FrameError(
            "a frame of uint16 may have 10, 12 or 16 significant bits: say how many, such as with "
            "SegmenterOptions(bit_depth=12), or convert it to uint8"
        )
    if frame.ndim == 2:
        frame = frame[:, :, None]
    if frame.ndim != 3 or frame.shape[2] not in (1, 3, 4) or 0 in frame.shape:
        raise FrameError(f"a frame has the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), found {frame.shape}")
    colours: npt.NDArray[Any] = frame[:, :, :3]
    if colours.dtype == np.uint16 and bit_depth is not None:
        colours = to_eight_bits(colours, bit_depth)
    return np.broadcast_to(colours, (*colours.shape[:2], 3)) if colours.shape[2] == 1 else colours


def preprocess(frame: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], spec: InputSpec) -> Float:
    """Stretch a frame to the network input with half-pixel bilinear interpolation in float32, and normalise it.

    Args:
        frame: A frame as for :func:`as_bgr`. Not modified.
        spec: Size and normalisation of the network input, from the manifest.

    Returns:
        Network input ``(1, 3, height, width)`` float32, C-contiguous, owned by the caller.

    Raises:
        FrameError: The frame is not an image.
    """
    return stretch(as_bgr(frame, spec.bit_depth), spec)


def stretch(bgr: npt.NDArray[np.uint8] | Float, spec: InputSpec) -> Float:
    """Stretch and normalise a BGR image ``(H, W, 3)``, uint8 or float32 on the same scale, without checks."""
    bgr = bgr if bgr.flags.c_contiguous else bgr.copy()
    rows, columns = linear_taps(bgr.shape[0], spec.height), linear_taps(bgr.shape[1], spec.width)
    channels = (2, 1, 0) if spec.channel_order == "RGB" else (0, 1, 2)
    # Positions in a row of interleaved pixels, arranged plane by plane: gathering also separates the channels.
    low = np.concatenate([columns.low * 3 + channel for channel in channels])
    high = np.concatenate([columns.high * 3 + channel for channel in channels])
    fraction = np.tile(columns.fraction, 3)
    scale = np.repeat([np.float32(1 / spec.std_bgr[channel]) for channel in channels], spec.width)
    shift = np.repeat([np.float32(-spec.mean_bgr[c] / spec.std_bgr[c]) for c in channels], spec.width)
    image = np.empty((1, 3, spec.height, spec.width), np.float32)
    source = bgr.reshape(bgr.shape[0], -1)
    for first in range(0, spec.height, _BLOCK_ROWS):
        block = slice(first, min(first + _BLOCK_ROWS, spec.height))
        squeezed = _interpolate_rows(source, rows, block)
        row = squeezed.take(low, axis=1)
        difference = squeezed.take(high, axis=1)
        difference -= row
        difference *= fraction
        row += difference
        row *= scale
        row += shift
        image[0, :, block] = row.reshape(-1, 3, spec.width).transpose(1, 0, 2)
    return image


def _interpolate_rows(source: npt.NDArray[np.uint8] | Float, rows: LinearTaps, block: slice) -> Float:
    """Interpolate between rows on whole interleaved rows: ``(block, row bytes)``."""
    value = source[rows.low[block]].astype(np.float32)
    difference = source[rows.high[block]].astype(np.float32)
    difference -= value
    difference *= rows.fraction[block, None]
    value += difference
    return value
