"""Detection of NVIDIA GPUs through the driver alone.

It needs no installed packages. Checking first keeps libraries built upon the driver from failing in their own ways if
there is none: some releases of TensorRT end the process with a segmentation fault. Functions and attribute numbers:
cuda.h, ``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` = 75 and ``_MINOR`` = 76.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_plugins.errors import CudaUnavailableError, NoDriverError

__all__ = ["LIBRARY", "Gpu", "cuda_extra", "find_gpu"]

LIBRARY = "libcuda.so.1"
"""The driver's library, as the dynamic loader finds it."""
_MAJOR, _MINOR = 75, 76
# Files of the kernel's driver and of JetPack.
_SIGNS = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/proc/driver/nvidia", "/etc/nv_tegra_release")))
_PCI_DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA_VENDOR = b"0x10de"


@dataclass(frozen=True)
class Gpu:
    """The default GPU: the first one, as arranged by ``CUDA_VISIBLE_DEVICES``.

    Attributes:
        name: The driver's name for it, such as ``"Orin"``.
        compute_capability: Compute capability, such as ``"8.7"``.
        cuda_version: Newest CUDA version that the driver supports, such as ``"12.6"``.
    """

    name: str
    compute_capability: str
    cuda_version: str


def find_gpu(library: str = LIBRARY) -> Gpu:
    """Find the default GPU.

    Args:
        library: The driver's library, as the dynamic loader finds it.

    Raises:
        NoDriverError: There is no driver, and no sign of an NVIDIA GPU.
        CudaUnavailableError: There is a GPU but no driver, a driver that does not start, or no GPU.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        kind = CudaUnavailableError if _has_nvidia_hardware() else NoDriverError
        raise kind(
            f"there is no NVIDIA driver here ({library}: {error}); install it, or start the container with the NVIDIA "
            f"runtime"
        ) from error
    _ask(driver, "cuInit", 0)
    version, count, device = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(driver, "cuDriverGetVersion", ctypes.byref(version))
    _ask(driver, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise CudaUnavailableError("the NVIDIA driver shows no GPU; is CUDA_VISIBLE_DEVICES set to nothing?")
    _ask(driver, "cuDeviceGet", ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    _ask(driver, "cuDeviceGetName", name, len(name), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        _ask(driver, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode("utf-8", "replace"), ".".join(capability), cuda_version)


def _has_nvidia_hardware() -> bool:
    """Return whether there are NVIDIA device files or PCI devices, or a Jetson: then a driver should exist."""
    if any(path.exists() for path in _SIGNS):
        return True
    for vendor in _PCI_DEVICES.glob("*/vendor"):
        with contextlib.suppress(OSError):
            # Class 03 is a display controller, which GPUs are (0302 without a display).
            is_display = vendor.with_name("class").read_bytes().startswith(b"0x03")
            if is_display and vendor.read_bytes().strip() == _NVIDIA_VENDOR:
                return True
    return False


def cuda_extra(cuda_version: str | None = None) -> str:
    """Return the extra of this project that contains the packages of a CUDA major version.

    Args:
        cuda_version: CUDA version, such as ``"12.6"``, for which the extra is ``"cuda12"``. None queries this machine's
            driver, and without a driver means the newest CUDA.
    """
    if cuda_version is None:
        try:
            cuda_version = find_gpu().cuda_version
        except CudaUnavailableError:
            return "cuda"
    return "cuda12" if cuda_version.split(".")[0] == "12" else "cuda"


def _ask(driver: ctypes.CDLL, function: str, *arguments: Any) -> None:
    try:
        status = getattr(driver, function)(*arguments)
    except AttributeError as error:
        raise CudaUnavailableError(
            f"{driver._name} is not an NVIDIA driver: it lacks the function {function}"
        ) from error
    if status != 0:
        raise CudaUnavailableError(
            f"the NVIDIA driver does not start: {function} returned CUDA error {status}{_name_of(driver, status)}; "
            f"does nvidia-smi (on a Jetson: tegrastats) work on this machine?"
        )


def _name_of(driver: ctypes.CDLL, status: int) -> str:
    name = ctypes.c_char_p()
    known = getattr(driver, "cuGetErrorName", None)
    if known is None or known(status, ctypes.byref(name)) != 0 or name.value is None:
        return ""
    return f" ({name.value.decode('ascii', 'replace')})"
