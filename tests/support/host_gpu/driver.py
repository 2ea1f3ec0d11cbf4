"""The simulated GPU as :class:`yolact_plugins.driver.driver.Driver`, with functions that tests use to inspect it."""

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
    """Number of requests and operations of a driver since it was made; subtract two of them for a period.

    Attributes:
        allocations: Number of allocations of device, pinned and mapped memory together, including refused ones.
        synchronisations: Number of waits for a stream, an event or the context; a copy to pageable memory is one, too.
        launches: Number of kernel launches, including captured ones.
        graph_launches: Number of graph launches.
        kernel_runs: Number of kernels that have run, including those of graphs.
    """

    allocations: int
    synchronisations: int
    launches: int
    graph_launches: int
    kernel_runs: int

    def __sub__(self, earlier: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(earlier, name) for name in self.__dataclass_fields__))


class HostDriver(Driver):
    """Driver of the simulated GPU; see the package.

    Args:
        integrated: Whether CPU and GPU report shared memory, as on a Jetson.
        order: Seed of the execution order, see :class:`support.host_gpu.streams.HostStreams`.
        memory_bytes: Size of the GPU's memory.
        strict_free: Whether freeing memory that pending work uses is an error; otherwise it waits for everything, as
            CUDA does.
    """

    def __init__(
        self, *, integrated: bool = False, order: int = 0, memory_bytes: int = 4 << 30, strict_free: bool = False
    ) -> None:
        self.library = HostLibrary(integrated, order, memory_bytes, strict_free)
        super().__init__(self.library, Gpu("Host", "8.7", "13.0"))

    def enqueue(self, stream: int, work: Callable[[], object], touches: Sequence[Range] = ()) -> None:
        """Enqueue a Python function in a stream, or in what the stream captures.

        Args:
            stream: Handle of the stream.
            work: Function called in stream order, on whatever thread waits; an exception reaches the waiting caller.
            touches: First addresses and sizes of the memory that it uses, which must not be freed before.

        Raises:
            CudaError: The stream does not exist, or its capture is invalid.
        """
        with self.library.lock, _as_cuda_error("enqueue"):
            target = self.library.handles.get(stream, Stream)
            self.library.streams.enqueue(target, Work(work, "a function", tuple(touches)))

    def view(self, pointer: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the GPU's memory as an array, without waiting for anything.

        Raises:
            CudaError: The range is not wholly inside one live allocation that the GPU can access.
        """
        with self.library.lock, _as_cuda_error("view"):
            return self.library.memory.view(pointer, shape, dtype)

    @contextmanager
    def recording(self) -> Iterator[list[str]]:
        """Record the names of the driver's functions that are called inside the block, from any thread."""
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
        """Return the counts so far."""
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
        """Return number and bytes of the allocations by kind: "device", "pinned" and "mapped"."""
        with self.library.lock:
            sizes: dict[str, list[int]] = {}
            for allocation in self.library.memory.live():
                sizes.setdefault(allocation.kind, []).append(allocation.size)
        return {kind: (len(each), sum(each)) for kind, each in sizes.items()}

    def leaks(self) -> list[str]:
        """Return what was not released, and writes outside of allocations."""
        with self.library.lock:
            library = self.library
            contexts = [f"{library.contexts.retained} contexts"] if library.contexts.retained else []
            allocations = [str(allocation) for allocation in library.memory.live()]
            return [*allocations, *library.handles.live(), *library.memory.damage(), *contexts]


@contextmanager
def host_gpu(**options: Any) -> Iterator[Device]:
    """Open a device on a simulated GPU of its own, and assert that everything is released at the end.

    Args:
        options: Options of :class:`HostDriver`.
    """
    driver = HostDriver(**options)
    with Device(driver=driver) as device:
        yield device
    assert driver.leaks() == []


@functools.cache
def _kernel_folder() -> Path:
    """Return the cache folder beside the host libraries, shared by all processes of this run and later ones.

    The cache's own key covers the sources and the compiler; the name of the folder covers the modules that call the
    compiler.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(compile_package.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return BUILT / f"cubins-{digest.hexdigest()[:24]}"


def host_cubins() -> CubinCache:
    """Return the machine code of the package's kernels, each family compiled once for all processes."""
    return CubinCache(_kernel_folder())


def share_kernels(patch: pytest.MonkeyPatch) -> None:
    """Compile kernels once for all tests, and keep the user's cache untouched."""
    patch.setattr("yolact_plugins.compile.cache.default_cache_folder", _kernel_folder)


@contextmanager
def _as_cuda_error(what: str) -> Iterator[None]:
    try:
        yield
    except HostGpuError as error:
        raise CudaError(f"{what} failed: CUDA error {int(error.status)}: {error}") from error
