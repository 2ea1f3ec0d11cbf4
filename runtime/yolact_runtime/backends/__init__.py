"""Inference libraries behind a common interface. Each library is imported when a model is loaded."""

from yolact_runtime.backends.base import Backend, DeviceBackend, DeviceContext, ModelSource, TensorSpec
from yolact_runtime.backends.fake import FakeBackend
from yolact_runtime.backends.select import BACKENDS, create_backend

__all__ = [
    "BACKENDS",
    "Backend",
    "DeviceBackend",
    "DeviceContext",
    "FakeBackend",
    "ModelSource",
    "TensorSpec",
    "create_backend",
]
