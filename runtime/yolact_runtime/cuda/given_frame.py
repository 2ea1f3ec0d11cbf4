"""What a caller gives as a frame to the GPU's frame pipeline, taken for the camera frame that it is."""

from __future__ import annotations

from typing import Any

from yolact_plugins.driver.foreign_array import is_device_array
from yolact_runtime.cpu.camera_frame import CameraFrame, PixelFormat
from yolact_runtime.cpu.preprocess import as_bgr
from yolact_runtime.errors import FrameError

__all__ = ["as_camera_frame"]

_CHANNELS = {3: PixelFormat.BGR, 4: PixelFormat.BGRA}


def as_camera_frame(frame: Any, bit_depth: int | None) -> CameraFrame:
    """Take a frame in host memory, or one on the GPU, for what it is.

    Args:
        frame: A :class:`CameraFrame`, which is returned itself; an array in host memory as for a network on the host,
            ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``; or an array on the GPU, ``(H, W, 3)`` BGR or ``(H, W, 4)`` BGRA
            uint8.
        bit_depth: Of frames in uint16, in host memory; None where there are none.

    Returns:
        A frame on the GPU as it is, not copied; one in host memory as BGR.

    Raises:
        FrameError: It is not an image, or one of a format that has to be named by a :class:`CameraFrame`.
    """
    if isinstance(frame, CameraFrame):
        return frame
    if not is_device_array(frame):
        bgr = as_bgr(frame, bit_depth)
        return CameraFrame(bgr, PixelFormat.BGR)
    shape = tuple(int(side) for side in frame.shape)
    if getattr(frame, "dtype", None) is not None and "uint16" in str(frame.dtype):
        raise FrameError(
            "a frame of uint16 on the GPU is not read: scale it to uint8 there (value * 255 / (2**bits - 1), rounded), "
            "or give it in host memory with SegmenterOptions(bit_depth=12)"
        )
    if len(shape) != 3 or shape[2] not in _CHANNELS:
        raise FrameError(
            f"a frame on the GPU is (H, W, 3) BGR or (H, W, 4) BGRA uint8, found {shape}; other formats: CameraFrame"
        )
    return CameraFrame(frame, _CHANNELS[shape[2]])
