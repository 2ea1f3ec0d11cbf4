"""Modules, and launches of their kernels: arguments in the driver's form, code as host C++."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from support.host_gpu.faults import HostGpuError, Status
from support.host_gpu.handles import Handles
from support.host_gpu.memory import HostMemory, Range
from support.host_gpu.streams import HostStreams, Stream, Work
from support.kernel_host import KERNELS, HostKernelError, HostKernels, entry_points
from yolact_plugins.driver.cubin import Parameter, kernel_parameters
from yolact_plugins.errors import KernelCompileError

__all__ = ["KernelCalls"]

_DEFAULT_SHARED_BYTES = 48 * 1024
_LIMITS = (2**31 - 1, 65535, 65535, 1024, 1024, 64)
_MAX_THREADS = 1024
_NO_BITS = 8
"""Type of an ELF section that has no bytes in the file."""
Values = Sequence[npt.NDArray[np.uint8]]


@dataclass(eq=False)
class Module:
    """A cubin, of which only the parameters of its kernels are used."""

    parameters: dict[str, tuple[Parameter, ...]]
    is_loaded: bool = True


@dataclass(eq=False)
class Function:
    """A kernel of a module."""

    name: str
    module: Module
    shared_bytes: int = _DEFAULT_SHARED_BYTES

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Parameters of the kernel, from the cubin."""
        return self.module.parameters[self.name]


@dataclass(frozen=True)
class HostSource:
    """Source of a kernel, and which of its parameters are addresses."""

    family: str
    addresses: tuple[bool, ...]


class KernelCalls:
    """Modules by handle, and kernels by name.

    Args:
        memory: Memory that kernels may write to.
        streams: Streams that launches are enqueued in.
        handles: Handles of modules and streams.

    Attributes:
        runs: Number of kernels that have run, including those of graphs.
    """

    def __init__(self, memory: HostMemory, streams: HostStreams, handles: Handles) -> None:
        self._memory, self._streams, self._handles = memory, streams, handles
        self.runs = 0

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Return the functions by their names in the driver."""
        return {
            "cuModuleLoadData": self._load,
            "cuModuleUnload": self._unload,
            "cuModuleGetFunction": self._function,
            "cuFuncSetAttribute": self._allow_shared_bytes,
            "cuLaunchKernel": self._launch,
        }

    def _load(self, address: int) -> int:
        try:
            return self._handles.put(Module(kernel_parameters(_read_elf(address))))
        except KernelCompileError as error:
            raise HostGpuError(Status.INVALID_IMAGE, str(error)) from error

    def _unload(self, handle: Any) -> None:
        self._handles.drop(handle, Module).is_loaded = False

    def _function(self, handle: Any, name: bytes) -> Function:
        module = self._handles.get(handle, Module)
        if name.decode() not in module.parameters:
            raise HostGpuError(Status.NOT_FOUND, f"the module has no kernel {name.decode()}")
        return Function(name.decode(), module)

    def _allow_shared_bytes(self, function: Function, attribute: Any, value: int) -> None:
        if attribute.name != "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES":
            raise HostGpuError(Status.NOT_SUPPORTED, f"{attribute.name} is not known here")
        function.shared_bytes = value

    def _launch(self, function: Function, *numbers: int) -> None:
        shape, (shared_bytes, handle, address, _extra) = numbers[:6], numbers[6:]
        stream = self._handles.get(handle, Stream)
        _require_loaded(function)
        if not all(1 <= side <= limit for side, limit in zip(shape, _LIMITS, strict=True)):
            raise HostGpuError(Status.INVALID_VALUE, f"{function.name}: a grid and a block of {shape} cannot be")
        if math.prod(shape[3:]) > _MAX_THREADS or shared_bytes > function.shared_bytes:
            raise HostGpuError(Status.INVALID_VALUE, f"{function.name}: too many threads, or too much shared memory")
        values = _copy_arguments(function, address)
        pointers = self._pointers(function, values)

        def work() -> None:
            self._require_pointers(function, pointers)
            self._run(function, shape, values)
            self._memory.require_intact(pointers, function.name)

        self._require_pointers(function, pointers)
        self._streams.enqueue(stream, Work(work, f"the kernel {function.name}", pointers))

    def _pointers(self, function: Function, values: Values) -> tuple[Range, ...]:
        """Return the addresses among the arguments, without null; only the kernel knows how much it uses."""
        source = _sources().get(function.name)
        if source is None:
            raise HostGpuError(Status.NOT_FOUND, f"{function.name} is none of the package's kernels")
        # Another number of them is an error that the launch itself finds.
        pairs = zip(values, source.addresses, strict=False)
        found = [int.from_bytes(value.tobytes(), "little") for value, is_address in pairs if is_address]
        return tuple((pointer, 0) for pointer in found if pointer)

    def _require_pointers(self, function: Function, pointers: Sequence[Range]) -> None:
        _require_loaded(function)
        for pointer, size in pointers:
            self._memory.require(pointer, size, f"an argument of {function.name}")

    def _run(self, function: Function, shape: Sequence[int], values: Values) -> None:
        self.runs += 1
        try:
            kernels = HostKernels.of(_sources()[function.name].family)
            kernels.run_packed(function.name, shape[:3], shape[3:], values)
        except HostKernelError as error:
            raise HostGpuError(Status.LAUNCH_FAILED, str(error)) from error


@functools.cache
def _sources() -> dict[str, HostSource]:
    """Return the sources of all families, by the name of the kernel."""
    return {
        name: HostSource(path.stem, addresses)
        for path in KERNELS.glob("*.cu")
        for name, addresses in entry_points(path).items()
    }


def _require_loaded(function: Function) -> None:
    if not function.module.is_loaded:
        raise HostGpuError(Status.INVALID_HANDLE, f"the module of {function.name} was unloaded")


def _copy_arguments(function: Function, address: int) -> Values:
    """Copy the bytes of every argument, as the driver does when a kernel is launched."""
    addresses = (ctypes.c_void_p * len(function.parameters)).from_address(address)
    return [
        np.frombuffer(ctypes.string_at(argument, parameter.size), np.uint8)
        for argument, parameter in zip(addresses, function.parameters, strict=True)
    ]


def _read_elf(address: int) -> bytes:
    """Read a file in memory up to its end, which is that of its table of sections or of a section."""
    header = ctypes.string_at(address, 64)
    if not header.startswith(b"\x7fELF"):
        raise HostGpuError(Status.INVALID_IMAGE, "this is not machine code")
    (table,) = struct.unpack_from("<Q", header, 0x28)
    entry, count = struct.unpack_from("<HH", header, 0x3A)
    ends = [table + entry * count]
    for i in range(count):
        kind, offset, size = struct.unpack_from("<4xI16xQQ", ctypes.string_at(address + table + i * entry, 40))
        ends.append(0 if kind == _NO_BITS else offset + size)
    return ctypes.string_at(address, max(ends))
