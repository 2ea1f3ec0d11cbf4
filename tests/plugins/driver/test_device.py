"""The driver's face on a GPU; skipped, and listed, where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.kernels import SAMPLE
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.sources import families, read_source
from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.driver import Device, Event, Stream
from yolact_plugins.driver.foreign_array import take_array
from yolact_plugins.driver.launch import LaunchConfig
from yolact_plugins.driver.memory import DeviceBuffer, MappedBuffer, PinnedBuffer
from yolact_plugins.driver.module import Module
from yolact_plugins.errors import CudaUnavailableError, MissingDependencyError

COUNT = 10_000


@pytest.fixture
def device() -> Iterator[Device]:
    try:
        device = Device()
    except (CudaUnavailableError, MissingDependencyError) as error:
        pytest.skip(str(error))
    with device:
        yield device


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    with Stream(device) as stream:
        yield stream


def test_a_kernel_computes_on_device_memory_and_in_a_graph(device: Device, stream: Stream, tmp_path: Path) -> None:
    cubin = CubinCache(tmp_path).get(SAMPLE, device.arch)
    values = np.arange(COUNT, dtype=np.float32)
    with (
        Module(device, cubin) as module,
        DeviceBuffer(device, 4 * COUNT) as buffer,
        PinnedBuffer(device, 4 * COUNT) as pinned,
        Event(device, timing=True) as start,
        Event(device, timing=True) as end,
    ):
        array, host = buffer.array((COUNT,), np.float32), pinned.host_array((COUNT,), np.float32)
        config = LaunchConfig.covering((COUNT,), (256,))
        launch = module.kernel("scale").prepare(config, [array, np.int32(COUNT), np.float32(1.5)])

        def work(into: Stream) -> None:
            array.upload(host, into)
            launch.enqueue(into)
            array.download(host, into)

        host[:] = values
        start.record(stream)
        work(stream)
        end.record(stream)
        end.synchronize()
        np.testing.assert_array_equal(host, values * 3)
        assert end.milliseconds_since(start) > 0

        def timed(into: Stream) -> None:
            start.record_in_graph(into)
            work(into)
            end.record_in_graph(into)

        with Graph(stream, timed) as graph:
            graph.upload(stream)
            for _ in range(3):
                graph.launch(stream)
                stream.synchronize()
                assert end.milliseconds_since(start) > 0
        np.testing.assert_array_equal(host, values * 81)


def test_a_kernel_computes_on_mapped_memory(device: Device, stream: Stream, tmp_path: Path) -> None:
    cubin = CubinCache(tmp_path).get(SAMPLE, device.arch)
    with Module(device, cubin) as module, MappedBuffer(device, 400) as mapped:
        host = mapped.host_array((100,), np.float32)
        host[:] = 1
        view = mapped.device_array((100,), np.float32)
        config = LaunchConfig.covering((100,), (64,))
        module.kernel("scale").launch(stream, config, view, np.int32(50), np.float32(2))
        stream.synchronize()
        assert host.tolist() == [4] * 50 + [1] * 50


def test_every_family_loads_with_every_kernel(device: Device, tmp_path: Path) -> None:
    for family in families():
        cubin = CubinCache(tmp_path).get(read_source(family), device.arch)
        with Module(device, cubin) as module:
            for name in cubin.parameters:
                module.kernel(name)


def test_exchange_with_pytorch(device: Device, stream: Stream) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    with torch.cuda.stream(torch.cuda.Stream()):
        tensor = torch.arange(12, device="cuda", dtype=torch.float32).reshape(3, 4) * 2
        taken = take_array(tensor, device, stream, dtype=np.float32, ndim=2)
    assert taken.pointer == tensor.data_ptr()
    assert taken.numpy(stream).tolist() == tensor.tolist()
    with DeviceBuffer(device, 48) as buffer:
        array = buffer.array((3, 4), np.float32, stream=stream)
        array.upload(np.arange(12, dtype=np.float32).reshape(3, 4), stream)
        theirs = torch.from_dlpack(array)
        assert theirs.data_ptr() == array.pointer == torch.as_tensor(array, device="cuda").data_ptr()
        assert theirs.cpu().tolist() == array.numpy(stream).tolist()
        del theirs
