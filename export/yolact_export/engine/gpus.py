"""GPUs that TensorRT-RTX builds for, and those that it does not support, which need full TensorRT.

The builder lists them: 7.5, 8.0, 8.6, 8.9, 12.0 and 12.1 in release 1.7. The Jetsons (Orin 8.7, Thor 11.0) and the data
centre GPUs since Hopper (9.0) are not among them, nor in NVIDIA's support matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

from yolact_export.errors import MissingDependencyError, UsageError
from yolact_runtime.backends.cuda_driver import find_gpu
from yolact_runtime.backends.tensorrt_library import TensorRtLibrary, covers, load_tensorrt
from yolact_runtime.errors import BackendUnavailableError

__all__ = ["check_capabilities", "check_rtx", "objection_to_rtx"]

_FULL_TENSORRT = "yolact-export BUNDLE --engine --target tensorrt, on the machine with that GPU"


def check_capabilities(library: TensorRtLibrary, capabilities: Sequence[str]) -> None:
    """Refuse GPUs that TensorRT-RTX does not build for.

    Raises:
        UsageError: The builder does not support one of them; the message lists those that it supports.
    """
    unknown = [capability for capability in capabilities if capability not in library.compute_capabilities]
    if unknown:
        raise UsageError(
            f"{_name(library)} does not build for compute capability {', '.join(unknown)}; it supports "
            f"{', '.join(library.compute_capabilities)}. A Jetson Orin (8.7), a Jetson Thor (11.0) or an H100 (9.0) "
            f"needs full TensorRT: {_FULL_TENSORRT}"
        )


def objection_to_rtx(capabilities: Sequence[str]) -> str | None:
    """Return why an engine of TensorRT-RTX would not run on this machine's GPU, if no other GPU was named.

    Args:
        capabilities: Compute capabilities of the named GPUs.

    Returns:
        The reason; None if other GPUs were named, this machine has no GPU, or the library is not installed.
    """
    if capabilities:
        return None
    try:
        gpu = find_gpu()
        library = load_tensorrt("rtx")
    except (BackendUnavailableError, MissingDependencyError):
        return None
    here = gpu.compute_capability
    if covers(library.default_capabilities, here):
        return None
    said = f"this machine has {gpu.name} (compute capability {here})"
    if here in library.compute_capabilities:
        return f"{said}, which {_name(library)} builds for only on request: --compute-capability {here}"
    return (
        f"{said}, which {_name(library)} does not build for; it supports {', '.join(library.compute_capabilities)}. "
        f"This GPU needs full TensorRT: --target tensorrt. For other machines, name their GPUs: "
        f"--compute-capability 8.6,8.9"
    )


def check_rtx(capabilities: Sequence[str]) -> None:
    """Refuse useless builds before any work is done; without the library nothing is checked yet.

    Raises:
        UsageError: TensorRT-RTX does not build for the named GPUs, or for the one of this machine.
    """
    if objection := objection_to_rtx(capabilities):
        raise UsageError(objection)
    try:
        check_capabilities(load_tensorrt("rtx"), capabilities)
    except (BackendUnavailableError, MissingDependencyError):
        return


def _name(library: TensorRtLibrary) -> str:
    return f"{library.module.__name__} {library.version}"
