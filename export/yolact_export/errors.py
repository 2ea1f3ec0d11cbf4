"""Errors of the export package, all below :class:`YolactError`."""

from typing import ClassVar

from yolact_runtime.errors import ManifestError, MissingDependencyError, ShapeError, UsageError, YolactError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "EngineBuildError",
    "EngineMemoryError",
    "ExportError",
    "ManifestError",
    "MissingDependencyError",
    "ShapeError",
    "UsageError",
    "VerificationError",
    "YolactError",
]


class CheckpointError(YolactError):
    """A checkpoint cannot be read, is not a YOLACT model, or contradicts the options."""


class ConfigError(YolactError):
    """A model configuration is unknown or inconsistent."""


class ExportError(YolactError):
    """A model cannot be written as the requested graph."""


class EngineBuildError(YolactError):
    """TensorRT does not build an engine from a model; the message contains TensorRT's own messages."""


class EngineMemoryError(EngineBuildError):
    """An engine build needs more memory than is available or allowed."""

    exit_status: ClassVar[int] = 6


class VerificationError(YolactError):
    """The results of an exported model differ from those of the checkpoint."""
