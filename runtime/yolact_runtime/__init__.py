"""Instance segmentation with an exported YOLACT model: a bundle and a frame in, instances out.

```python
from yolact_runtime import Segmenter

with Segmenter.open("model.bundle") as segmenter:
    for instance in segmenter(frame):  # (H, W, 3) uint8, blue first
        print(instance.class_name, instance.confidence, instance.xyxy)
```

Everything below is imported from ``yolact_runtime`` itself; modules are loaded when a name of theirs is first used.
Messages go to the loggers below ``"yolact_runtime"`` and ``"yolact_plugins"``, which are silent until the program
configures :mod:`logging`.
"""

import importlib
import logging
from typing import TYPE_CHECKING

from yolact_plugins import __version__

if TYPE_CHECKING:
    from yolact_plugins.colour import BT601, BT601_FULL, BT709, YuvMatrix
    from yolact_plugins.driver.device_array import DeviceArray
    from yolact_runtime.backends.base import Backend
    from yolact_runtime.cpu.camera_frame import CameraFrame, FrameLayout, PixelFormat
    from yolact_runtime.cpu.frame_buffer import FrameBuffer
    from yolact_runtime.cpu.nms import NmsMethod, NmsSettings
    from yolact_runtime.cuda.device_instances import DeviceInstances
    from yolact_runtime.errors import (
        BackendError,
        BackendUnavailableError,
        BundleError,
        CudaContextLostError,
        CudaError,
        CudaOutOfMemoryError,
        CudaUnavailableError,
        EngineMismatchError,
        FrameError,
        KernelCompileError,
        LaunchError,
        ManifestError,
        MediaError,
        MissingCubinError,
        MissingDependencyError,
        NoDriverError,
        NoEngineError,
        NoGoldenFrameError,
        NoNetworkError,
        OutputError,
        SelfTestError,
        ShapeError,
        SignatureError,
        SourceTimeoutError,
        TextError,
        UntrustedFileError,
        UsageError,
        YolactError,
    )
    from yolact_runtime.frame_stream import FrameStream
    from yolact_runtime.mask_rescoring import MaskRescoring
    from yolact_runtime.masks.instance import Instance
    from yolact_runtime.masks.instances import Instances, InstancesDict
    from yolact_runtime.masks.mask import Mask
    from yolact_runtime.masks.masks import Masks
    from yolact_runtime.model.bundle import Bundle, open_bundle
    from yolact_runtime.model.manifest import Artefact, DetectionSpec, InputSpec, Manifest, NetworkDtypes, PriorSpec
    from yolact_runtime.model.model_file import ModelFile
    from yolact_runtime.segmenter import Segmenter
    from yolact_runtime.segmenter_options import SegmenterOptions
    from yolact_runtime.self_test import SelfTest

__all__ = [
    "BT601",
    "BT601_FULL",
    "BT709",
    "Artefact",
    "Backend",
    "BackendError",
    "BackendUnavailableError",
    "Bundle",
    "BundleError",
    "CameraFrame",
    "CudaContextLostError",
    "CudaError",
    "CudaOutOfMemoryError",
    "CudaUnavailableError",
    "DetectionSpec",
    "DeviceArray",
    "DeviceInstances",
    "EngineMismatchError",
    "FrameBuffer",
    "FrameError",
    "FrameLayout",
    "FrameStream",
    "InputSpec",
    "Instance",
    "Instances",
    "InstancesDict",
    "KernelCompileError",
    "LaunchError",
    "Manifest",
    "ManifestError",
    "Mask",
    "MaskRescoring",
    "Masks",
    "MediaError",
    "MissingCubinError",
    "MissingDependencyError",
    "ModelFile",
    "NetworkDtypes",
    "NmsMethod",
    "NmsSettings",
    "NoDriverError",
    "NoEngineError",
    "NoGoldenFrameError",
    "NoNetworkError",
    "OutputError",
    "PixelFormat",
    "PriorSpec",
    "Segmenter",
    "SegmenterOptions",
    "SelfTest",
    "SelfTestError",
    "ShapeError",
    "SignatureError",
    "SourceTimeoutError",
    "TextError",
    "UntrustedFileError",
    "UsageError",
    "YolactError",
    "YuvMatrix",
    "__version__",
    "open_bundle",
]

# Where the names live that are loaded on demand: a program that reads results needs no segmenter, and one without a GPU
# no wrapper of the CUDA driver. The package itself imports none of its modules. If it did, two threads that import the
# package and one of its modules at the same time would wait for each other, and Python ends such a wait with half a
# module.
_LAZY = {
    "yolact_plugins.colour": ("BT601", "BT601_FULL", "BT709", "YuvMatrix"),
    "yolact_plugins.driver.device_array": ("DeviceArray",),
    "yolact_runtime.backends.base": ("Backend",),
    "yolact_runtime.cpu.camera_frame": ("CameraFrame", "FrameLayout", "PixelFormat"),
    "yolact_runtime.cpu.frame_buffer": ("FrameBuffer",),
    "yolact_runtime.cpu.nms": ("NmsMethod", "NmsSettings"),
    "yolact_runtime.cuda.device_instances": ("DeviceInstances",),
    "yolact_runtime.errors": (
        "BackendError",
        "BackendUnavailableError",
        "BundleError",
        "CudaContextLostError",
        "CudaError",
        "CudaOutOfMemoryError",
        "CudaUnavailableError",
        "EngineMismatchError",
        "FrameError",
        "KernelCompileError",
        "LaunchError",
        "ManifestError",
        "MediaError",
        "MissingCubinError",
        "MissingDependencyError",
        "NoDriverError",
        "NoEngineError",
        "NoGoldenFrameError",
        "NoNetworkError",
        "OutputError",
        "SelfTestError",
        "ShapeError",
        "SignatureError",
        "SourceTimeoutError",
        "TextError",
        "UntrustedFileError",
        "UsageError",
        "YolactError",
    ),
    "yolact_runtime.frame_stream": ("FrameStream",),
    "yolact_runtime.mask_rescoring": ("MaskRescoring",),
    "yolact_runtime.masks.instance": ("Instance",),
    "yolact_runtime.masks.instances": ("Instances", "InstancesDict"),
    "yolact_runtime.masks.mask": ("Mask",),
    "yolact_runtime.masks.masks": ("Masks",),
    "yolact_runtime.model.bundle": ("Bundle", "open_bundle"),
    "yolact_runtime.model.manifest": (
        "Artefact",
        "DetectionSpec",
        "InputSpec",
        "Manifest",
        "NetworkDtypes",
        "PriorSpec",
    ),
    "yolact_runtime.model.model_file": ("ModelFile",),
    "yolact_runtime.segmenter": ("Segmenter",),
    "yolact_runtime.segmenter_options": ("SegmenterOptions",),
    "yolact_runtime.self_test": ("SelfTest",),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

# The embedding program decides whether and where messages are shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
