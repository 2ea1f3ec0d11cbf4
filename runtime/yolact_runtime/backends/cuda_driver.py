"""Is there an NVIDIA GPU, and which one: the question of :mod:`yolact_plugins.driver.gpu`, with a backend's error.

TensorRT must not be asked: without a driver some of its releases return an object that ends the process with a
segmentation fault at its first use.
"""

from __future__ import annotations

from yolact_plugins.driver import gpu
from yolact_plugins.driver.gpu import Gpu
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime.errors import BackendUnavailableError

__all__ = ["Gpu", "find_gpu"]


def find_gpu(library: str = gpu.LIBRARY) -> Gpu:
    """Ask the driver.

    Args:
        library: The driver's library, as the loader finds it.

    Raises:
        BackendUnavailableError: No driver, a driver that does not start, or no GPU.
    """
    try:
        return gpu.find_gpu(library)
    except CudaUnavailableError as error:
        raise BackendUnavailableError(str(error)) from error
