"""Inference libraries behind a common interface. Each library is imported when a model is loaded."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

# Loaded on demand, as in yolact_runtime itself: two threads that import the package and one of its modules at the same
# time would otherwise wait for each other, and Python ends such a wait with half a module.
_LAZY = {
    "yolact_runtime.backends.base": ("Backend", "DeviceBackend", "DeviceContext", "ModelSource", "TensorSpec"),
    "yolact_runtime.backends.fake": ("FakeBackend",),
    "yolact_runtime.backends.select": ("BACKENDS", "create_backend"),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}

if not TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
