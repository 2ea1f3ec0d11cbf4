"""The root of the project's error tree, and errors of command lines, of arrays, of kernels and of the CUDA driver."""

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
    """Something the project can explain: the message says what was tried, what was found and what to do.

    ``exit_status`` is what a command line ends with when this error reaches it.
    """

    exit_status: ClassVar[int] = 1


class UsageError(YolactError):
    """The words of a command line do not make sense together."""

    exit_status: ClassVar[int] = 2


class ShapeError(YolactError):
    """An array has the wrong shape or dtype, or two arrays disagree."""


class TextError(YolactError):
    """A file that should be text or JSON is not, or says what no reader should guess about."""


class UntrustedFileError(YolactError):
    """A file that would be executed belongs to another user, or others may write it; the message says who and where."""


class MissingDependencyError(YolactError):
    """An optional package is needed and not installed; the message names the extra that brings it.

    Args:
        package: Its name.
        purpose: What needs it.
        extra: Of this project.
        distribution: Name of Debian's and Ubuntu's package, where that one will do.
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
    """A call of the CUDA driver failed; the message names the call and carries the driver's own words."""


class CudaContextLostError(CudaError):
    """The GPU's context is lost: every later call of the driver fails in this process, which has to be started again.

    The message carries the first error that said so.
    """


class CudaOutOfMemoryError(CudaError):
    """The GPU's memory, or memory that the GPU can reach, is used up."""

    exit_status: ClassVar[int] = 6


class CudaUnavailableError(CudaError):
    """CUDA cannot be used on this machine: no driver, a driver that does not start, or no GPU."""

    exit_status: ClassVar[int] = 5


class NoDriverError(CudaUnavailableError):
    """The machine has no NVIDIA driver, and nothing that says it should have one."""


class KernelCompileError(YolactError):
    """The compiler refused a kernel or an architecture; the message carries its log."""


class MissingCubinError(YolactError):
    """A kernel is not precompiled for this GPU, and compiling here is forbidden; the message says how to precompile."""

    exit_status: ClassVar[int] = 5


class LaunchError(YolactError):
    """Arguments, grid or shared memory of a launch do not fit the kernel or the device."""
