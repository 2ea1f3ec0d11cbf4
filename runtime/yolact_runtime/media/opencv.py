"""Import of OpenCV on demand: the only module of the runtime that imports it.

The segmenter imports nothing of this package, so a robot that passes frames of its camera driver needs no OpenCV.
"""

from __future__ import annotations

import os
from typing import Any

from yolact_runtime.errors import MissingDependencyError

__all__ = ["opencv"]

_LOG_LEVEL_SILENT = 0
"""Flag that has no name in Python with OpenCV 4."""
_FFMPEG_QUIET = "-8"
"""Value of AV_LOG_QUIET."""


def opencv() -> Any:
    """Import and return the module ``cv2``, with its logging disabled.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    # FFmpeg inside of OpenCV has its own log, and reads its level when the first video is opened. For a damaged video
    # it prints a line for every part.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv-python-headless", "Reading and writing images and videos", "video"
        ) from error
    # OpenCV's warnings would repeat our errors without the file name. OpenCV 5 moved the function.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_log_level(_LOG_LEVEL_SILENT)
    return cv2
