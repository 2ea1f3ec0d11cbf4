"""From a bundle and a frame to instances, with NumPy and one inference backend.

from yolact_runtime import Segmenter

with Segmenter.open("model.bundle") as segmenter:
    instances = segmenter(frame)  # (H, W, 3) uint8, blue first
"""

from yolact_plugins import __version__
from yolact_runtime.cpu.camera_frame import CameraFrame, PixelFormat
from yolact_runtime.cpu.frame_buffer import FrameBuffer
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.errors import SourceTimeoutError, YolactError
from yolact_runtime.frame_stream import FrameStream
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks
from yolact_runtime.model.bundle import Bundle, open_bundle
from yolact_runtime.model.manifest import Manifest
from yolact_runtime.segmenter import Segmenter, SegmenterOptions
from yolact_runtime.self_test import SelfTest

__all__ = [
    "Bundle",
    "CameraFrame",
    "FrameBuffer",
    "FrameStream",
    "Instances",
    "Manifest",
    "Masks",
    "NmsMethod",
    "PixelFormat",
    "Segmenter",
    "SegmenterOptions",
    "SelfTest",
    "SourceTimeoutError",
    "YolactError",
    "__version__",
    "open_bundle",
]
