"""Conversion of the frames that callers pass to the GPU's frame pipeline to camera frames."""

from __future__ import annotations

from typing import Any

from yolact_plugins.driver.foreign_array import is_device_array
from yolact_runtime.cpu.camera_frame import CameraFrame, PixelFormat
from yolact_runtime.cpu.preprocess import as_bgr
from yolact_runtime.errors import FrameError

__all__ = ["as_camera_frame"]

_CHANNELS = {3: PixelFormat.BGR, 4: PixelFormat.BGRA}


def as_camera_frame(frame: Any, bit_depth: int | None) -> CameraFrame:
    """Convert a frame in host memory or on the GPU to a camera frame.

    Args:
        frame: A :class:`CameraFrame`, which is returned unchanged; an array in host memory as for a network on the
            host, ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``; or an array on the GPU, ``(H, W, 3)`` BGR or ``(H, W, 4)``
            BGRA uint8.
        bit_depth: Number of significant bits of uint16 frames in host memory; None if there are no such frames.

    Returns:
        The frame: on the GPU without a copy, in host memory as BGR.

    Raises:
        FrameError: The frame is not an image, or has a format that only a :class:`CameraFrame` can describe.
    """
    if isinstance(frame, CameraFrame):
        return frame
    if not is_device_array(frame):
        bgr = as_bgr(frame, bit_depth)
        return CameraFrame(bgr, PixelFormat.BGR)
    shape = tuple(int(side) for side in frame.shape)
    if getattr(frame, "dtype", None) is not None and "uint16" in str(frame.dtype):
        raise FrameError(
            "a uint16 frame on the GPU is not supported: scale it to uint8 there (value * 255 / (2**bits - 1), "
            "rounded), or pass it in host memory with SegmenterOptions(bit_depth=12)"
        )
    if len(shape) != 3 or shape[2] not in _CHANNELS:
        raise FrameError(
            f"a frame on the GPU is (H, W, 3) BGR or (H, W, 4) BGRA uint8, found {shape}; other formats: CameraFrame"
        )
    return CameraFrame(frame, _CHANNELS[shape[2]])
