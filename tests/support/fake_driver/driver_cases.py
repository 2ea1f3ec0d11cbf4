"""Run by ``tests/plugins/driver/test_driver.py`` in a process where ``libcuda.so.1`` is the one of this folder."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.kernels import SAMPLE
from yolact_plugins.compile.compiler import OPTIONS
from yolact_plugins.compile.cubin_folder import CubinIndex
from yolact_plugins.driver import dlpack
from yolact_plugins.driver.cubin import Cubin
from yolact_plugins.driver.cuda_graph import Graph
from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device, Event, Stream, load_driver
from yolact_plugins.driver.foreign_array import is_device_array, take_array
from yolact_plugins.driver.gpu import Gpu
from yolact_plugins.driver.launch import LaunchConfig
from yolact_plugins.driver.memory import DeviceBuffer, MappedBuffer, PinnedBuffer
from yolact_plugins.driver.module import Module
from yolact_plugins.errors import CudaContextLostError, CudaError, CudaOutOfMemoryError, LaunchError, ShapeError

FAKE = ctypes.CDLL("libcuda.so.1")
FAKE.fake_journal.restype = ctypes.c_char_p
KINDS = ("context", "stream", "event", "device memory", "host memory", "module", "graph", "executable graph")
Frames = np.ndarray[Any, Any]


def alive() -> dict[str, int]:
    return {kind: FAKE.fake_alive(i) for i, kind in enumerate(KINDS) if FAKE.fake_alive(i)}


def fail(function: str, status: int) -> None:
    FAKE.fake_fail(function.encode(), status)


def calls() -> list[str]:
    names: list[str] = FAKE.fake_journal().decode().split()
    return names


@pytest.fixture(autouse=True)
def everything_is_given_back() -> Iterator[None]:
    FAKE.fake_clear()
    load_driver().context_lost = None
    depth = FAKE.fake_depth()
    yield
    gc.collect()
    assert alive() == {}
    assert FAKE.fake_primary_users() == 0
    # The first device of the thread becomes its current one; nothing else may stay on its stack.
    assert FAKE.fake_depth() in {depth, 1}


@pytest.fixture
def device() -> Iterator[Device]:
    with Device() as device:
        yield device


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    with Stream(device) as stream:
        yield stream


@pytest.fixture(scope="module")
def cubin() -> Cubin:
    # Compiled by the process that started this one: NVRTC asks a libcuda that it finds for more than this one knows.
    folder = Path(os.environ["CUBINS_OF_THE_TEST"])
    return CubinIndex.read(folder, folder).find(SAMPLE, "sm_87", OPTIONS)


def test_a_device_says_what_it_is(device: Device) -> None:
    assert (device.name, device.compute_capability, device.arch, device.integrated) == ("Fake", (8, 7), "sm_87", True)
    assert device.num_multiprocessors == 14
    assert device.limits.shared_bytes == 166912
    assert device.limits.grid == (2147483647, 65535, 65535)
    assert device.memory_bytes() == (5, 7)
    device.synchronize()
    assert device.driver is load_driver()
    assert device.driver.gpu.cuda_version == "13.0"


def test_there_is_no_second_gpu() -> None:
    with pytest.raises(CudaError, match="there is no GPU 1: the driver shows 1, counted from 0"):
        Device(1)


def test_two_devices_share_the_primary_context() -> None:
    with Device() as one, Device() as two:
        assert alive() == {"context": 1}
        assert FAKE.fake_primary_users() == 2
        one.close()
        two.make_current()
        assert alive() == {"context": 1}


def test_failures_carry_the_call_and_the_words_of_the_driver(device: Device) -> None:
    fail("cuStreamCreate", 700)
    with pytest.raises(CudaError) as caught:
        Stream(device)
    assert str(caught.value) == (
        "cuStreamCreate failed: CUDA error 700: CUDA_ERROR_ILLEGAL_ADDRESS: in the driver's words; a kernel left its "
        "memory: compute-sanitizer shows which. The GPU's context is lost; start the process again"
    )
    fail("cuMemAlloc", 719)
    with pytest.raises(
        CudaContextLostError, match=r"^the GPU's context is lost \(first error: cuStreamCreate failed: "
    ):
        DeviceBuffer(device, 16)
    fail("cuMemAlloc", 201)
    with pytest.raises(CudaError, match=r"^cuMemAlloc failed: CUDA error 201: "):
        DeviceBuffer(device, 16)


def test_out_of_memory_is_an_error_of_its_own(device: Device) -> None:
    with pytest.raises(
        CudaOutOfMemoryError, match=r"cuMemAlloc failed: CUDA error 2: CUDA_ERROR_OUT_OF_MEMORY.*smaller"
    ):
        DeviceBuffer(device, 2**31)
    assert CudaOutOfMemoryError.exit_status == 6


def test_a_driver_that_lacks_a_function_asks_for_the_binding_of_its_version(device: Device) -> None:
    # Of the real binding: the fake driver has no arrays.
    with pytest.raises(CudaError, match=r'cuArrayDestroy cannot be called: .*pip install "cuda-bindings==13\.\*"'):
        device.driver.call("cuArrayDestroy", 0)


def test_a_device_whose_context_cannot_be_made_leaves_nothing() -> None:
    fail("cuDevicePrimaryCtxRetain", 2)
    with pytest.raises(CudaOutOfMemoryError):
        Device()


def test_the_context_lives_until_everything_on_it_is_closed() -> None:
    device = Device()
    stream, buffer = Stream(device), DeviceBuffer(device, 8)
    device.close()
    assert alive() == {"context": 1, "stream": 1, "device memory": 1}
    with pytest.raises(CudaError, match="this Device is closed"):
        Event(device)
    stream.close()
    buffer.close()


def test_closing_works_on_a_thread_that_knows_no_device(device: Device, cubin: Cubin) -> None:
    stream = Stream(device)
    made = [Event(device), DeviceBuffer(device, 8), MappedBuffer(device, 8), Module(device, cubin), stream]
    made.append(Graph(stream, lambda s: None))
    failures: list[BaseException] = []

    def close() -> None:
        try:
            assert FAKE.fake_depth() == 0
            for owned in made:
                owned.close()
            assert FAKE.fake_depth() == 0
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert failures == []
    assert alive() == {"context": 1}


def test_a_closed_stream_takes_nothing(device: Device, stream: Stream) -> None:
    other = Stream(device)
    other.close()
    with pytest.raises(CudaError, match="this Stream is closed"):
        other.synchronize()
    with Event(device) as event, pytest.raises(CudaError, match="this Stream is closed"):
        event.record(other)


def test_streams_and_events(device: Device, stream: Stream) -> None:
    with Event(device, timing=True) as start, Event(device, timing=True) as end, Stream(device) as other:
        start.record(stream)
        end.record(stream)
        other.wait_for(end)
        end.synchronize()
        assert end.milliseconds_since(start) == 1.5
        assert stream.is_done()
        assert end.is_done()
        FAKE.fake_not_ready(1)
        assert not stream.is_done()
        assert not end.is_done()
        FAKE.fake_not_ready(0)
        fail("cuStreamQuery", 700)
        with pytest.raises(CudaError, match="cuStreamQuery failed"):
            stream.is_done()
    assert stream.__cuda_stream__() == (0, stream.handle)


def test_a_borrowed_stream_is_not_destroyed(device: Device, stream: Stream) -> None:
    with Stream(device, borrowed=stream.handle) as same:
        same.synchronize()
    stream.synchronize()
    with Stream(device, borrowed=0) as default:
        default.synchronize()
    assert "cuStreamDestroy" not in calls()


def test_arrays_go_up_and_come_down(device: Device, stream: Stream) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with DeviceBuffer(device, 256) as buffer:
        buffer.fill(0xFF, stream)
        array = buffer.array((2, 3, 4), np.float32, offset_bytes=64)
        array.upload(values, stream)
        np.testing.assert_array_equal(array.numpy(stream), values)
        everything = buffer.array((256,), np.uint8).numpy(stream)
        assert (everything[:64] == 0xFF).all()
        assert (everything[64 + 96 :] == 0xFF).all()
        assert array.pointer == buffer.pointer + 64


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (np.zeros((3, 2), np.float32), r"float32 of shape \(2, 3\), the one on the host float32 of shape \(3, 2\)"),
        (np.zeros((2, 3), np.float64), "on the host float64"),
        (np.zeros((3, 2), np.float32).T, "ascontiguousarray"),
        (np.zeros((2, 6), np.float32)[:, ::2], "ascontiguousarray"),
    ],
)
def test_copies_are_checked(device: Device, stream: Stream, host: Frames, message: str) -> None:
    with DeviceBuffer(device, 24) as buffer:
        array = buffer.array((2, 3), np.float32)
        for copy in (array.upload, array.download):
            with pytest.raises(ShapeError, match=message):
                copy(host, stream)


def test_a_read_only_array_is_no_place_to_download_to(device: Device, stream: Stream) -> None:
    host = np.zeros(4, np.uint8)
    host.flags.writeable = False
    with DeviceBuffer(device, 4) as buffer:
        buffer.array((4,), np.uint8).upload(host, stream)
        with pytest.raises(ShapeError, match="read-only"):
            buffer.array((4,), np.uint8).download(host, stream)


@pytest.mark.parametrize(
    ("shape", "offset", "message"),
    [
        ((65,), 0, "does not fit a buffer of 64 bytes"),
        ((32,), 33, "does not fit"),
        ((4,), -4, "does not fit"),
        ((-1,), 0, "does not fit"),
    ],
)
def test_views_stay_inside_their_buffer(device: Device, shape: tuple[int, ...], offset: int, message: str) -> None:
    with DeviceBuffer(device, 64) as on_gpu, MappedBuffer(device, 64) as mapped:
        for view in (on_gpu.array, mapped.host_array, mapped.device_array):
            with pytest.raises(ShapeError, match=message):
                view(shape, np.uint8, offset)
            with pytest.raises(ShapeError, match="float32 cannot start at byte 2: 4 does not divide it"):
                view((1,), np.float32, 2)
    with pytest.raises(ShapeError, match="at least one byte"):
        DeviceBuffer(device, 0)


def test_pinned_memory_is_numpy_memory(device: Device, stream: Stream) -> None:
    with PinnedBuffer(device, 64) as pinned, DeviceBuffer(device, 64) as buffer:
        array = pinned.host_array((4, 4), np.float32)
        array[:] = np.eye(4)
        assert array.ctypes.data == pinned.address
        buffer.array((4, 4), np.float32).upload(array, stream)
        back = pinned.host_array((4,), np.float32, 16)
        assert back.tolist() == [0, 1, 0, 0]
        assert pinned.host_array((0, 3), np.float32).shape == (0, 3)


def test_an_array_keeps_pinned_memory_that_was_forgotten(device: Device) -> None:
    array = PinnedBuffer(device, 4096).host_array((4096,), np.uint8)
    gc.collect()
    array[:] = 7
    assert alive()["host memory"] == 1
    with pytest.warns(ResourceWarning, match="a PinnedBuffer was not closed"):
        del array
    assert "host memory" not in alive()


def test_mapped_memory_is_the_same_on_both_sides(device: Device, stream: Stream) -> None:
    with MappedBuffer(device, 12) as mapped:
        mapped.host_array((3,), np.int32)[:] = [1, 2, 3]
        assert mapped.device_array((3,), np.int32).numpy(stream).tolist() == [1, 2, 3]
    fail("cuMemHostGetDevicePointer", 1)
    with pytest.raises(CudaError, match="cuMemHostGetDevicePointer failed"):
        MappedBuffer(device, 12)


def test_the_cuda_array_interface(device: Device, stream: Stream) -> None:
    with DeviceBuffer(device, 64) as buffer:
        array = buffer.array((2, 4), np.float16, 16, stream=stream)
        assert array.__cuda_array_interface__ == {
            "version": 3,
            "shape": (2, 4),
            "typestr": "<f2",
            "data": (buffer.pointer + 16, False),
            "strides": None,
            "stream": stream.handle,
        }
        pitched = DeviceArray(device, buffer.pointer, (2, 3), np.uint8, strides=(8, 1), owner=buffer, writable=False)
        assert pitched.__cuda_array_interface__["strides"] == (8, 1)
        assert pitched.__cuda_array_interface__["data"] == (buffer.pointer, True)
        assert pitched.__cuda_array_interface__["stream"] is None
        assert buffer.array((0, 4), np.float32).__cuda_array_interface__["data"][0] == 0


class Interface:
    """An array of somebody else, by the CUDA array interface alone, as PyCUDA and Numba have it."""

    def __init__(self, array: DeviceArray, **changes: Any) -> None:
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | changes


class Old:
    """An array of somebody else, by DLPack as it was before 1.0."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        return self.array.__dlpack__(stream=stream)


@pytest.mark.parametrize("wrap", [lambda array: array, Old, Interface], ids=["DLPack 1", "DLPack 0", "interface"])
def test_foreign_arrays_are_taken_where_they_are(device: Device, stream: Stream, wrap: Any) -> None:
    with DeviceBuffer(device, 64) as buffer, Stream(device) as theirs:
        array = wrap(buffer.array((2, 4), np.float32, 32, stream=theirs))
        assert is_device_array(array)
        FAKE.fake_clear()
        taken = take_array(array, device, stream, dtype=np.float32, ndim=2, writable=True)
        assert (taken.pointer, taken.shape, taken.dtype) == (buffer.pointer + 32, (2, 4), np.float32)
        assert taken.is_contiguous
        # Our stream waits for theirs.
        assert [name for name in calls() if name in {"cuEventRecord", "cuStreamWaitEvent"}] == [
            "cuEventRecord",
            "cuStreamWaitEvent",
        ]
        assert not [name for name in calls() if "Synchronize" in name]


def test_what_is_taken_by_dlpack_outlives_the_closing_of_its_buffer(device: Device, stream: Stream) -> None:
    buffer = DeviceBuffer(device, 64)
    taken: DeviceArray | None = take_array(buffer.array((16,), np.float32), device, stream)
    buffer.close()
    gc.collect()
    assert alive()["device memory"] == 1
    assert taken is not None
    taken.numpy(stream)
    del taken
    assert "device memory" not in alive()
    assert not dlpack._exported


def test_the_exporter_makes_the_consumers_stream_wait(device: Device, stream: Stream) -> None:
    with DeviceBuffer(device, 64) as buffer:
        array = buffer.array((16,), np.float32, stream=stream)
        for consumer, waits in ((None, True), (1, True), (stream.handle, False), (-1, False)):
            FAKE.fake_clear()
            array.__dlpack__(stream=consumer)
            assert ("cuStreamWaitEvent" in calls()) is waits
        with pytest.raises(BufferError, match="without a copy"):
            array.__dlpack__(copy=True)
        with pytest.raises(BufferError):
            array.__dlpack__(dl_device=(dlpack.CPU, 0))
        array.__dlpack__(dl_device=(dlpack.CUDA, 0), copy=False)


def test_a_failed_export_holds_nothing(device: Device) -> None:
    with DeviceBuffer(device, 64) as buffer:
        array = DeviceArray(device, buffer.pointer, (16,), np.float32, owner=buffer, writable=False)
        with pytest.raises(ShapeError, match=r"needs DLPack 1\.0"):
            array.__dlpack__()
    assert "device memory" not in alive()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": object()}, "or a mask"),
        ({"version": 1}, "version 1"),
        ({"typestr": "nonsense"}, "is broken"),
        ({"data": None}, "is broken"),
        ({"strides": (32, 8)}, "leave gaps or another order"),
        ({"typestr": "<i4"}, "it is int32 and must be float32; convert it"),
        ({"shape": (8,)}, "must have 2 axes"),
    ],
)
def test_foreign_arrays_are_checked(device: Device, stream: Stream, changes: dict[str, Any], message: str) -> None:
    with DeviceBuffer(device, 64) as buffer:
        array = Interface(buffer.array((2, 4), np.float32), **changes)
        with pytest.raises(ShapeError, match=message):
            take_array(array, device, stream, dtype=np.float32, ndim=2)


def test_gaps_are_kept_where_they_are_welcome(device: Device, stream: Stream) -> None:
    with DeviceBuffer(device, 64) as buffer:
        pitched = DeviceArray(device, buffer.pointer, (2, 3), np.uint8, strides=(32, 1), owner=buffer)
        for array in (pitched, Interface(pitched)):
            assert take_array(array, device, stream, contiguous=False).strides == (32, 1)


def test_read_only_arrays_are_for_reading(device: Device, stream: Stream) -> None:
    with DeviceBuffer(device, 64) as buffer:
        frame = DeviceArray(device, buffer.pointer, (8,), np.uint8, owner=buffer, writable=False)
        for array in (frame, Interface(frame)):
            assert not take_array(array, device, stream).writable
            with pytest.raises(ShapeError, match="it is read-only"):
                take_array(array, device, stream, writable=True)


def test_what_is_on_the_host_is_not_taken(device: Device, stream: Stream) -> None:
    for candidate in (np.zeros(3), [1], None):
        assert not is_device_array(candidate)
        with pytest.raises(ShapeError, match="is not a GPU array"):
            take_array(candidate, device, stream)


def test_another_gpus_array_is_not_taken(device: Device, stream: Stream) -> None:
    class Elsewhere(Old):
        def __dlpack_device__(self) -> tuple[int, int]:
            return dlpack.CUDA, 3

    with DeviceBuffer(device, 4) as buffer, pytest.raises(ShapeError, match="on GPU 3, the segmenter on GPU 0"):
        take_array(Elsewhere(buffer.array((4,), np.uint8)), device, stream)


def launched(sizes: list[int]) -> tuple[tuple[int, ...], bytes]:
    content = ctypes.create_string_buffer(256)
    size = FAKE.fake_recorded(content)
    assert size == 28 + sum(sizes)
    return struct.unpack_from("7I", content.raw), content.raw[28:size]


def expect(sizes: list[int]) -> None:
    FAKE.fake_parameters(len(sizes), (ctypes.c_int * len(sizes))(*sizes))


def test_a_launch_reaches_the_driver_byte_for_byte(device: Device, stream: Stream, cubin: Cubin) -> None:
    with Module(device, cubin) as module, DeviceBuffer(device, 64) as buffer:
        kernel = module.kernel("scale")
        assert module.kernel("scale") is kernel
        values = buffer.array((16,), np.float32)
        config = LaunchConfig.covering((16, 3), (8, 2), shared_bytes=100)
        expect([8, 4, 4])
        launch = kernel.prepare(config, [values, np.int32(16), np.float32(0.5)])
        launch.enqueue(stream)
        numbers, content = launched([8, 4, 4])
        assert numbers == (2, 2, 1, 8, 2, 1, 100)
        assert struct.unpack("<Qif", content) == (values.pointer, 16, 0.5)
        launch.arguments.replace(1, np.int32(-9))
        launch.enqueue(stream)
        assert struct.unpack("<Qif", launched([8, 4, 4])[1]) == (values.pointer, -9, 0.5)
        expect([])
        module.kernel("nothing").launch(stream, LaunchConfig((1, 1, 1), (1, 1, 1)))
        assert launched([])[0] == (1, 1, 1, 1, 1, 1, 0)


def test_launches_that_cannot_work_do_not_reach_the_driver(device: Device, stream: Stream, cubin: Cubin) -> None:
    with Module(device, cubin) as module:
        FAKE.fake_clear()
        with pytest.raises(LaunchError, match=r"sample has no kernel missing; it has .*scale"):
            module.kernel("missing")
        with pytest.raises(LaunchError, match="scale takes 3 arguments, not 0"):
            module.kernel("scale").launch(stream, LaunchConfig((1, 1, 1), (1, 1, 1)))
        with pytest.raises(LaunchError, match="has 2048 threads"):
            module.kernel("nothing").launch(stream, LaunchConfig((1, 1, 1), (1024, 2, 1)))
        assert "cuLaunchKernel" not in calls()


def test_more_shared_memory_than_the_default_is_asked_for_once(device: Device, stream: Stream, cubin: Cubin) -> None:
    with Module(device, cubin) as module:
        kernel = module.kernel("nothing")
        expect([])
        sizes = [48 * 1024, 100_000, 60_000, 100_000, 166_912]
        for size in sizes:
            kernel.launch(stream, LaunchConfig((1, 1, 1), (1, 1, 1), size))
        assert calls().count("cuFuncSetAttribute") == 2
        assert FAKE.fake_dynamic_shared() == 166_912
        with pytest.raises(LaunchError, match="166913 bytes of shared memory"):
            kernel.launch(stream, LaunchConfig((1, 1, 1), (1, 1, 1), 166_913))


def test_a_module_that_does_not_load_says_for_what_it_was_made(device: Device, cubin: Cubin) -> None:
    fail("cuModuleLoadData", 209)
    with pytest.raises(
        CudaError, match=r"sample for sm_87, compiled by NVRTC .* on Fake \(sm_87, driver for CUDA 13\.0\)"
    ):
        Module(device, cubin)


@pytest.mark.parametrize(("compiled_by", "known"), [("13.5", "12.6"), ("14.0", "13.0")])
def test_machine_code_of_a_newer_cuda_is_not_given_to_the_driver(
    device: Device, cubin: Cubin, monkeypatch: pytest.MonkeyPatch, compiled_by: str, known: str
) -> None:
    monkeypatch.setattr(device.driver, "gpu", Gpu("Orin", "8.7", known))
    FAKE.fake_clear()
    with pytest.raises(CudaError) as caught:
        Module(device, dataclasses.replace(cubin, nvrtc_version=compiled_by))
    major = known.split(".")[0]
    assert f"compiled by NVRTC {compiled_by}, and the driver of Fake is for CUDA {known}: " in str(caught.value)
    assert f"Compile with NVRTC {major}: pip install" in str(caught.value)
    assert ('pip install ".[cuda12]"' in str(caught.value)) is (major == "12")
    assert "python -m yolact_plugins.compile --arch sm_87 -o MODEL.bundle" in str(caught.value)
    assert calls() == []


@pytest.mark.parametrize("compiled_by", ["12.6", "13.0", "13.9", "", "unknown"])
def test_other_machine_code_is_for_the_driver_to_judge(device: Device, cubin: Cubin, compiled_by: str) -> None:
    with Module(device, dataclasses.replace(cubin, nvrtc_version=compiled_by)) as module:
        module.kernel("nothing")


def test_a_failed_launch_names_the_kernel_and_its_grid(device: Device, stream: Stream, cubin: Cubin) -> None:
    with Module(device, cubin) as module:
        kernel = module.kernel("nothing")
        fail("cuLaunchKernel", 701)
        with pytest.raises(
            CudaError, match=r"nothing with LaunchConfig\(grid=\(1, .*cuLaunchKernel failed: CUDA error 701"
        ):
            kernel.launch(stream, LaunchConfig((1, 1, 1), (1, 1, 1)))
    with pytest.raises(CudaError, match="this Module is closed"):
        kernel.launch(stream, LaunchConfig((1, 1, 1), (1, 1, 1)))


def test_a_graph_repeats_what_was_captured(device: Device, stream: Stream) -> None:
    source, target = np.zeros(4, np.uint8), np.zeros(4, np.uint8)
    with DeviceBuffer(device, 4) as buffer:
        array = buffer.array((4,), np.uint8)

        def work(into: Stream) -> None:
            array.upload(source, into)
            array.download(target, into)

        with Graph(stream, work) as graph:
            graph.upload(stream)
            for value in (3, 4):
                source[:] = value
                assert target.tolist() != source.tolist()
                graph.launch(stream)
                assert target.tolist() == source.tolist()
            assert "graph" not in alive()


def test_an_error_while_capturing_leaves_the_stream_usable(device: Device, stream: Stream) -> None:
    def fails(into: Stream) -> None:
        raise LaunchError("of the work")

    def synchronizes(into: Stream) -> None:
        into.synchronize()

    with pytest.raises(LaunchError, match="of the work"):
        Graph(stream, fails)
    with pytest.raises(CudaError, match="cuStreamSynchronize failed: CUDA error 900"):
        Graph(stream, synchronizes)
    fail("cuGraphInstantiate", 2)
    with pytest.raises(CudaOutOfMemoryError):
        Graph(stream, lambda into: None)
    stream.synchronize()
    with Graph(stream, lambda into: None) as graph:
        graph.launch(stream)
