"""Frames of cameras, read with OpenCV."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from yolact_plugins.files import counted
from yolact_runtime.errors import MediaError
from yolact_runtime.media.opencv import opencv

__all__ = ["read_camera"]

Frame = npt.NDArray[np.uint8]


def read_camera(number: int, count: int, skip: int = 0) -> list[Frame]:
    """Read frames of a camera.

    Args:
        number: Number of the camera, from 0.
        count: Number of frames to return.
        skip: Number of frames to drop before that.

    Returns:
        Frames ``(H, W, 3)`` uint8, blue first, owned by the caller.

    Raises:
        MediaError: There is no such camera, or it stops delivering frames.
    """
    cv2 = opencv()
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise MediaError(f"there is no camera {number} that OpenCV can open; is it plugged in, and not in use?")
        frames: list[Frame] = []
        for taken in range(skip + count):
            read, frame = capture.read()
            if not read:
                raise MediaError(
                    f"camera {number} delivered {counted(taken, 'frame')} and then none; {skip + count} are needed"
                )
            frames.append(frame)
        return frames[skip:]
    finally:
        capture.release()
