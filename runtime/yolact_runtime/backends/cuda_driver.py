"""Detection of NVIDIA GPUs by :mod:`yolact_plugins.driver.gpu`, with a backend's error.

TensorRT cannot be used for this: without a driver, some of its releases return an object that ends the process with a
segmentation fault at its first use.
"""

from __future__ import annotations

from yolact_plugins.driver import gpu
from yolact_plugins.driver.gpu import Gpu
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime.errors import BackendUnavailableError

__all__ = ["Gpu", "find_gpu"]


def find_gpu(library: str = gpu.LIBRARY) -> Gpu:
    """Find the default GPU.

    Args:
        library: The driver's library, as the dynamic loader finds it.

    Raises:
        BackendUnavailableError: There is no driver or no GPU, or the driver does not start.
    """
    try:
        return gpu.find_gpu(library)
    except CudaUnavailableError as error:
        raise BackendUnavailableError(str(error)) from error
