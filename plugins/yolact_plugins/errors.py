"""The root of the project's exceptions, and errors of command lines, arrays, kernels and the CUDA driver."""

import copyreg
from typing import ClassVar

__all__ = [
    "CudaContextLostError",
    "CudaError",
    "CudaOutOfMemoryError",
    "CudaUnavailableError",
    "KernelCompileError",
    "LaunchError",
    "MissingCubinError",
    "MissingDependencyError",
    "NoDriverError",
    "ShapeError",
    "TextError",
    "UntrustedFileError",
    "UsageError",
    "YolactError",
]


class YolactError(Exception):
    """Base class of all errors that the project raises: the message says what was tried, what was found and what to do.

    ``exit_status`` is the exit status of a command that ends with this error.
    """

    exit_status: ClassVar[int] = 1

    def __reduce__(self) -> tuple[object, ...]:
        # Without a call of __init__, which takes something other than the message in some classes: an error arrives
        # whole from another process.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class UsageError(YolactError):
    """The arguments of a command line are invalid or contradict each other."""

    exit_status: ClassVar[int] = 2


class ShapeError(YolactError):
    """An array has the wrong shape or dtype, or two arrays disagree."""


class TextError(YolactError):
    """A file that should be text or JSON is not, or its content is ambiguous."""


class UntrustedFileError(YolactError):
    """A file to be executed belongs to another user or is writable by others; the message says who and where."""


class MissingDependencyError(YolactError):
    """An optional package is needed and not installed; the message names the extra that brings it.

    Args:
        package: Name of the missing package.
        purpose: The feature that needs the package; the subject of the message.
        extra: The extra of this project that installs the package.
        distribution: Name of the Debian and Ubuntu package that can be used instead; empty if there is none.
    """

    def __init__(self, package: str, purpose: str, extra: str, distribution: str = "") -> None:
        system = f", or the system's own package: apt install {distribution}" if distribution else ""
        super().__init__(
            f'{purpose} needs the package "{package}", which is not installed: pip install "yolact-deploy[{extra}]" '
            f'(in a clone of the project: pip install ".[{extra}]"){system}'
        )
        self.package = package
        self.extra = extra


class CudaError(YolactError):
    """A call of the CUDA driver failed; the message names the call and includes the driver's own text."""


class CudaContextLostError(CudaError):
    """The CUDA context is lost: every later driver call fails in this process, which has to be restarted.

    The message includes the first error that reported the loss.
    """


class CudaOutOfMemoryError(CudaError):
    """GPU memory, or host memory that the GPU can access, is exhausted."""

    exit_status: ClassVar[int] = 6


class CudaUnavailableError(CudaError):
    """CUDA cannot be used on this machine: no driver, a driver that fails to start, or no GPU."""

    exit_status: ClassVar[int] = 5


class NoDriverError(CudaUnavailableError):
    """The machine has no NVIDIA driver, and no sign that it should have one."""


class KernelCompileError(YolactError):
    """NVRTC rejected a kernel or an architecture; the message includes its log."""


class MissingCubinError(YolactError):
    """A kernel is not precompiled for this GPU and JIT compilation is forbidden.

    The message says how to precompile it.
    """

    exit_status: ClassVar[int] = 5


class LaunchError(YolactError):
    """The arguments, grid or shared memory of a launch do not fit the kernel or the device."""
