"""Inference libraries behind one face. Each library is imported inside its own file, when a model is loaded."""

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
