"""Every error that a caller of the runtime can meet; all are subclasses of :class:`YolactError`.

An error's message says what was tried, what was found, and what to type next. ``exit_status`` is the status with which
a command ends that meets it. Errors of CUDA and of compiling kernels are defined in ``yolact_plugins.errors``, and
exported here as well.
"""

from typing import ClassVar

from yolact_plugins.errors import (
    CudaContextLostError,
    CudaError,
    CudaOutOfMemoryError,
    CudaUnavailableError,
    KernelCompileError,
    LaunchError,
    MissingCubinError,
    MissingDependencyError,
    NoDriverError,
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
]


class ManifestError(YolactError):
    """A manifest is missing, is not JSON, has an unknown schema version, or has a field of the wrong kind."""


class BundleError(YolactError):
    """A bundle or model file is missing, incomplete, or not what its manifest says."""


class NoNetworkError(BundleError, UsageError):
    """A bundle has no network in the precision that was asked for; the message lists the precisions it has."""

    exit_status: ClassVar[int] = 2


class SignatureError(BundleError):
    """A bundle is not signed, was changed after it was signed, or is signed by another key."""


class EngineMismatchError(BundleError):
    """An engine was built for another machine; the message says for which, and how to build one here."""

    exit_status: ClassVar[int] = 5


class BackendError(YolactError):
    """A backend failed to load or to run a model, or the segmenter is closed. The message carries the library's own."""


class BackendUnavailableError(BackendError):
    """A backend cannot run on this machine; the message says why."""


class NoEngineError(BackendUnavailableError):
    """A model has no engine for a backend; the message says how to build one."""


class OutputError(BackendError, ShapeError):
    """A network's outputs differ from its manifest's description, or are not finite."""


class SelfTestError(YolactError):
    """A model computes something else on this machine than at export, or there is nothing to compare with."""

    exit_status: ClassVar[int] = 8


class NoGoldenFrameError(SelfTestError):
    """A bundle has no golden frame, or none for this precision, so that a self-test has nothing to compare with."""


class FrameError(YolactError):
    """A frame has a shape, dtype or format that the runtime does not take, or its buffer is still in use."""


class SourceTimeoutError(YolactError, TimeoutError):
    """The source of a stream gave no frame within the time limit of the stream."""


class MediaError(YolactError):
    """An image or video file cannot be read or written."""
