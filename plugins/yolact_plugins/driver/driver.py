"""The CUDA driver behind a small face: the checked call that everything else is made of, device, stream, event.

NVIDIA's ``cuda-bindings`` is used as it is, without ``cuda-core`` above it: some thirty calls are needed, and pinned
memory must come from the driver's old allocator, because Jetsons have no pools of host memory. Nothing is imported
before :func:`load_driver`, which first makes sure that there is a driver at all.

Work is given to streams on a thread where the device is current (:meth:`Device.make_current`). Closing works anywhere.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yolact_plugins.driver.cubin import arch_name
from yolact_plugins.driver.gpu import LIBRARY, Gpu, cuda_extra, find_gpu
from yolact_plugins.driver.launch import DeviceLimits
from yolact_plugins.driver.ownership import Owned, close_after_failure
from yolact_plugins.errors import (
    CudaContextLostError,
    CudaError,
    CudaOutOfMemoryError,
    CudaUnavailableError,
    MissingDependencyError,
)

__all__ = ["Device", "Driver", "Event", "Stream", "load_driver"]

_log = logging.getLogger(__name__)
_SUCCESS, _NOT_READY, _OUT_OF_MEMORY = 0, 600, 2
_NON_BLOCKING, _BLOCKING_SYNC, _DISABLE_TIMING, _RECORD_EXTERNAL = 1, 1, 2, 1
_HINTS = {
    2: "; use a smaller batch or fewer segmenters, or end other programs on this GPU",
    200: "; the cubin is damaged, or was compiled with a newer CUDA than this driver knows",
    209: "; the cubin is not for this GPU: compile it for the architecture of the device",
    222: "; the code was compiled with a newer CUDA than this driver knows: use an NVRTC that is no newer than it",
    214: "; the GPU's memory is damaged: nvidia-smi -q -d ECC shows how often",
    700: "; a kernel left its memory: compute-sanitizer shows which",
    702: "; a kernel ran for longer than the display's watchdog allows",
}
"""By number in cuda.h, for the errors that users meet."""
# After these "the process must be terminated and relaunched", cuda.h: every later call fails.
_CONTEXT_LOST = frozenset({4, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719})


class Driver:
    """The driver, loaded. Make it with :func:`load_driver`.

    Attributes:
        gpu: The first GPU, and the newest CUDA that the driver knows.
        context_lost: The first error after which nothing works in this process; None while all is well.
    """

    def __init__(self, module: Any, gpu: Gpu) -> None:
        self._module = module
        self.gpu = gpu
        self.context_lost: str | None = None

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the driver.

        Args:
            function: Such as ``"cuMemAlloc"``.
            arguments: As ``cuda.bindings.driver`` takes them.

        Returns:
            What the function returns besides its status: None, a value, or a tuple of several.

        Raises:
            CudaOutOfMemoryError: The GPU, or pinned memory, is used up.
            CudaContextLostError: The process can use the GPU no more.
            CudaError: Any other failure.
        """
        status, values = self._call(function, arguments)
        if status != _SUCCESS:
            raise self._error(function, status)
        if len(values) > 1:
            return values
        return values[0] if values else None

    def is_done(self, query: str, handle: Any) -> bool:
        """Ask ``cuStreamQuery`` or ``cuEventQuery``, for which "not ready" is an answer and no failure."""
        status, _ = self._call(query, (handle,))
        if status not in {_SUCCESS, _NOT_READY}:
            raise self._error(query, status)
        return status == _SUCCESS

    def constant(self, enumeration: str, name: str) -> Any:
        """A value of one of cuda.h's enumerations; functions of the binding insist on the type."""
        return getattr(getattr(self._module, enumeration), name)

    def _call(self, function: str, arguments: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        try:
            status, *values = getattr(self._module, function)(*arguments)
        except RuntimeError as error:
            # How the binding says that the driver's library lacks a function.
            raise CudaError(
                f"{function} cannot be called: {error}. The driver knows CUDA {self.gpu.cuda_version}; install the "
                f'cuda-bindings of that version: pip install "cuda-bindings=={self.gpu.cuda_version.split(".")[0]}.*"'
            ) from error
        return int(status), tuple(values)

    def _error(self, function: str, status: int) -> CudaError:
        words = [f"CUDA error {status}"]
        for describe in ("cuGetErrorName", "cuGetErrorString"):
            try:
                known, text = getattr(self._module, describe)(self._module.CUresult(status))
            except ValueError:
                # An error that is newer than the binding.
                continue
            if int(known) == _SUCCESS and text:
                words.append(text.decode("utf-8", "replace"))
        kind = CudaOutOfMemoryError if status == _OUT_OF_MEMORY else CudaError
        text = f"{function} failed: {': '.join(words)}{_HINTS.get(status, '')}"
        return self._lost(text) if status in _CONTEXT_LOST else kind(text)

    def _lost(self, text: str) -> CudaContextLostError:
        if self.context_lost is None:
            self.context_lost = text
            # Here, because the first call that meets it may be one of closing something, which raises nothing.
            _log.error("the GPU's context is lost: %s", text)
            return CudaContextLostError(f"{text}. The GPU's context is lost; start the process again")
        return CudaContextLostError(
            f"the GPU's context is lost (first error: {self.context_lost}); start the process again"
        )


@functools.lru_cache(maxsize=1)
def load_driver(library: str = LIBRARY) -> Driver:
    """Find the driver, then import its binding; once per process.

    Args:
        library: The driver's library, as the loader finds it.

    Raises:
        CudaUnavailableError: No driver, a driver that does not start, or no GPU.
        MissingDependencyError: ``cuda-bindings`` is not installed.
    """
    gpu = find_gpu(library)
    try:
        module = importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("cuda-bindings", "Computing on the GPU", cuda_extra(gpu.cuda_version)) from error
    except ImportError as error:
        raise CudaUnavailableError(f"cuda-bindings is installed and does not load: {error}; reinstall it") from error
    driver = Driver(module, gpu)
    driver.call("cuInit", 0)
    return driver


class Device(Owned):
    """A GPU and its primary context, which is shared with PyTorch, CuPy and TensorRT in the same process.

    Becomes current on the calling thread. The context is given back when the device and everything made on it are
    closed.

    Args:
        ordinal: Which GPU, as ``CUDA_VISIBLE_DEVICES`` arranges them.
        driver: None loads it.

    Raises:
        CudaError: No such GPU, or its context cannot be made. See :func:`load_driver` for more.

    Attributes:
        driver: The driver.
        ordinal: As given.
        name: Such as ``"Orin"``.
        compute_capability: ``(8, 7)``.
        arch: ``"sm_87"``, what kernels are compiled for.
        integrated: CPU and GPU share one memory, as on a Jetson: mapped memory needs no copy there.
        num_multiprocessors: For grids that fill the device.
        limits: Of a launch.
    """

    def __init__(self, ordinal: int = 0, driver: Driver | None = None) -> None:
        self.driver = driver or load_driver()
        self.ordinal = ordinal
        call = self.driver.call
        count = call("cuDeviceGetCount")
        if not 0 <= ordinal < count:
            raise CudaError(f"there is no GPU {ordinal}: the driver shows {count}, counted from 0")
        self._device = call("cuDeviceGet", ordinal)
        self.name = call("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode("utf-8", "replace")
        self.compute_capability = (
            self._attribute("COMPUTE_CAPABILITY_MAJOR"),
            self._attribute("COMPUTE_CAPABILITY_MINOR"),
        )
        self.arch = arch_name(self.compute_capability)
        self.integrated = bool(self._attribute("INTEGRATED"))
        self.num_multiprocessors = self._attribute("MULTIPROCESSOR_COUNT")
        self.limits = self._read_limits()
        self._context = call("cuDevicePrimaryCtxRetain", self._device)
        super().__init__()
        try:
            self.make_current()
        except BaseException:
            close_after_failure(self.close)
            raise

    def make_current(self) -> None:
        """Make this the device of the calling thread; each thread that gives work to it needs that once."""
        self.require_open()
        self.driver.call("cuCtxSetCurrent", self._context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the thread's device for the block, whatever it was before, also while the device is closing."""
        self.driver.call("cuCtxPushCurrent", self._context)
        try:
            yield
        except BaseException:
            close_after_failure(self._pop)
            raise
        self._pop()

    def _pop(self) -> None:
        self.driver.call("cuCtxPopCurrent")

    def is_same(self, other: Device) -> bool:
        """Both are the same GPU and context: memory of one is memory of the other."""
        return self is other or (self.driver is other.driver and self.ordinal == other.ordinal)

    def synchronize(self) -> None:
        """Wait for everything that was given to this device. Not for the path of a frame."""
        self.require_open()
        with self.current():
            self.driver.call("cuCtxSynchronize")

    def memory_bytes(self) -> tuple[int, int]:
        """Free and total memory. A Jetson's free memory does not count what the page cache would give back."""
        self.require_open()
        with self.current():
            free, total = self.driver.call("cuMemGetInfo")
        return int(free), int(total)

    def _release(self) -> None:
        self.driver.call("cuDevicePrimaryCtxRelease", self._device)

    def _attribute(self, name: str) -> int:
        attribute = self.driver.constant("CUdevice_attribute", f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self.driver.call("cuDeviceGetAttribute", attribute, self._device))

    def _read_limits(self) -> DeviceLimits:
        block_x, block_y, block_z = (self._attribute(f"MAX_BLOCK_DIM_{axis}") for axis in "XYZ")
        grid_x, grid_y, grid_z = (self._attribute(f"MAX_GRID_DIM_{axis}") for axis in "XYZ")
        return DeviceLimits(
            threads_per_block=self._attribute("MAX_THREADS_PER_BLOCK"),
            block=(block_x, block_y, block_z),
            grid=(grid_x, grid_y, grid_z),
            shared_bytes=self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        )


class Stream(Owned):
    """An order of work on a device, its own or borrowed; does not wait for the legacy default stream.

    Args:
        device: Where; kept alive.
        borrowed: Handle of a stream that somebody else made and closes, such as ``torch.cuda.Stream.cuda_stream``.

    Attributes:
        device: As given.
        handle: For TensorRT's ``execute_async_v3`` and others who want a number.
    """

    def __init__(self, device: Device, borrowed: int | None = None) -> None:
        device.require_open()
        self.device = device
        self._borrowed = borrowed is not None
        if borrowed is not None:
            self.handle = borrowed
        else:
            with device.current():
                self.handle = int(device.driver.call("cuStreamCreate", _NON_BLOCKING))
        super().__init__(device)

    def __cuda_stream__(self) -> tuple[int, int]:
        """The protocol by which cuda-core, CuPy and others accept a foreign stream: version 0 and the handle."""
        return 0, self.handle

    def synchronize(self) -> None:
        """Wait until everything in the stream is done.

        Raises:
            CudaError: Also for what failed earlier in the stream.
        """
        self.require_open()
        self.device.driver.call("cuStreamSynchronize", self.handle)

    def is_done(self) -> bool:
        """Everything in the stream is done; does not wait."""
        self.require_open()
        return self.device.driver.is_done("cuStreamQuery", self.handle)

    def wait_for(self, event: Event) -> None:
        """What is given to the stream from now on waits, on the device, for what `event` recorded."""
        self.require_open()
        event.require_open()
        self.device.driver.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def _release(self) -> None:
        if not self._borrowed:
            with self.device.current():
                self.device.driver.call("cuStreamDestroy", self.handle)


class Event(Owned):
    """A point in a stream.

    Args:
        device: Where; kept alive.
        timing: It carries a time, which makes recording it slower.

    Attributes:
        handle: The driver's number of it.
    """

    def __init__(self, device: Device, *, timing: bool = False) -> None:
        device.require_open()
        self.device = device
        with device.current():
            # Waiting sleeps: the thread of a robot has better to do than to spin on a core.
            flags = _BLOCKING_SYNC | (0 if timing else _DISABLE_TIMING)
            self.handle = int(device.driver.call("cuEventCreate", flags))
        super().__init__(device)

    def record(self, stream: Stream) -> None:
        """Mark this place of the stream; an earlier mark is forgotten."""
        self.require_open()
        stream.require_open()
        self.device.driver.call("cuEventRecord", self.handle, stream.handle)

    def record_in_graph(self, stream: Stream) -> None:
        """Make the mark a part of what the stream captures: every launch of the graph makes it anew.

        A plain mark in a capture only orders the captured work. Wait for the stream, not for the event: before the
        graph has come to the mark, the event is that of an earlier launch. ``CU_EVENT_RECORD_EXTERNAL``, cuda.h.

        Raises:
            CudaError: The stream is not being captured.
        """
        self.require_open()
        stream.require_open()
        self.device.driver.call("cuEventRecordWithFlags", self.handle, stream.handle, _RECORD_EXTERNAL)

    def synchronize(self) -> None:
        """Wait for the mark; returns at once where nothing was recorded."""
        self.require_open()
        self.device.driver.call("cuEventSynchronize", self.handle)

    def is_done(self) -> bool:
        """The mark is reached; does not wait."""
        self.require_open()
        return self.device.driver.is_done("cuEventQuery", self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Time on the device between two marks that are reached; both events were made with `timing`."""
        self.require_open()
        earlier.require_open()
        return float(self.device.driver.call("cuEventElapsedTime", earlier.handle, self.handle))

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuEventDestroy", self.handle)
