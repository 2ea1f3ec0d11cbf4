"""OpenCV, imported where it is needed: the only module of the runtime that does so.

The segmenter imports nothing of this room; a robot that feeds frames from its camera driver needs no OpenCV.
"""

from __future__ import annotations

from typing import Any

from yolact_runtime.errors import MissingDependencyError

__all__ = ["opencv"]

_LOG_LEVEL_SILENT = 0
"""Of OpenCV; version 4 has no name for it in Python."""


def opencv() -> Any:
    """Return the module ``cv2``, told to be silent.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
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
