"""Pytest plugin: the kernel tests, which run the sources as host C++, run the machine code on a GPU instead.

``python -m pytest -p support.on_device tests/plugins/kernels`` (with ``tests`` on ``PYTHONPATH``). Each array argument
of a kernel is copied, with its content, between two guard zones into GPU memory of its own; the kernel is launched, and
the bytes are copied back into the same array. The references, poisoned outputs and random cases of the project's own
tests therefore verify the GPU's machine code. A changed guard zone, or a launch that fails, is an error.

Every process that launched something adds a line to the file named by ``YOLACT_GPU_LAUNCHES``: passing tests without
such a line have tested nothing. ``YOLACT_GPU_DRIVER`` names a simulated driver for a dry run, see
:func:`yolact_benchmarks.studies.gpu.stage_options.open_device`.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.kernel_host import SANITIZE, KernelRunner, run_kernels_by
from yolact_benchmarks.studies.gpu.stage_options import open_device
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.sources import read_source
from yolact_plugins.driver.driver import Device, Stream
from yolact_plugins.driver.launch import LaunchConfig
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.driver.module import Module

__all__ = ["DeviceKernels", "byte_span"]

# Under compute-sanitizer an argument has an allocation to itself, so that a read beside it is seen, too.
_GUARD_BYTES, _GUARD = 0 if SANITIZE else 1024, 0xA5
Bytes = npt.NDArray[np.uint8]


class DeviceKernels:
    """A :class:`support.kernel_host.KernelRunner` that runs the kernels of a family on a device.

    Attributes:
        num_launches: Number of launches of all families in this process.
    """

    num_launches = 0

    def __init__(self, device: Device, stream: Stream, family: str) -> None:
        self._device, self._stream = device, stream
        self._module = Module(device, CubinCache().get(read_source(family), device.arch))

    def __call__(
        self, name: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], seed: int = 0
    ) -> None:
        """Run a kernel to its end; `seed` is ignored, because a GPU orders threads itself."""
        del seed
        # The host runs an empty grid as nothing; CUDA refuses it.
        if not all(grid):
            return
        self._device.make_current()
        with ExitStack() as stack:
            copies = {
                i: self._upload(stack, byte_span(argument))
                for i, argument in enumerate(arguments)
                if isinstance(argument, np.ndarray)
            }
            packed = [
                copies[i].array((1,), np.uint8, _GUARD_BYTES) if i in copies else argument
                for i, argument in enumerate(arguments)
            ]
            self._module.kernel(name).launch(self._stream, LaunchConfig(_three(grid), _three(block)), *packed)
            for i, buffer in copies.items():
                self._download(name, i, buffer, byte_span(arguments[i]))
        type(self).num_launches += 1

    def close(self) -> None:
        """Unload the code."""
        self._module.close()

    def _upload(self, stack: ExitStack, content: Bytes) -> DeviceBuffer:
        buffer = stack.enter_context(DeviceBuffer(self._device, max(len(content), 1) + 2 * _GUARD_BYTES))
        guarded = np.full(buffer.num_bytes, _GUARD, np.uint8)
        guarded[_GUARD_BYTES : _GUARD_BYTES + len(content)] = content
        buffer.array((buffer.num_bytes,), np.uint8).upload(guarded, self._stream)
        self._stream.synchronize()
        return buffer

    def _download(self, name: str, number: int, buffer: DeviceBuffer, into: Bytes) -> None:
        guarded = buffer.array((buffer.num_bytes,), np.uint8).numpy(self._stream)
        end = _GUARD_BYTES + len(into)
        outside = np.concatenate([guarded[:_GUARD_BYTES], guarded[end:]])
        assert (outside == _GUARD).all(), f"{name} wrote outside its argument {number}"
        into[:] = guarded[_GUARD_BYTES:end]


def byte_span(array: npt.NDArray[Any]) -> Bytes:
    """Return a view of the bytes from the first to the last element, including gaps; strides must be positive."""
    if not array.size:
        return np.zeros(0, np.uint8)
    sides = zip(array.shape, array.strides, strict=True)
    length = sum((side - 1) * stride for side, stride in sides) + array.itemsize
    memory: Any = (ctypes.c_uint8 * length).from_address(array.ctypes.data)
    return np.frombuffer(memory, np.uint8)


def _three(counts: Sequence[int]) -> tuple[int, int, int]:
    x, y, z, *_ = (*map(int, counts), 1, 1)
    return x, y, z


@functools.cache
def _opened() -> tuple[Device, Stream]:
    device = open_device()
    return device, Stream(device)


@functools.cache
def _kernels(family: str) -> KernelRunner:
    return DeviceKernels(*_opened(), family)


def pytest_configure() -> None:
    """Set the runner before test modules are imported, because these ask whether kernels can run."""
    run_kernels_by(_kernels)


def pytest_sessionfinish() -> None:
    """Write the number of launches; workers of pytest-xdist count separately."""
    path = os.environ.get("YOLACT_GPU_LAUNCHES")
    if path and DeviceKernels.num_launches:
        with Path(path).open("a") as file:
            file.write(f"{DeviceKernels.num_launches} kernel launches on {_opened()[0].name}\n")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of launches, in case no file is named."""
    terminalreporter.write_line(f"on_device: {DeviceKernels.num_launches} kernel launches in this process")
