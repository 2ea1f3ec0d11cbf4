"""GPUs that TensorRT-RTX builds for, and those that it does not know, which need full TensorRT.

The builder names them: 7.5, 8.0, 8.6, 8.9, 12.0 and 12.1 in release 1.7. The Jetsons (Orin 8.7, Thor 11.0) and the
GPUs of data centres since Hopper (9.0) are not among them, nor are they in NVIDIA's support matrix.
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
        UsageError: The builder does not know one of them; the message lists those that it knows.
    """
    unknown = [capability for capability in capabilities if capability not in library.compute_capabilities]
    if unknown:
        raise UsageError(
            f"{_name(library)} does not build for compute capability {', '.join(unknown)}; it knows "
            f"{', '.join(library.compute_capabilities)}. A Jetson Orin (8.7), a Jetson Thor (11.0) or an H100 (9.0) "
            f"needs full TensorRT: {_FULL_TENSORRT}"
        )


def objection_to_rtx(capabilities: Sequence[str]) -> str | None:
    """Why an engine of TensorRT-RTX would not run on the GPU of this machine, though no other GPU was named.

    Args:
        capabilities: The GPUs that were named.

    Returns:
        None where other GPUs were named, this machine has no GPU, or the library is not installed.
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
        return f"{said}, which {_name(library)} builds for only when asked: --compute-capability {here}"
    return (
        f"{said}, which {_name(library)} does not build for; it knows {', '.join(library.compute_capabilities)}. This "
        f"GPU needs full TensorRT: --target tensorrt. For other machines, name their GPUs: --compute-capability 8.6,8.9"
    )


def check_rtx(capabilities: Sequence[str]) -> None:
    """Refuse what would be of no use before any work is done; without the library there is nothing to say yet.

    Raises:
        UsageError: GPUs that TensorRT-RTX does not build for, whether they were named or are in this machine.
    """
    if objection := objection_to_rtx(capabilities):
        raise UsageError(objection)
    try:
        check_capabilities(load_tensorrt("rtx"), capabilities)
    except (BackendUnavailableError, MissingDependencyError):
        return


def _name(library: TensorRtLibrary) -> str:
    return f"{library.module.__name__} {library.version}"
