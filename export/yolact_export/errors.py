"""Errors of the export package, all below :class:`YolactError`."""

from yolact_runtime.errors import ManifestError, MissingDependencyError, ShapeError, UsageError, YolactError

__all__ = [
    "CheckpointError",
    "ConfigError",
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


class VerificationError(YolactError):
    """An exported model does not do what the checkpoint does."""
