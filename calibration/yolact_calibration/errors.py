"""Errors of the calibration package, all below :class:`YolactError`."""

from yolact_runtime.errors import MediaError, MissingDependencyError, ShapeError, TextError, UsageError, YolactError

__all__ = [
    "CalibrationError",
    "DatasetError",
    "MediaError",
    "MissingDependencyError",
    "PruningError",
    "ShapeError",
    "TextError",
    "TrainingError",
    "UsageError",
    "YolactError",
]


class DatasetError(YolactError):
    """Annotations or images cannot be read, contradict each other, or do not fit the model."""


class TrainingError(YolactError):
    """A training cannot start, cannot resume, or diverged."""


class PruningError(YolactError):
    """A model cannot be pruned as requested."""


class CalibrationError(YolactError):
    """The values inside a network cannot be observed, or have no valid range."""
