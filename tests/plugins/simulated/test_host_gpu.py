"""The GPU of host memory itself: it does what CUDA does, and notices what CUDA would punish or hide."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.host_gpu import Counts, HostDriver, host_cubins, host_gpu, share_kernels
from support.kernel_host import KERNELS, SHIM, entry_points
from support.tools import needs_tool
from yolact_plugins import reference
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.sources import families, read_source
from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.driver.foreign_array import take_array
from yolact_plugins.driver.launch import LaunchConfig
from yolact_plugins.driver.memory import DeviceBuffer, MappedBuffer, PinnedBuffer
from yolact_plugins.driver.module import Launch, Module
from yolact_plugins.errors import CudaError, CudaOutOfMemoryError

needs_compiler = needs_tool("g++")
REFUSED = "not permitted when stream is capturing"


@pytest.fixture
def device() -> Iterator[Device]:
    with host_gpu() as device:
        yield device


def driver_of(device: Device) -> HostDriver:
    assert isinstance(device.driver, HostDriver)
    return device.driver


def content(buffer: DeviceBuffer) -> npt.NDArray[np.uint8]:
    """As it is now, without waiting."""
    array: npt.NDArray[np.uint8] = driver_of(buffer.device).view(buffer.pointer, (buffer.num_bytes,), np.uint8)
    return array


def test_it_is_a_device_like_any_other(device: Device) -> None:
    assert (device.name, device.arch, device.driver.gpu.compute_capability) == ("Host", "sm_87", "8.7")
    assert not device.integrated
    assert device.limits.block == (1024, 1024, 64)
    with host_gpu(integrated=True) as other:
        assert other.integrated
    with pytest.raises(CudaError, match="cuMemAllocManaged cannot be called"):
        device.driver.call("cuMemAllocManaged", 1, 1)
    with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_HANDLE: 0x7 is not a Stream, or no longer one"):
        device.driver.call("cuStreamSynchronize", 7)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_poisoned_and_checked(device: Device) -> None:
    call = device.driver.call
    with DeviceBuffer(device, 8) as buffer, Stream(device) as stream:
        assert (content(buffer) == 0xCD).all()
        assert buffer.pointer % 256 == 0
        for function, arguments in {
            "cuMemcpyDtoDAsync": (buffer.pointer, buffer.pointer, 9),
            "cuMemsetD8Async": (buffer.pointer + 1, 0, 8),
            "cuMemsetD32Async": (buffer.pointer, 0, 3),
            "cuMemcpyHtoDAsync": (buffer.pointer - 1, np.zeros(8).ctypes.data, 8),
        }.items():
            with pytest.raises(
                CudaError, match=r"ILLEGAL_ADDRESS.* bytes at 0x.* are not the GPU's; there are 8 bytes"
            ):
                call(function, *arguments, stream.handle)
    with pytest.raises(CudaError, match="8 bytes of device memory were there and have been freed"):
        content(buffer)
    with pytest.raises(CudaError, match="is not device memory"):
        call("cuMemFree", buffer.pointer)


def test_pinned_memory_is_not_for_kernels_and_mapped_memory_is(device: Device) -> None:
    with PinnedBuffer(device, 8) as pinned, MappedBuffer(device, 8) as mapped:
        assert (mapped.host_array((8,), np.uint8) == 0xCD).all()
        mapped.host_array((8,), np.uint8)[:] = 7
        assert (driver_of(device).view(mapped.pointer, (8,), np.uint8) == 7).all()
        with pytest.raises(CudaError, match="are not the GPU's"):
            device.driver.call("cuMemHostGetDevicePointer", pinned.address, 0)


def test_the_host_side_of_a_copy_is_checked_too(device: Device) -> None:
    with DeviceBuffer(device, 16) as buffer, PinnedBuffer(device, 8) as pinned, Stream(device) as stream:
        for address in (pinned.address, pinned.address + 7, pinned.address - 8, buffer.pointer):
            with pytest.raises(CudaError, match=r"INVALID_VALUE.*16 bytes at 0x.* are not the host's"):
                device.driver.call("cuMemcpyHtoDAsync", buffer.pointer, address, 16, stream.handle)
        pinned.close()
        with pytest.raises(CudaError, match="8 bytes of pinned memory were there and have been freed"):
            device.driver.call("cuMemcpyDtoHAsync", pinned.address, buffer.pointer, 8, stream.handle)


def test_there_is_an_end_of_memory() -> None:
    with host_gpu(memory_bytes=1000) as device, DeviceBuffer(device, 600) as buffer:
        assert device.memory_bytes() == (400, 1000)
        with pytest.raises(CudaOutOfMemoryError):
            DeviceBuffer(device, 600)
        assert buffer.num_bytes == 600


def test_fills(device: Device) -> None:
    with DeviceBuffer(device, 8) as buffer, Stream(device) as stream:
        buffer.fill(3, stream)
        device.driver.call("cuMemsetD32Async", buffer.pointer + 4, 0x01020304, 1, stream.handle)
        assert (content(buffer) == 0xCD).all()
        stream.synchronize()
        assert content(buffer).tolist() == [3, 3, 3, 3, 4, 3, 2, 1]


def test_freeing_waits_unless_it_is_strict() -> None:
    with host_gpu() as device, Stream(device) as stream:
        done: list[int] = []
        buffer = DeviceBuffer(device, 8)
        driver_of(device).enqueue(stream.handle, lambda: done.append(1))
        buffer.close()
        assert done == [1]
    with host_gpu(strict_free=True) as device, Stream(device) as stream:
        buffer, other = DeviceBuffer(device, 8), DeviceBuffer(device, 8)
        uses: dict[str, Callable[[], None]] = {
            "a fill": lambda: buffer.fill(1, stream),
            "a function": lambda: driver_of(device).enqueue(stream.handle, lambda: None, [(buffer.pointer, 1)]),
        }
        for what, use in uses.items():
            use()
            with pytest.raises(CudaError, match=f"are freed while {what} that uses them waits in a stream"):
                device.driver.call("cuMemFree", buffer.pointer)
            if not other.closed:
                other.close()
                assert (content(buffer) == 0xCD).all()
            stream.synchronize()
        buffer.close()


def test_what_is_written_where_nothing_belongs_is_found() -> None:
    driver = HostDriver()
    with Device(driver=driver) as device:
        with PinnedBuffer(device, 4) as pinned:
            ctypes.memset(pinned.address + 4, 0, 1)
        beside = "4 bytes of pinned memory was left: something wrote beside it"
        assert driver.leaks() == [beside, "1 contexts"]
        with PinnedBuffer(device, 6) as pinned:
            host = pinned.host_array((6,), np.uint8)
        host[:] = 1
    assert driver.leaks() == [beside, "6 bytes of pinned memory was written after it had been freed"]


# --- laziness ---------------------------------------------------------------------------------------------------------


def test_copies_from_pinned_memory_happen_when_somebody_waits(device: Device) -> None:
    with DeviceBuffer(device, 4) as buffer, PinnedBuffer(device, 4) as pinned, Stream(device) as stream:
        host, array = pinned.host_array((4,), np.uint8), buffer.array((4,), np.uint8)
        host[:] = 1
        array.upload(host, stream)
        host[:] = 2  # too early: a program that does so must see it
        stream.synchronize()
        assert (content(buffer) == 2).all()


def test_copies_to_pinned_memory_happen_when_somebody_waits(device: Device) -> None:
    with DeviceBuffer(device, 4) as buffer, PinnedBuffer(device, 4) as pinned, Stream(device) as stream:
        buffer.fill(1, stream)
        host = pinned.host_array((4,), np.uint8)
        buffer.array((4,), np.uint8).download(host, stream)
        assert (host == 0xCD).all()
        stream.synchronize()
        assert (host == 1).all()


def test_copies_of_other_memory_are_staged_or_wait(device: Device) -> None:
    with DeviceBuffer(device, 4) as buffer, Stream(device) as stream:
        host, array = np.full(4, 1, np.uint8), buffer.array((4,), np.uint8)
        array.upload(host, stream)
        host[:] = 2
        assert (content(buffer) == 0xCD).all()
        array.download(host, stream)
        assert (host == 1).all()


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_who_polls_comes_to_an_end(order: int) -> None:
    with host_gpu(order=order) as device, Stream(device) as stream, Event(device) as event:
        assert stream.is_done()
        assert event.is_done()
        answers = []
        for _ in range(8):
            driver_of(device).enqueue(stream.handle, lambda: None)
            event.record(stream)
            answers += [event.is_done(), event.is_done()]
        assert answers[1::2] == [True] * 8
        assert not all(answers)
        assert stream.is_done()


def test_an_error_in_a_stream_reaches_who_waits_and_no_other(device: Device) -> None:
    done: list[int] = []
    with DeviceBuffer(device, 8) as buffer, Stream(device) as stream:
        driver = driver_of(device)
        driver.enqueue(stream.handle, lambda: driver.view(buffer.pointer, (9,), np.uint8))
        driver.enqueue(stream.handle, lambda: done.append(1))
        with pytest.raises(CudaError, match="view failed: CUDA error 700: a view: 9 bytes"):
            stream.synchronize()
        stream.synchronize()
    assert done == [1]


# --- several streams, events ------------------------------------------------------------------------------------------


def test_a_stream_waits_for_the_event_of_another(device: Device) -> None:
    done: list[str] = []
    driver = driver_of(device)
    with Stream(device) as first, Stream(device) as second, Event(device) as event:
        driver.enqueue(first.handle, lambda: done.append("first"))
        event.record(first)
        driver.enqueue(first.handle, lambda: done.append("later"))
        second.wait_for(event)
        driver.enqueue(second.handle, lambda: done.append("second"))
        second.synchronize()
        assert done == ["first", "second"]
        assert event.is_done()


def order_of_two(seed: int, wait: bool) -> tuple[str, ...]:
    done: list[str] = []
    with host_gpu(order=seed) as device, Stream(device) as first, Stream(device) as second, Event(device) as event:
        driver_of(device).enqueue(first.handle, lambda: done.append("first"))
        event.record(first)
        if wait:
            second.wait_for(event)
        driver_of(device).enqueue(second.handle, lambda: done.append("second"))
        second.synchronize()
        first.synchronize()
    return tuple(done)


def test_streams_that_do_not_wait_run_in_any_order() -> None:
    assert order_of_two(0, wait=False) == ("second", "first")
    assert {order_of_two(seed, wait=False) for seed in range(12)} == {("first", "second"), ("second", "first")}
    assert {order_of_two(seed, wait=True) for seed in range(12)} == {("first", "second")}


def test_a_seed_finds_who_relies_on_laziness() -> None:
    def uploaded(seed: int) -> int:
        with host_gpu(order=seed) as device, DeviceBuffer(device, 1) as buffer, PinnedBuffer(device, 1) as pinned:
            with Stream(device) as stream:
                host = pinned.host_array((1,), np.uint8)
                host[:] = 1
                buffer.array((1,), np.uint8).upload(host, stream)
                host[:] = 2
                stream.synchronize()
            return int(content(buffer)[0])

    assert uploaded(0) == 2
    assert {uploaded(seed) for seed in range(1, 9)} == {1, 2}


def test_times_between_events(device: Device) -> None:
    with Stream(device) as stream, Event(device, timing=True) as start, Event(device, timing=True) as end:
        start.record(stream)
        driver_of(device).enqueue(stream.handle, lambda: None)
        with pytest.raises(CudaError, match="never recorded"):
            end.milliseconds_since(start)
        end.record(stream)
        with pytest.raises(CudaError, match="not reached"):
            end.milliseconds_since(start)
        end.synchronize()
        assert end.milliseconds_since(start) > 0
        with Event(device) as other:
            other.record(stream)
            with pytest.raises(CudaError, match="INVALID_HANDLE: an event without a time"):
                other.milliseconds_since(start)


def test_destroying_a_stream_does_not_wait_and_loses_nothing(device: Device) -> None:
    done: list[int] = []
    with Stream(device) as stream:
        driver_of(device).enqueue(stream.handle, lambda: done.append(1))
    assert done == []
    device.synchronize()
    assert done == [1]


def test_arrays_are_handed_from_stream_to_stream(device: Device) -> None:
    with DeviceBuffer(device, 4) as buffer, Stream(device) as mine, Stream(device) as theirs:
        buffer.fill(5, mine)
        array = take_array(buffer.array((4,), np.uint8, stream=mine), device, theirs)
        assert (array.numpy(theirs) == 5).all()
        # The default stream is there, too.
        with Stream(device, borrowed=1) as default:
            assert (DeviceArray(device, array.pointer, (4,), np.uint8).numpy(default) == 5).all()
        del array


def test_threads_share_it(device: Device) -> None:
    counts = [0] * 4

    def count(i: int) -> None:
        counts[i] += 1

    def work(i: int) -> None:
        device.make_current()
        with Stream(device) as stream:
            for _ in range(50):
                driver_of(device).enqueue(stream.handle, lambda: count(i))
                with DeviceBuffer(device, 1 + i) as buffer:
                    buffer.fill(i, stream)
                    assert buffer.array((1 + i,), np.uint8).numpy(stream).tolist() == [i] * (1 + i)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert counts == [50] * 4


def test_work_needs_a_context_on_its_thread(device: Device) -> None:
    errors: list[Exception] = []
    with Stream(device) as stream:

        def work() -> None:
            try:
                stream.synchronize()
            except CudaError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "no context is current on this thread" in str(errors[0])


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_a_capture_does_nothing_and_a_graph_does_it_again(device: Device) -> None:
    done: list[int] = []
    driver = driver_of(device)
    with DeviceBuffer(device, 1) as buffer, PinnedBuffer(device, 1) as pinned, Stream(device) as stream:
        host, array = pinned.host_array((1,), np.uint8), buffer.array((1,), np.uint8)

        def enqueue(on: Stream) -> None:
            array.upload(host, on)
            driver.enqueue(on.handle, lambda: done.append(int(content(buffer)[0])))

        with Graph(stream, enqueue) as graph:
            graph.upload(stream)
            stream.synchronize()
            assert done == []
            for value in (7, 8):
                host[:] = value
                graph.launch(stream)
                stream.synchronize()
        assert done == [7, 8]


def test_runs_of_one_graph_wait_for_each_other(device: Device) -> None:
    done: list[int] = []
    driver = driver_of(device)
    with Stream(device) as first, Stream(device) as second:
        with Graph(first, lambda on: driver.enqueue(on.handle, lambda: done.append(len(done)))) as graph:
            graph.launch(first)
            graph.launch(second)
        second.synchronize()
        assert done == [0, 1]


def forbidden_calls(device: Device, stack: ExitStack) -> dict[str, Callable[[Stream], None]]:
    """What spoils a capture."""
    event = stack.enter_context(Event(device))
    buffer = stack.enter_context(DeviceBuffer(device, 4))
    other = stack.enter_context(Stream(device))
    array, host = buffer.array((4,), np.uint8), np.zeros(4, np.uint8)
    event.record(other)
    call = device.driver.call
    return {
        "cuMemAlloc": lambda _: DeviceBuffer(device, 1).close(),
        "cuMemHostAlloc": lambda _: PinnedBuffer(device, 1).close(),
        "cuMemFree": lambda _: call("cuMemFree", buffer.pointer),
        "cuStreamSynchronize": lambda on: on.synchronize(),
        "cuStreamQuery": lambda on: call("cuStreamQuery", on.handle),
        "cuStreamSynchronize of another": lambda _: other.synchronize(),
        "cuEventSynchronize": lambda _: event.synchronize(),
        "cuEventQuery": lambda _: call("cuEventQuery", event.handle),
        "cuCtxSynchronize": lambda _: device.synchronize(),
        "an upload from pageable memory": lambda on: array.upload(host, on),
        "a download to pageable memory": lambda on: array.download(host, on),
    }


def test_what_a_capture_does_not_allow(device: Device) -> None:
    with ExitStack() as stack:
        stream = stack.enter_context(Stream(device))
        for name, forbidden in forbidden_calls(device, stack).items():
            what = name.removesuffix(" of another")
            with pytest.raises(CudaError, match=f"CAPTURE_UNSUPPORTED: {what} is {REFUSED}"):
                Graph(stream, forbidden)

        def go_on(on: Stream) -> None:
            with pytest.raises(CudaError, match=REFUSED):
                DeviceBuffer(device, 1)
            with pytest.raises(CudaError, match="due to a previous error during stream capture"):
                driver_of(device).enqueue(on.handle, lambda: None)

        with pytest.raises(CudaError, match=r"cuStreamEndCapture failed.*CAPTURE_INVALIDATED"):
            Graph(stream, go_on)
        # The stream is as it was.
        done: list[int] = []
        driver_of(device).enqueue(stream.handle, lambda: done.append(1))
        stream.synchronize()
        assert done == [1]


def test_marks_inside_of_a_graph(device: Device) -> None:
    with (
        Stream(device) as stream,
        Event(device, timing=True) as start,
        Event(device, timing=True) as end,
        DeviceBuffer(device, 4) as buffer,
    ):

        def work(on: Stream) -> None:
            start.record_in_graph(on)
            buffer.fill(1, on)
            end.record_in_graph(on)

        with pytest.raises(CudaError, match="an external mark belongs into a capture"):
            start.record_in_graph(stream)
        with Graph(stream, work) as graph:
            for _ in range(2):
                graph.launch(stream)
                stream.synchronize()
                assert end.milliseconds_since(start) == 1
            with Graph(stream, start.record) as other:
                other.launch(stream)
            with pytest.raises(CudaError, match="never recorded"):
                end.milliseconds_since(start)


def test_events_and_captures(device: Device) -> None:
    with Stream(device) as stream, Stream(device) as other, Event(device) as event, Event(device) as outside:
        outside.record(other)
        with pytest.raises(CudaError, match="CAPTURE_ISOLATION"):
            Graph(stream, lambda on: on.wait_for(outside))

        def go_on(on: Stream) -> None:
            with pytest.raises(CudaError, match="CAPTURE_ISOLATION"):
                on.wait_for(outside)

        with pytest.raises(CudaError, match="CAPTURE_INVALIDATED"):
            Graph(stream, go_on)

        def fork(on: Stream) -> None:
            event.record(on)
            on.wait_for(event)
            other.wait_for(event)

        with pytest.raises(CudaError, match="captures one stream only"):
            Graph(stream, fork)
        with pytest.raises(CudaError, match="CAPTURED_EVENT"):
            event.synchronize()
        event.record(stream)
        event.synchronize()


def test_a_capture_concerns_its_own_thread_only(device: Device) -> None:
    def elsewhere() -> None:
        device.make_current()
        with DeviceBuffer(device, 1), Stream(device) as mine:
            mine.synchronize()

    def enqueue(_: Stream) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(elsewhere).result()

    with Stream(device) as stream, Graph(stream, enqueue) as graph:
        graph.launch(stream)


def test_captures_begin_and_end_once(device: Device) -> None:
    call = device.driver.call
    mode = device.driver.constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_GLOBAL")
    with Stream(device) as stream:
        with pytest.raises(CudaError, match="the stream is not capturing"):
            call("cuStreamEndCapture", stream.handle)
        call("cuStreamBeginCapture", stream.handle, mode)
        with pytest.raises(CudaError, match="capturing already"):
            call("cuStreamBeginCapture", stream.handle, mode)
        graph = call("cuStreamEndCapture", stream.handle)
        assert driver_of(device).leaks() == ["Stream", "Graph", "1 contexts"]
        call("cuGraphDestroy", graph)
        with pytest.raises(CudaError, match="the default stream cannot be captured"):
            call("cuStreamBeginCapture", 0, mode)


# --- kernels ----------------------------------------------------------------------------------------------------------


class BestClass:
    """Launches of ``fast_nms_best_class`` on random scores."""

    def __init__(self, device: Device, stack: ExitStack, classes: int = 3, capacity: int = 50) -> None:
        self.score = np.random.default_rng(0).random((classes, capacity)).astype(np.float32)
        self.stream = stack.enter_context(Stream(device))
        self.module = stack.enter_context(Module(device, host_cubins().get(read_source("fast_nms"), device.arch)))
        sizes = {"score": self.score.nbytes, "count": 4, "best": 4 * capacity, "class": 4 * capacity}
        self.buffers = {name: stack.enter_context(DeviceBuffer(device, size)) for name, size in sizes.items()}
        self.best = self.buffers["class"].array((capacity,), np.int32)
        self.buffers["score"].array(self.score.shape, np.float32).upload(self.score, self.stream)
        self.buffers["count"].array((1,), np.int32).upload(np.array([capacity], np.int32), self.stream)

    def launch(self, threads: int = 256, **changes: Any) -> Launch:
        classes, capacity = self.score.shape
        arguments = self.buffers | {"capacity": np.int32(capacity), "classes": np.int32(classes)} | changes
        ordered = [arguments[name] for name in ("score", "count", "capacity", "classes", "best", "class")]
        return self.module.kernel("fast_nms_best_class").prepare(LaunchConfig((1, 1, 1), (threads, 1, 1)), ordered)


@pytest.fixture
def best_class(device: Device) -> Iterator[BestClass]:
    with ExitStack() as stack:
        yield BestClass(device, stack)


@needs_compiler
def test_a_kernel_is_launched_with_the_arguments_of_that_moment(best_class: BestClass) -> None:
    launch = best_class.launch()
    launch.enqueue(best_class.stream)
    launch.arguments.replace(3, np.int32(1))  # of the next launch
    assert (best_class.best.numpy(best_class.stream) == best_class.score.argmax(axis=0)).all()
    launch.enqueue(best_class.stream)
    assert (best_class.best.numpy(best_class.stream) == 0).all()


@needs_compiler
def test_a_graph_has_the_arguments_of_its_capture(best_class: BestClass) -> None:
    launch = best_class.launch()
    with Graph(best_class.stream, launch.enqueue) as graph:
        launch.arguments.replace(3, np.int32(1))
        graph.launch(best_class.stream)
        assert (best_class.best.numpy(best_class.stream) == best_class.score.argmax(axis=0)).all()


@needs_compiler
def test_a_kernel_that_leaves_its_memory(device: Device, best_class: BestClass) -> None:
    with DeviceBuffer(device, 4 * 50 - 4) as short:
        best_class.launch(best=short).enqueue(best_class.stream)
        with pytest.raises(CudaError, match="fast_nms_best_class wrote beside 196 bytes of device memory"):
            best_class.stream.synchronize()
    # This GPU survives what CUDA's context does not.
    device.driver.context_lost = None
    with pytest.raises(CudaError, match=r"an argument of fast_nms_best_class: 0 bytes at .* have been freed"):
        best_class.launch(best=np.uint64(short.pointer)).enqueue(best_class.stream)
    with PinnedBuffer(device, 200) as pinned, pytest.raises(CudaError, match="are not the GPU's"):
        best_class.launch(best=np.uint64(pinned.address)).enqueue(best_class.stream)


@needs_compiler
def test_a_graph_outlives_neither_its_memory_nor_its_module(device: Device, best_class: BestClass) -> None:
    short = DeviceBuffer(device, 4 * 50)
    with Graph(best_class.stream, best_class.launch(best=short).enqueue) as graph:
        short.close()
        graph.launch(best_class.stream)
        with pytest.raises(CudaError, match="have been freed"):
            best_class.stream.synchronize()
    with Graph(best_class.stream, best_class.launch().enqueue) as graph:
        best_class.module.close()
        graph.launch(best_class.stream)
        with pytest.raises(CudaError, match="the module of fast_nms_best_class was unloaded"):
            best_class.stream.synchronize()


def preprocess_arguments(
    frame: Any, out: Any, size: tuple[int, int], mean_std: npt.NDArray[np.float32], status: Any
) -> list[Any]:
    """Of ``preprocess_f32`` for a BGR frame ``(H, W, 3)`` to an RGB input of a size."""
    height, width, _ = frame.shape
    numbers = [*mean_std[0], *(np.float32(1) / mean_std[1])]
    frame_size = np.int64(3 * width), np.int64(3 * width), np.int32(0), np.int32(height), np.int32(width)
    yuv = np.zeros(6, np.float32)
    return [frame, frame, *frame_size, out, *map(np.int32, size), *numbers, np.int32(1), *yuv, status]


@needs_compiler
@pytest.mark.parametrize("order", [0, 1, 2])
def test_frames_through_a_graph_are_those_of_the_reference(order: int) -> None:
    rng = np.random.default_rng(order)
    frames = rng.integers(0, 256, (3, 20, 30, 3), np.uint8)
    mean_std = np.array([[103.9, 116.8, 123.7], [57.4, 57.1, 58.4]], np.float32)
    with ExitStack() as stack:
        device = stack.enter_context(host_gpu(order=order))
        stream, ready = stack.enter_context(Stream(device)), stack.enter_context(Event(device))
        module = stack.enter_context(Module(device, host_cubins().get(read_source("preprocess"), device.arch)))
        pinned, back = (stack.enter_context(PinnedBuffer(device, size)) for size in (1800, 4 * 3 * 16 * 24))
        frame_memory, out_memory, status = (
            stack.enter_context(DeviceBuffer(device, size)) for size in (pinned.num_bytes, back.num_bytes, 4)
        )
        frame, out = frame_memory.array((20, 30, 3), np.uint8), out_memory.array((3, 16, 24), np.float32)
        kernel = module.kernel("preprocess_f32")
        arguments = preprocess_arguments(frame, out, (16, 24), mean_std, status.array((1,), np.uint32))
        launch = kernel.prepare(LaunchConfig((1, 1, 1), (32, 4, 1)), arguments)
        host, found = pinned.host_array((20, 30, 3), np.uint8), back.host_array((3, 16, 24), np.float32)

        def enqueue(on: Stream) -> None:
            frame.upload(host, on)
            launch.enqueue(on)
            out.download(found, on)

        graph = stack.enter_context(Graph(stream, enqueue))
        for each in frames:
            host[:] = each
            before = driver_of(device).counts()
            graph.launch(stream)
            ready.record(stream)
            ready.synchronize()
            assert driver_of(device).counts() - before == Counts(0, 1, 0, 1, 1)
            mean, std = (tuple(map(float, row)) for row in mean_std)
            expected = reference.preprocess(each, 16, 24, mean, std, "RGB")  # type: ignore[arg-type]  # three numbers
            np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-4)


def test_modules_and_launches_that_cannot_be(device: Device) -> None:
    call = device.driver.call
    nonsense = np.zeros(64, np.uint8)
    with pytest.raises(CudaError, match="INVALID_IMAGE: this is not machine code"):
        call("cuModuleLoadData", nonsense.ctypes.data)
    with Stream(device) as stream, Module(device, host_cubins().get(read_source("fast_nms"), "sm_87")) as module:
        with pytest.raises(CudaError, match="NOT_FOUND: the module has no kernel nothing"):
            call("cuModuleGetFunction", module._module, b"nothing")
        function = call("cuModuleGetFunction", module._module, b"fast_nms_best_class")
        for shape in [(0, 1, 1, 32, 1, 1), (1, 65536, 1, 32, 1, 1), (1, 1, 1, 1025, 1, 1), (1, 1, 1, 512, 4, 1)]:
            with pytest.raises(CudaError, match="fast_nms_best_class: "):
                call("cuLaunchKernel", function, *shape, 0, stream.handle, 0, 0)


def test_which_parameters_are_addresses() -> None:
    found = entry_points(KERNELS / "fast_nms.cu")
    assert found["fast_nms_best_class"] == (True, True, False, False, True, True)
    names = {name for family in families() for name in entry_points(KERNELS / f"{family}.cu")}
    cubins = [host_cubins().get(read_source(family), "sm_87") for family in families()]
    assert names == {name for cubin in cubins for name in cubin.parameters}
    for cubin in cubins:
        for name, parameters in cubin.parameters.items():
            addresses = entry_points(KERNELS / f"{cubin.family}.cu")[name]
            sizes = [parameter.size for parameter, is_address in zip(parameters, addresses, strict=True) if is_address]
            assert set(sizes) == {8}
    assert entry_points(SHIM / "planted_bugs.cu")["one_element_too_far"] == (True, False)


# --- what tests ask of it ---------------------------------------------------------------------------------------------


def test_what_is_not_given_back_is_found() -> None:
    driver = HostDriver()
    device = Device(driver=driver)
    buffer, stream, event = DeviceBuffer(device, 5), Stream(device), Event(device)
    module = Module(device, host_cubins().get(read_source("fast_nms"), device.arch))
    graph = Graph(stream, lambda _: None)
    things = ["Stream", "Event", "Module", "GraphExec"]
    assert driver.leaks() == ["5 bytes of device memory", *things, "1 contexts"]
    for owned in (buffer, stream, event, module, graph, device):
        owned.close()
    assert driver.leaks() == []


def test_a_leak_fails_the_test_that_leaks() -> None:
    def leak() -> None:
        with host_gpu() as device:
            device.driver.call("cuMemAlloc", 5)

    with pytest.raises(AssertionError):
        leak()


def test_calls_are_recorded_and_counted(device: Device) -> None:
    driver = driver_of(device)
    before = driver.counts()
    with (
        driver.recording() as calls,
        DeviceBuffer(device, 4) as buffer,
        PinnedBuffer(device, 8),
        Stream(device) as stream,
    ):
        assert driver.live_memory() == {"device": (1, 4), "pinned": (1, 8)}
        with driver.recording() as inner:
            buffer.fill(1, stream)
        buffer.array((4,), np.uint8).numpy(stream)  # waits twice: once for the copy, and once more
    assert inner == ["cuMemsetD8Async"]
    assert [call for call in calls if "Ctx" not in call] == [
        *("cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuMemsetD8Async", "cuMemcpyDtoHAsync"),
        *("cuStreamSynchronize", "cuStreamDestroy", "cuMemFreeHost", "cuMemFree"),
    ]
    device.synchronize()
    assert len(calls) == 9 + calls.count("cuCtxPushCurrent") + calls.count("cuCtxPopCurrent")
    assert driver.counts() - before == Counts(
        allocations=2, synchronisations=3, launches=0, graph_launches=0, kernel_runs=0
    )
    assert driver.live_memory() == {}


def test_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = read_source("fast_nms")
    cubin = host_cubins().get(source, "sm_87")
    monkeypatch.delattr("yolact_plugins.compile.compiler.compile_cubin")
    assert host_cubins().get(source, "sm_87") == cubin
    share_kernels(monkeypatch)
    assert CubinCache().get(source, "sm_87") == cubin
