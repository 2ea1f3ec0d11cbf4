"""The GPU of host memory itself: it does what CUDA does, and notices what CUDA would punish or hide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.host_gpu import HostDriver, host_gpu
from support.kernel_host import COMPILER
from yolact_plugins.cache import CubinCache
from yolact_plugins.cuda_graph import Graph
from yolact_plugins.driver import Device, Event, Stream
from yolact_plugins.errors import CudaError, CudaOutOfMemoryError
from yolact_plugins.launch import LaunchConfig
from yolact_plugins.memory import DeviceBuffer, MappedBuffer, PinnedBuffer
from yolact_plugins.module import Module
from yolact_plugins.sources import read_source


@pytest.fixture
def device() -> Iterator[Device]:
    with host_gpu() as device:
        yield device


def driver_of(device: Device) -> HostDriver:
    assert isinstance(device.driver, HostDriver)
    return device.driver


def test_memory_is_poisoned_and_checked(device: Device) -> None:
    view = driver_of(device).view
    with DeviceBuffer(device, 8) as buffer, Stream(device) as stream:
        assert (view(buffer.pointer, (8,), np.uint8) == 0xCD).all()
        assert buffer.pointer % 256 == 0
        with pytest.raises(CudaError, match=r"9 bytes at 0x.* are not the GPU's"):
            device.driver.call("cuMemcpyDtoDAsync", buffer.pointer, buffer.pointer, 9, stream.handle)
    with pytest.raises(Exception, match="are not the GPU's"):
        view(buffer.pointer, (8,), np.uint8)
    with pytest.raises(CudaError, match="is no device memory"):
        device.driver.call("cuMemFree", buffer.pointer)


def test_pinned_memory_is_not_for_kernels_and_mapped_memory_is(device: Device) -> None:
    with PinnedBuffer(device, 8) as pinned, MappedBuffer(device, 8) as mapped:
        mapped.host_array((8,), np.uint8)[:] = 7
        assert (driver_of(device).view(mapped.pointer, (8,), np.uint8) == 7).all()
        with pytest.raises(CudaError, match="are not the GPU's"):
            device.driver.call("cuMemHostGetDevicePointer", pinned.address, 0)


def test_there_is_an_end_of_memory() -> None:
    with host_gpu(memory_bytes=1000) as device, DeviceBuffer(device, 600) as buffer:
        assert device.memory_bytes() == (400, 1000)
        with pytest.raises(CudaOutOfMemoryError):
            DeviceBuffer(device, 600)
        assert buffer.num_bytes == 600


def test_copies_from_pinned_memory_happen_when_somebody_waits(device: Device) -> None:
    with DeviceBuffer(device, 4) as buffer, PinnedBuffer(device, 4) as pinned, Stream(device) as stream:
        host, array = pinned.host_array((4,), np.uint8), buffer.array((4,), np.uint8)
        host[:] = 1
        array.upload(host, stream)
        host[:] = 2  # too early: a program that does so must see it
        stream.synchronize()
        assert (driver_of(device).view(buffer.pointer, (4,), np.uint8) == 2).all()


def test_copies_from_other_memory_are_taken_at_once(device: Device) -> None:
    with DeviceBuffer(device, 4) as buffer, Stream(device) as stream:
        host = np.full(4, 1, np.uint8)
        buffer.array((4,), np.uint8).upload(host, stream)
        host[:] = 2
        assert (buffer.array((4,), np.uint8).numpy(stream) == 1).all()


def test_a_stream_waits_for_the_event_of_another(device: Device) -> None:
    done: list[str] = []
    driver = driver_of(device)
    with Stream(device) as first, Stream(device) as second, Event(device) as event:
        driver.enqueue(first.handle, lambda: done.append("first"))
        event.record(first)
        driver.enqueue(first.handle, lambda: done.append("later"))
        second.wait_for(event)
        driver.enqueue(second.handle, lambda: done.append("second"))
        assert not event.is_done()
        second.synchronize()
        assert done == ["first", "second"]
        assert event.is_done()


def test_streams_that_do_not_wait_run_in_any_order() -> None:
    def order_of_two(seed: int) -> tuple[str, ...]:
        done: list[str] = []
        with host_gpu(order=seed) as device, Stream(device) as first, Stream(device) as second:
            driver_of(device).enqueue(first.handle, lambda: done.append("first"))
            driver_of(device).enqueue(second.handle, lambda: done.append("second"))
            second.synchronize()
            first.synchronize()
        return tuple(done)

    assert {order_of_two(seed) for seed in range(12)} == {("first", "second"), ("second", "first")}


def test_what_a_capture_does_not_allow(device: Device) -> None:
    with Stream(device) as stream:
        for forbidden in (lambda: DeviceBuffer(device, 1), stream.synchronize):
            with pytest.raises(CudaError, match="not permitted when stream is capturing"):
                Graph(stream, lambda _, call=forbidden: call())  # type: ignore[misc]  # now
        # The stream is as it was.
        done: list[int] = []
        with Graph(stream, lambda on: driver_of(device).enqueue(on.handle, lambda: done.append(1))) as graph:
            assert done == []
            for _ in range(3):
                graph.launch(stream)
            stream.synchronize()
        assert done == [1, 1, 1]


def test_work_needs_a_context_on_its_thread(device: Device) -> None:
    import threading

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


def test_what_is_not_given_back_is_found() -> None:
    driver = HostDriver()
    device = Device(driver=driver)
    buffer, stream = DeviceBuffer(device, 5), Stream(device)
    assert driver.leaks() == ["5 bytes of device memory", "Stream", "1 contexts"]
    for owned in (buffer, stream, device):
        owned.close()
    assert driver.leaks() == []


@pytest.mark.skipif(COMPILER is None, reason="no g++: the kernels cannot be run on the host")
def test_a_kernel_is_launched_with_the_arguments_of_that_moment(device: Device, tmp_path: Path) -> None:
    cubin = CubinCache(tmp_path / "cache").get(read_source("fast_nms"), device.arch)
    score = np.random.default_rng(0).random((3, 50)).astype(np.float32)
    count = np.array([50], np.int32)
    sizes = {"score": score.nbytes, "count": 4, "best": 200, "class": 200}
    with Module(device, cubin) as module, Stream(device) as stream:
        buffers = {name: DeviceBuffer(device, size) for name, size in sizes.items()}
        buffers["score"].array(score.shape, np.float32).upload(score, stream)
        buffers["count"].array((1,), np.int32).upload(count, stream)
        arguments = [buffers["score"], buffers["count"], np.int32(50), np.int32(3), buffers["best"], buffers["class"]]
        launch = module.kernel("fast_nms_best_class").prepare(LaunchConfig((1, 1, 1), (256, 1, 1)), arguments)
        launch.enqueue(stream)
        launch.arguments.replace(3, np.int32(1))  # of the next launch
        best = buffers["class"].array((50,), np.int32).numpy(stream)
        assert (best == score.argmax(axis=0)).all()
        launch.enqueue(stream)
        assert (buffers["class"].array((50,), np.int32).numpy(stream) == 0).all()
        for buffer in buffers.values():
            buffer.close()
