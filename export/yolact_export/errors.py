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
    """A checkpoint cannot be read, is not a YOLACT model, or contradicts what was asked for."""


class ConfigError(YolactError):
    """A model configuration is unknown or does not make sense."""


class ExportError(YolactError):
    """A model cannot be written as the graph that was asked for."""


class EngineBuildError(YolactError):
    """TensorRT does not turn a model into an engine; the message carries TensorRT's own words."""


class EngineMemoryError(EngineBuildError):
    """An engine needs more memory to build than there is, or than it was allowed."""

    exit_status: ClassVar[int] = 6


class VerificationError(YolactError):
    """An exported model does not do what the checkpoint does."""
