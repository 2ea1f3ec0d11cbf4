"""Machine code loaded on a device, and launches of its kernels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from yolact_plugins.driver.cubin import Cubin
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.gpu import cuda_extra
from yolact_plugins.driver.launch import LaunchConfig, PackedArguments
from yolact_plugins.driver.ownership import Owned
from yolact_plugins.errors import CudaError, LaunchError

__all__ = ["Kernel", "Launch", "Module"]

_DEFAULT_SHARED_BYTES = 48 * 1024


class Module(Owned):
    """A loaded cubin. Its kernels cannot be used after it is closed.

    Args:
        device: The device to load the code on; kept alive.
        cubin: Machine code for the device's architecture.

    Raises:
        CudaError: The code is not for this device, or the driver is older than the compiler.
    """

    def __init__(self, device: Device, cubin: Cubin) -> None:
        device.require_open()
        _refuse_newer_cuda(device, cubin)
        self.device = device
        self.cubin = cubin
        self._kernels: dict[str, Kernel] = {}
        # The driver reads the code during the call only; a separate array has an address and is aligned.
        code = np.frombuffer(cubin.code, np.uint8).copy()
        with device.current():
            try:
                self._module = device.driver.call("cuModuleLoadData", code.ctypes.data)
            except CudaError as error:
                # The type is kept, because it may be out of memory or context lost.
                raise type(error)(
                    f"{cubin.family} for {cubin.arch}, compiled by NVRTC {cubin.nvrtc_version}, does not load on "
                    f"{device.name} ({device.arch}, driver for CUDA {device.driver.gpu.cuda_version}): {error}"
                ) from error
        super().__init__(device)

    def kernel(self, name: str) -> Kernel:
        """Return a kernel by name.

        Raises:
            LaunchError: There is no kernel of that name.
        """
        self.require_open()
        if name not in self.cubin.parameters:
            raise LaunchError(f"{self.cubin.family} has no kernel {name}; it has {', '.join(self.cubin.parameters)}")
        # One object per kernel, because it records attributes that the driver was given.
        if name not in self._kernels:
            function = self.device.driver.call("cuModuleGetFunction", self._module, name.encode())
            self._kernels[name] = Kernel(self, name, function)
        return self._kernels[name]

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuModuleUnload", self._module)


def _refuse_newer_cuda(device: Device, cubin: Cubin) -> None:
    """Raise before the driver does, whose error would only state that the image is invalid."""
    known = device.driver.gpu.cuda_version
    compiled, loadable = _major(cubin.nvrtc_version), _major(known)
    if compiled > loadable:
        raise CudaError(
            f"{cubin.family} for {cubin.arch} was compiled by NVRTC {cubin.nvrtc_version}, and the driver of "
            f"{device.name} is for CUDA {known}: it loads no machine code of a newer CUDA major version. Compile with "
            f'NVRTC {loadable}: pip install "yolact-deploy[{cuda_extra(known)}]" (in a clone of the project: '
            f'pip install ".[{cuda_extra(known)}]"), and for a bundle then: python -m yolact_plugins.compile --arch '
            f"{cubin.arch} -o MODEL.bundle. Or install a newer driver"
        )


def _major(version: str) -> int:
    """Return the major number of a version such as ``"13.5"``; 0 if it is invalid, as in a bad index."""
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


class Kernel:
    """A function on the device. Get it from :meth:`Module.kernel`; the module owns it."""

    def __init__(self, module: Module, name: str, function: Any) -> None:
        self.module = module
        self.name = name
        self._function = function
        self._shared_bytes = _DEFAULT_SHARED_BYTES

    def prepare(self, config: LaunchConfig, arguments: Sequence[Any]) -> Launch:
        """Check and pack everything once, for repeated launches.

        Args:
            config: Grid, block and dynamic shared memory.
            arguments: Arguments of the kernel; see :class:`PackedArguments`.

        Raises:
            LaunchError: The launch does not fit the kernel or the device.
        """
        self.module.require_open()
        figures = self.module.cubin.figures.get(self.name)
        static = figures.shared_bytes if figures else 0
        config.check(self.module.device.limits, static)
        # A kernel must opt in to more than the default; the permission persists.
        if config.shared_bytes + static > self._shared_bytes:
            driver = self.module.device.driver
            which = driver.constant("CUfunction_attribute", "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES")
            driver.call("cuFuncSetAttribute", self._function, which, config.shared_bytes)
            self._shared_bytes = config.shared_bytes + static
        packed = PackedArguments(self.name, arguments, self.module.cubin.parameters[self.name])
        return Launch(self, config, packed, self._function)

    def launch(self, stream: Stream, config: LaunchConfig, *arguments: Any) -> None:
        """Check, pack and launch once, without waiting.

        Raises:
            LaunchError: The launch does not fit the kernel or the device.
            CudaError: The driver reports an error.
        """
        self.prepare(config, arguments).enqueue(stream)


class Launch:
    """A repeatable launch that allocates nothing.

    Attributes:
        name: Name of the kernel.
        arguments: The packed arguments; :meth:`PackedArguments.replace` changes one for future launches.
    """

    def __init__(self, kernel: Kernel, config: LaunchConfig, arguments: PackedArguments, function: Any) -> None:
        self._kernel = kernel
        self._function = function
        self.name = kernel.name
        self.config = config
        self.arguments = arguments

    def enqueue(self, stream: Stream) -> None:
        """Enqueue the kernel in the stream and return at once.

        Raises:
            CudaError: The driver reports an error.
        """
        module = self._kernel.module
        module.require_open()
        config = self.config
        call = module.device.driver.call
        try:
            call(
                "cuLaunchKernel",
                self._function,
                *config.grid,
                *config.block,
                config.shared_bytes,
                stream.handle,
                self.arguments.address,
                0,
            )
        except CudaError as error:
            raise type(error)(f"{self._kernel.name} with {config}: {error}") from error
