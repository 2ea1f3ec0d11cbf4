"""The driver API wrapper: the checked call that everything else uses, and devices, streams and events.

NVIDIA's ``cuda-bindings`` is used directly, without ``cuda-core``, which never unloads code and has no mapped host
memory; docs/decisions.md compares them. Pinned memory must come from the driver's old allocator, because Jetsons have
no host memory pools. Nothing is imported before :func:`load_driver`, which first checks that there is a driver at all.

Work is enqueued in streams on a thread where the device is current (:meth:`Device.make_current`). Closing works on any
thread.
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
"""Advice for the errors that users meet, by error number in cuda.h."""
# After these errors "the process must be terminated and relaunched" (cuda.h): every later call fails.
_CONTEXT_LOST = frozenset({4, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719})


class Driver:
    """The loaded CUDA driver. Use :func:`load_driver` to create it.

    Attributes:
        gpu: The first GPU, and the newest CUDA version that the driver supports.
        context_lost: Text of the first error after which nothing works in this process; None if there was none.
    """

    def __init__(self, module: Any, gpu: Gpu) -> None:
        self._module = module
        self.gpu = gpu
        self.context_lost: str | None = None

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the driver.

        Args:
            function: Name of the function, such as ``"cuMemAlloc"``.
            arguments: Arguments in the form that ``cuda.bindings.driver`` expects.

        Returns:
            The function's results besides its status: None, a value, or a tuple of several.

        Raises:
            CudaOutOfMemoryError: GPU memory or pinned memory is exhausted.
            CudaContextLostError: The process can no longer use the GPU.
            CudaError: The call failed in any other way.
        """
        status, values = self._call(function, arguments)
        if status != _SUCCESS:
            raise self._error(function, status)
        if len(values) > 1:
            return values
        return values[0] if values else None

    def is_done(self, query: str, handle: Any) -> bool:
        """Call ``cuStreamQuery`` or ``cuEventQuery``, for which "not ready" is a result and not an error."""
        status, _ = self._call(query, (handle,))
        if status not in {_SUCCESS, _NOT_READY}:
            raise self._error(query, status)
        return status == _SUCCESS

    def constant(self, enumeration: str, name: str) -> Any:
        """Return a value of one of cuda.h's enumerations, as the binding's functions require."""
        return getattr(getattr(self._module, enumeration), name)

    def _call(self, function: str, arguments: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        try:
            status, *values = getattr(self._module, function)(*arguments)
        except RuntimeError as error:
            # The binding raises this if the driver's library lacks a function.
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
                # The error is newer than the binding.
                continue
            if int(known) == _SUCCESS and text:
                words.append(text.decode("utf-8", "replace"))
        kind = CudaOutOfMemoryError if status == _OUT_OF_MEMORY else CudaError
        text = f"{function} failed: {': '.join(words)}{_HINTS.get(status, '')}"
        return self._lost(text) if status in _CONTEXT_LOST else kind(text)

    def _lost(self, text: str) -> CudaContextLostError:
        if self.context_lost is None:
            self.context_lost = text
            # Logged here, because the first call that fails may be one that closes something and raises nothing.
            _log.error("the GPU's context is lost: %s", text)
            return CudaContextLostError(f"{text}. The GPU's context is lost; start the process again")
        return CudaContextLostError(
            f"the GPU's context is lost (first error: {self.context_lost}); start the process again"
        )


@functools.lru_cache(maxsize=1)
def load_driver(library: str = LIBRARY) -> Driver:
    """Find the driver, then import its binding; once per process.

    Args:
        library: The driver's library, as the dynamic loader finds it.

    Raises:
        CudaUnavailableError: There is no driver or no GPU, or the driver does not start.
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
    """A GPU and its primary context, which PyTorch, CuPy and TensorRT share in the same process.

    It becomes current on the calling thread. The context is released when the device and everything created on it are
    closed.

    Args:
        ordinal: Number of the GPU, as arranged by ``CUDA_VISIBLE_DEVICES``.
        driver: The loaded driver; None loads it.

    Raises:
        CudaError: There is no such GPU, or its context cannot be created. See :func:`load_driver` for more.

    Attributes:
        driver: The loaded driver, shared by all devices.
        ordinal: Number of the GPU, counted from 0.
        name: Name of the GPU, such as ``"Orin"``.
        compute_capability: Compute capability, such as ``(8, 7)``.
        arch: GPU architecture that kernels are compiled for, such as ``"sm_87"``.
        integrated: Whether CPU and GPU share one memory, as on a Jetson, where mapped memory needs no copy.
        num_multiprocessors: Number of multiprocessors, for grids that fill the device.
        limits: Limits of a kernel launch.
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
        """Make this the device of the calling thread; required once for each thread that enqueues work."""
        self.require_open()
        self.driver.call("cuCtxSetCurrent", self._context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the thread's device for the block and restore the previous one.

        Works while the device is closing, too.
        """
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
        """Return whether both are the same GPU and context, and thus share their memory."""
        return self is other or (self.driver is other.driver and self.ordinal == other.ordinal)

    def synchronize(self) -> None:
        """Wait for all work on this device. Not for use in the frame pipeline."""
        self.require_open()
        with self.current():
            self.driver.call("cuCtxSynchronize")

    def memory_bytes(self) -> tuple[int, int]:
        """Return the free and total memory in bytes. On a Jetson, free memory does not include the page cache."""
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
    """A queue of work on a device, owned or borrowed; it does not wait for the legacy default stream.

    Args:
        device: The device that runs the work; kept alive.
        borrowed: Handle of a stream that its creator closes, such as ``torch.cuda.Stream.cuda_stream``.

    Attributes:
        device: The device that runs the work.
        handle: Handle as an integer, for TensorRT's ``execute_async_v3`` and others.
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
        """Return protocol version 0 and the handle; cuda-core, CuPy and others accept foreign streams so."""
        return 0, self.handle

    def synchronize(self) -> None:
        """Wait until all work in the stream is done.

        Raises:
            CudaError: This call, or earlier work in the stream, failed.
        """
        self.require_open()
        self.device.driver.call("cuStreamSynchronize", self.handle)

    def is_done(self) -> bool:
        """Return whether all work in the stream is done, without waiting."""
        self.require_open()
        return self.device.driver.is_done("cuStreamQuery", self.handle)

    def wait_for(self, event: Event) -> None:
        """Make future work in the stream wait, on the device, for the work that `event` recorded."""
        self.require_open()
        event.require_open()
        self.device.driver.call("cuStreamWaitEvent", self.handle, event.handle, 0)

    def _release(self) -> None:
        if not self._borrowed:
            with self.device.current():
                self.device.driver.call("cuStreamDestroy", self.handle)


class Event(Owned):
    """A marker in a stream.

    Args:
        device: The device of the streams to record in; kept alive.
        timing: Whether it records a time, which makes recording slower.

    Attributes:
        handle: Handle as an integer.
    """

    def __init__(self, device: Device, *, timing: bool = False) -> None:
        device.require_open()
        self.device = device
        with device.current():
            # Block instead of spinning while waiting: a robot needs its cores for other threads.
            flags = _BLOCKING_SYNC | (0 if timing else _DISABLE_TIMING)
            self.handle = int(device.driver.call("cuEventCreate", flags))
        super().__init__(device)

    def record(self, stream: Stream) -> None:
        """Mark this position in the stream, replacing an earlier mark."""
        self.require_open()
        stream.require_open()
        self.device.driver.call("cuEventRecord", self.handle, stream.handle)

    def record_in_graph(self, stream: Stream) -> None:
        """Make the mark a part of the captured work: every launch of the graph sets it again.

        A plain mark in a capture only orders the captured work. Wait for the stream, not for the event: until the graph
        has reached the mark, the event is that of an earlier launch. ``CU_EVENT_RECORD_EXTERNAL``, cuda.h.

        Raises:
            CudaError: The stream is not being captured.
        """
        self.require_open()
        stream.require_open()
        self.device.driver.call("cuEventRecordWithFlags", self.handle, stream.handle, _RECORD_EXTERNAL)

    def synchronize(self) -> None:
        """Wait for the mark; return at once if nothing was recorded."""
        self.require_open()
        self.device.driver.call("cuEventSynchronize", self.handle)

    def is_done(self) -> bool:
        """Return whether the mark is reached, without waiting."""
        self.require_open()
        return self.device.driver.is_done("cuEventQuery", self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Return the time in milliseconds between two reached marks of events created with `timing`."""
        self.require_open()
        earlier.require_open()
        return float(self.device.driver.call("cuEventElapsedTime", earlier.handle, self.handle))

    def _release(self) -> None:
        with self.device.current():
            self.device.driver.call("cuEventDestroy", self.handle)
