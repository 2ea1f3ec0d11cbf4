"""OpenCV, imported where it is needed: the only module of the runtime that does so.

The segmenter imports nothing of this room; a robot that feeds frames from its camera driver needs no OpenCV.
"""

from __future__ import annotations

import os
from typing import Any

from yolact_runtime.errors import MissingDependencyError

__all__ = ["opencv"]

_LOG_LEVEL_SILENT = 0
"""Version 4 of OpenCV has no name for it in Python."""
_FFMPEG_QUIET = "-8"
"""AV_LOG_QUIET."""


def opencv() -> Any:
    """Return the module ``cv2``, told to be silent.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    # FFmpeg inside of OpenCV has a log of its own, and reads its level when the first video is opened. Of a damaged
    # video it prints a line for every piece.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv-python-headless", "Reading and writing images and videos", "video"
        ) from error
    # Its warnings would repeat our errors, without the file's name. OpenCV 5 moved the function.
    set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_log_level(_LOG_LEVEL_SILENT)
    return cv2
