"""Kernel launches: grid, block, shared memory, and arguments packed as the bytes that the kernel reads.

Nothing here needs a driver. An argument of the wrong size, which on a GPU leads to garbage or to a fault elsewhere, is
detected by comparison with the parameters that the machine code declares.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from yolact_plugins.driver.cubin import Parameter
from yolact_plugins.errors import LaunchError

__all__ = ["DeviceLimits", "LaunchConfig", "PackedArguments", "ceil_div"]

_DEFAULT_SHARED_BYTES = 48 * 1024
_MAX_BLOCK, _MAX_GRID = (1024, 1024, 64), (2**31 - 1, 65535, 65535)


@dataclass(frozen=True)
class DeviceLimits:
    """Limits of a kernel launch. The defaults hold for every GPU of compute capability 7.5 and newer.

    Attributes:
        threads_per_block: Maximum number of threads per block.
        block: Maximum number of threads along x, y, z.
        grid: Maximum number of blocks along x, y, z.
        shared_bytes: Shared memory per block in bytes, static and dynamic together, if the kernel opts in to more than
            the default 48 KiB.
    """

    threads_per_block: int = 1024
    block: tuple[int, int, int] = _MAX_BLOCK
    grid: tuple[int, int, int] = _MAX_GRID
    shared_bytes: int = _DEFAULT_SHARED_BYTES


@dataclass(frozen=True)
class LaunchConfig:
    """Grid, block and dynamic shared memory of a launch.

    Attributes:
        grid: Number of blocks along x, y, z.
        block: Number of threads of a block along x, y, z.
        shared_bytes: Dynamic shared memory of a block in bytes.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int = 0

    @classmethod
    def covering(cls, extent: Sequence[int], block: Sequence[int], shared_bytes: int = 0) -> LaunchConfig:
        """Create the configuration that covers `extent` with one thread per element.

        Args:
            extent: Number of elements along x, y, z; missing ones are 1.
            block: Number of threads along x, y, z; missing ones are 1.
            shared_bytes: Dynamic shared memory of a block in bytes.

        Raises:
            LaunchError: The extent or the block is empty, or has more than three axes.
        """
        sides, threads = _three("extent", extent), _three("block", block)
        x, y, z = (ceil_div(side, count) for side, count in zip(sides, threads, strict=True))
        return cls((x, y, z), threads, shared_bytes)

    def check(self, limits: DeviceLimits, static_shared_bytes: int = 0) -> None:
        """Compare the launch with the limits of a device.

        Args:
            limits: Limits of the device.
            static_shared_bytes: Static shared memory of the kernel, in bytes.

        Raises:
            LaunchError: A size exceeds its limit or is zero; the message states the requested and the allowed size.
        """
        for what, sides, most in (("block", self.block, limits.block), ("grid", self.grid, limits.grid)):
            _three(what, sides)
            if any(side > limit for side, limit in zip(sides, most, strict=True)):
                raise LaunchError(f"a {what} of {sides} exceeds this device's limit of {most}")
        if math.prod(self.block) > limits.threads_per_block:
            raise LaunchError(
                f"a block of {self.block} has {math.prod(self.block)} threads; this device takes up to "
                f"{limits.threads_per_block}"
            )
        shared = self.shared_bytes + static_shared_bytes
        if self.shared_bytes < 0 or shared > limits.shared_bytes:
            raise LaunchError(
                f"{shared} bytes of shared memory per block ({static_shared_bytes} of them static) are requested; this "
                f"device has {limits.shared_bytes}"
            )


class PackedArguments:
    """Arguments of one kernel, in memory as the driver expects them; any number of launches may use them.

    Args:
        kernel: Name of the kernel, for messages.
        arguments: NumPy scalars of the kernel's exact types (``np.int32(7)``, ``np.float32(0.5)``; a struct as an
            aligned structured scalar); for pointers, any object with an attribute ``pointer``, whose owner must outlive
            the launches. Python numbers are rejected, because their width is not the kernel's.
        parameters: Parameters that the kernel declares (:attr:`yolact_plugins.driver.cubin.Cubin.parameters`).

    Raises:
        LaunchError: The number or sizes of the arguments differ from the declaration, or the size of an argument's type
            is unknown.

    Attributes:
        address: Address of an array with the address of each argument: ``kernelParams`` of ``cuLaunchKernel``.
    """

    def __init__(self, kernel: str, arguments: Sequence[Any], parameters: Sequence[Parameter]) -> None:
        if len(arguments) != len(parameters):
            raise LaunchError(f"{kernel} takes {len(parameters)} arguments, not {len(arguments)}")
        # Zero-dimensional arrays, whose memory stays in place as long as they live.
        self._values = [_as_value(kernel, i, argument) for i, argument in enumerate(arguments)]
        for i, (value, parameter) in enumerate(zip(self._values, parameters, strict=True)):
            if value.nbytes != parameter.size:
                raise LaunchError(
                    f"argument {i} of {kernel} is {value.dtype} of {value.nbytes} bytes; the kernel reads "
                    f"{parameter.size} bytes there"
                )
        self._owners = tuple(arguments)
        # One more than needed, because an empty array has no useful address.
        self._addresses = (ctypes.c_void_p * (len(self._values) + 1))(*[value.ctypes.data for value in self._values])
        self.address = ctypes.addressof(self._addresses)

    def __len__(self) -> int:
        return len(self._values)

    def replace(self, index: int, argument: Any) -> None:
        """Replace the value of an argument in the same memory, for example with a new frame's pointer.

        Launches that are already in a stream keep the old value, which the driver has copied.

        Raises:
            LaunchError: The new value has another size than the old one.
        """
        value = _as_value("the kernel", index, argument)
        if value.dtype != self._values[index].dtype:
            raise LaunchError(f"argument {index} is {self._values[index].dtype}; it cannot become {value.dtype}")
        self._values[index][...] = value
        self._owners = (*self._owners[:index], argument, *self._owners[index + 1 :])


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide two integers and round up."""
    return -(-numerator // denominator)


def _three(what: str, sides: Sequence[int]) -> tuple[int, int, int]:
    if not 1 <= len(sides) <= 3 or any(side < 1 for side in sides):
        raise LaunchError(f"a {what} has one to three sides of at least 1; found {tuple(sides)}")
    x, y, z = (*sides, 1, 1)[:3]
    return int(x), int(y), int(z)


def _as_value(kernel: str, index: int, argument: Any) -> Any:
    """Return a zero-dimensional array of the argument's bytes."""
    pointer = getattr(argument, "pointer", None)
    if isinstance(pointer, int):
        return np.array(pointer, np.uint64)
    if isinstance(argument, np.void) and argument.dtype.fields and not argument.dtype.isalignedstruct:
        raise LaunchError(
            f"argument {index} of {kernel} is a struct without the compiler's padding: make its dtype with align=True"
        )
    if isinstance(argument, np.generic) and not argument.dtype.hasobject:
        return np.array(argument)
    raise LaunchError(
        f"argument {index} of {kernel} is {argument!r} ({type(argument).__name__}); give a NumPy scalar of the "
        f"kernel's exact type, such as np.int32({argument!r}), or an object with a device pointer"
    )
