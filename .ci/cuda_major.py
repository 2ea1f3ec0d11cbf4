"""Print the CUDA major version whose packages fit the driver of this machine: 12 or 13.

Code of an older CUDA runs on a newer driver, but not the other way round. Without a driver nothing runs on a GPU, and
the newest CUDA compiles for the largest number of GPUs.
"""

import ctypes

OLDEST, NEWEST = 12, 13


def cuda_major(library: str = "libcuda.so.1") -> int:
    """Ask the driver, which answers even without a GPU, and before it is initialised."""
    version = ctypes.c_int()
    try:
        status = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return NEWEST
    if status != 0:
        return NEWEST
    return min(max(version.value // 1000, OLDEST), NEWEST)


if __name__ == "__main__":
    print(cuda_major())
