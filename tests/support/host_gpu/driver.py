"""The host's GPU as :class:`yolact_plugins.driver.driver.Driver`, with what tests want to know of it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest

import yolact_plugins.compile as compile_package
from support.host_gpu.faults import HostGpuError
from support.host_gpu.library import HostLibrary
from support.host_gpu.memory import Range
from support.host_gpu.streams import Stream, Work
from support.kernel_host import BUILT
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.driver.driver import Device, Driver
from yolact_plugins.driver.gpu import Gpu
from yolact_plugins.errors import CudaError

__all__ = ["Counts", "HostDriver", "host_cubins", "host_gpu", "share_kernels"]


@dataclass(frozen=True)
class Counts:
    """What a driver was asked for, and did, since it was made. Differences say it of a time between.

    Attributes:
        allocations: Of device, pinned and mapped memory together, also refused ones.
        synchronisations: Waits for a stream, an event or the context; a copy to pageable memory is one, too.
        launches: Of kernels, also those that were captured.
        graph_launches: Of graphs.
        kernel_runs: Kernels that have run, those of graphs included.
    """

    allocations: int
    synchronisations: int
    launches: int
    graph_launches: int
    kernel_runs: int

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(earlier, name) for name in self.__dataclass_fields__))


class HostDriver(Driver):
    """See the package.

    Args:
        integrated: CPU and GPU say that they share their memory, as on a Jetson.
        order: See :class:`support.host_gpu.streams.HostStreams`.
        memory_bytes: Of the GPU.
        strict_free: Freeing what waiting work refers to is an error; else it waits for everything, as CUDA does.
    """

    def __init__(
        self, *, integrated: bool = False, order: int = 0, memory_bytes: int = 4 << 30, strict_free: bool = False
    ) -> None:
        self.library = HostLibrary(integrated, order, memory_bytes, strict_free)
        super().__init__(self.library, Gpu("Host", "8.7", "13.0"))

    def enqueue(self, stream: int, work: Callable[[], object], touches: Sequence[Range] = ()) -> None:
        """Put a Python function into a stream, or into what the stream captures.

        Args:
            stream: Its handle.
            work: Called when its turn comes, on whatever thread waits; an exception reaches who waits.
            touches: First addresses and numbers of bytes of what it uses, which may not be freed before.

        Raises:
            CudaError: No such stream, or its capture is invalid.
        """
        with self.library.lock, _as_cuda_error("enqueue"):
            target = self.library.handles.get(stream, Stream)
            self.library.streams.enqueue(target, Work(work, "a function", tuple(touches)))

    def view(self, pointer: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The GPU's memory as it is now, as an array; waits for nothing.

        Raises:
            CudaError: It is not wholly inside of one live allocation that the GPU reaches.
        """
        with self.library.lock, _as_cuda_error("view"):
            return self.library.memory.view(pointer, shape, dtype)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Names of the driver's functions that are called inside the block, from any thread."""
        calls: list[str] = []
        library = self.library
        with library.lock:
            library.recordings.append(calls)
        try:
            yield calls
        finally:
            with library.lock:
                # By identity: two empty lists are equal.
                library.recordings = [each for each in library.recordings if each is not calls]

    def counts(self) -> Counts:
        """So far."""
        with self.library.lock:
            called, memory, kernels = self.library.num_calls, self.library.memory_calls, self.library.kernel_calls
            return Counts(
                allocations=called["cuMemAlloc"] + called["cuMemHostAlloc"],
                synchronisations=sum(called[f"cu{of}Synchronize"] for of in ("Stream", "Event", "Ctx"))
                + memory.implicit_waits,
                launches=called["cuLaunchKernel"],
                graph_launches=called["cuGraphLaunch"],
                kernel_runs=kernels.runs,
            )

    def live_memory(self) -> dict[str, tuple[int, int]]:
        """By kind, "device", "pinned" and "mapped": number of allocations and their bytes, where there are any."""
        with self.library.lock:
            sizes: dict[str, list[int]] = {}
            for allocation in self.library.memory.live():
                sizes.setdefault(allocation.kind, []).append(allocation.size)
        return {kind: (len(each), sum(each)) for kind, each in sizes.items()}

    def leaks(self) -> list[str]:
        """What was not given back, and what was written where nothing belongs."""
        with self.library.lock:
            library = self.library
            contexts = [f"{library.contexts.retained} contexts"] if library.contexts.retained else []
            allocations = [str(allocation) for allocation in library.memory.live()]
            return [*allocations, *library.handles.live(), *library.memory.damage(), *contexts]


@contextmanager
def host_gpu(**options: Any) -> Iterator[Device]:
    """A device on a GPU of its own; at the end everything must have been given back.

    Args:
        options: Of :class:`HostDriver`.
    """
    driver = HostDriver(**options)
    with Device(driver=driver) as device:
        yield device
    assert driver.leaks() == []


@functools.cache
def _kernel_folder() -> Path:
    """Beside the host's libraries, for all processes of a run and of the next ones.

    The cache's own key has the sources and the compiler; the name has what asks the compiler and reads its answer.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(compile_package.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return BUILT / f"cubins-{digest.hexdigest()[:24]}"


def host_cubins() -> CubinCache:
    """Machine code of the package's kernels, each family compiled once for all processes."""
    return CubinCache(_kernel_folder())


def share_kernels(patch: pytest.MonkeyPatch) -> None:
    """Let kernels be compiled once for all tests, and nothing be left in the user's cache."""
    patch.setattr("yolact_plugins.compile.cache.default_cache_folder", _kernel_folder)


@contextmanager
def _as_cuda_error(what: str) -> Iterator[None]:
    try:
        yield
    except HostGpuError as error:
        raise CudaError(f"{what} failed: CUDA error {int(error.status)}: {error}") from error
