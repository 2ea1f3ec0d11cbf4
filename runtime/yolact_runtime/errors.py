"""Errors of the runtime, all below :class:`YolactError`."""

from typing import ClassVar

from yolact_plugins.errors import (
    MissingDependencyError,
    ShapeError,
    TextError,
    UntrustedFileError,
    UsageError,
    YolactError,
)

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "BundleError",
    "EngineMismatchError",
    "FrameError",
    "ManifestError",
    "MediaError",
    "MissingDependencyError",
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
]


class ManifestError(YolactError):
    """A manifest is missing, is not JSON, has an unknown schema version, or a field of the wrong kind."""


class BundleError(YolactError):
    """A bundle or model file is missing, incomplete, or not what its manifest says."""


class NoNetworkError(BundleError, UsageError):
    """A bundle has no network in the precision that was asked for; the message says in which it has one."""

    exit_status: ClassVar[int] = 2


class SignatureError(BundleError):
    """A bundle is not signed, was changed after it was signed, or a key is not the right one."""


class EngineMismatchError(BundleError):
    """An engine was built for another machine than this one; the message says for which, and how to build it here."""

    exit_status: ClassVar[int] = 5


class BackendError(YolactError):
    """A backend failed to load a model or to run it; the message carries the backend's own words."""


class BackendUnavailableError(BackendError):
    """A backend cannot be used on this machine; the message says why."""


class NoEngineError(BackendUnavailableError):
    """A model has no engine for a backend; the message says how to build one."""


class OutputError(BackendError, ShapeError):
    """A network's outputs are not those that its manifest describes, or are not numbers."""


class SelfTestError(YolactError):
    """A model does not do on this machine what it did when it was exported, or there is nothing to compare with."""

    exit_status: ClassVar[int] = 8


class NoGoldenFrameError(SelfTestError):
    """A bundle has no golden frame, or none for this precision: there is nothing to compare with."""


class FrameError(YolactError):
    """A frame is not an image that the runtime understands."""


class SourceTimeoutError(YolactError, TimeoutError):
    """The source of a stream gave no frame for longer than the caller waits."""


class MediaError(YolactError):
    """An image or video file cannot be read or written."""
