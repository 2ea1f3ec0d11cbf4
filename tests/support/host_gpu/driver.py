"""The host's GPU as :class:`yolact_plugins.driver.Driver`, with what tests want to know of it."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

from support.host_gpu.library import HostLibrary
from yolact_plugins.driver import Device, Driver
from yolact_plugins.gpu import Gpu

__all__ = ["HostDriver", "host_gpu", "share_kernels"]


class HostDriver(Driver):
    """See the package.

    Args:
        integrated: CPU and GPU say that they share their memory, as on a Jetson.
        order: See :class:`support.host_gpu.streams.HostStreams`.
        memory_bytes: Of the GPU.
    """

    def __init__(self, *, integrated: bool = False, order: int = 0, memory_bytes: int = 4 << 30) -> None:
        self.library = HostLibrary((8, 7), integrated, order, memory_bytes)
        super().__init__(self.library, Gpu("Host", "8.7", "13.0"))

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Put a Python function into a stream, or into what it captures."""
        self.library.streams.enqueue(self.library.stream(stream), work)

    def view(self, pointer: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The GPU's memory as it is now, as an array."""
        return self.library.memory.view(pointer, shape, dtype)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Names of the driver's functions that are called inside the block, from any thread."""
        calls: list[str] = []
        self.library.calls = calls
        try:
            yield calls
        finally:
            self.library.calls = None

    def leaks(self) -> list[str]:
        """What was not given back."""
        return self.library.live()


@contextmanager
def host_gpu(**options: Any) -> Iterator[Device]:
    """A device on a GPU of its own; at the end everything must have been given back."""
    driver = HostDriver(**options)
    with Device(driver=driver) as device:
        yield device
    assert driver.leaks() == []


@functools.cache
def _kernel_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="yolact-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def share_kernels(patch: pytest.MonkeyPatch) -> None:
    """Let kernels be compiled once for all tests of this process, and nothing be left in the user's cache."""
    patch.setattr("yolact_plugins.cache.default_cache_folder", _kernel_folder)
