"""Frames that a camera writes where the GPU fetches them: nothing is copied on the host, and nothing dangles."""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.device_network import HostNetwork, replay, tensor_specs
from support.host_gpu import HostDriver, host_gpu
from support.scenes import DEFAULT_PROTOTYPE, Thing, camera_frames, raw_outputs, small_manifest
from support.tools import needs_tool
from yolact_plugins.driver.driver import Device
from yolact_plugins.errors import CudaError, CudaOutOfMemoryError
from yolact_runtime import CameraFrame, FrameBuffer, PixelFormat, Segmenter, SegmenterOptions
from yolact_runtime.backends import FakeBackend
from yolact_runtime.errors import BackendError, FrameError

pytestmark = [needs_tool("g++"), pytest.mark.usefixtures("kernel_cache")]

THINGS = [
    Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9),
    Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1),
]
OPTIONS = SegmenterOptions(min_confidence=0.1)
HEIGHT, WIDTH = 44, 70
Bytes = npt.NDArray[np.uint8]


both_kinds = pytest.mark.parametrize("device", [{}, {"integrated": True}], indirect=True, ids=["discrete", "jetson"])
every_order = pytest.mark.parametrize(
    "device",
    [{"integrated": kind, "order": order} for kind, order in ((False, 0), (False, 1), (True, 2))],
    indirect=True,
    ids=str,
)
Open = Callable[..., tuple[Segmenter, HostNetwork]]


@pytest.fixture
def opened(device: Device) -> Iterator[Open]:
    segmenters = []

    def make(**options: Any) -> tuple[Segmenter, HostNetwork]:
        network = HostNetwork(
            device,
            tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape),  # type: ignore[arg-type]  # three numbers
            replay([raw_outputs(small_manifest(), THINGS)]),
        )
        segmenter = Segmenter(small_manifest(), network, None, dataclasses.replace(OPTIONS, **options))
        segmenters.append(segmenter)
        return segmenter, network

    yield make
    for segmenter in segmenters:
        segmenter.close()


def driver_of(device: Device) -> HostDriver:
    assert isinstance(device.driver, HostDriver)
    return device.driver


def bytes_on_host(device: Device) -> int:
    return sum(size for kind, (_, size) in driver_of(device).live_memory().items() if kind != "device")


def frames_of(size: tuple[int, int]) -> list[CameraFrame]:
    """One of each format, a plane for each plane of a buffer."""
    frames = []
    for frame in camera_frames(np.random.default_rng(3), *size):
        if frame.format is PixelFormat.NV12 and frame.chroma is None:
            luma, chroma = frame.planes()
            frame = CameraFrame(luma, frame.format, chroma.reshape(len(chroma), -1, 2), frame.yuv)
        if frame.format is not PixelFormat.YUYV or frame.layout.width == size[1]:
            frames.append(frame)
    assert {frame.format for frame in frames} >= set(PixelFormat) - ({PixelFormat.YUYV} if size[1] % 2 else set())
    return frames


def buffer_for(segmenter: Segmenter, frame: CameraFrame) -> FrameBuffer:
    layout = frame.layout
    return segmenter.frame_buffer(layout.height, layout.width, layout.format, layout.yuv)


# --- frames -----------------------------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (31, 33)])
def test_the_network_gets_the_same_bits_as_of_an_array(opened: Open, device: Device, size: tuple[int, int]) -> None:
    segmenter, network = opened(frames_in_flight=1)
    for frame in frames_of(size):
        with buffer_for(segmenter, frame) as buffer:
            assert buffer.frame.layout == buffer.layout == frame.layout
            for target, plane in zip((buffer.pixels, buffer.chroma), frame.planes(), strict=False):
                assert target is not None
                np.copyto(target.reshape(plane.shape), plane)
            assert (buffer.data == np.concatenate([np.ravel(plane) for plane in frame.planes()])).all()
            network.inputs.clear()
            expected = segmenter(frame)
            for _ in range(2):  # captured, launched
                assert segmenter(buffer).mask == expected.mask
            assert network.inputs[0].any()
            assert all((image == network.inputs[0]).all() for image in network.inputs)
    assert not driver_of(device).library.misuses


@both_kinds
def test_nothing_is_copied_taken_or_captured_once_it_runs(opened: Open, device: Device) -> None:
    segmenter, _ = opened()
    buffers = [segmenter.frame_buffer(HEIGHT, WIDTH) for _ in range(5)]
    driver = driver_of(device)
    with driver.recording() as calls:
        for _ in range(3):
            for buffer in buffers:
                segmenter(buffer)
    # One graph for each of the two frames in flight, however many buffers there are.
    assert [str(name) for name in calls].count("cuGraphInstantiate") == 2
    for buffer in buffers:
        with driver.recording() as calls:
            segmenter(buffer)
        names = [str(name) for name in calls]
        assert not [name for name in names if "Alloc" in name or "Free" in name or "Create" in name]
        assert names.count("cuMemcpyHtoDAsync") == int(not device.integrated)
        assert names.count("cuLaunchKernel") == int(device.integrated)
        assert names.count("cuGraphLaunch") == names.count("cuEventSynchronize") == 1
        assert len(names) <= 6


@every_order
def test_a_camera_loop_with_as_many_buffers_as_frames_in_flight(opened: Open, device: Device) -> None:
    del device
    segmenter, network = opened(frames_in_flight=3)
    spec = small_manifest().input
    scenes = [raw_outputs(small_manifest(), THINGS[: i % 3]) for i in range(12)]
    network.function = lambda image: scenes[round(float(image[0, 0, 0, 0]) * spec.std_bgr[2] + spec.mean_bgr[2])]
    buffers = [segmenter.frame_buffer(HEIGHT, WIDTH) for _ in range(3)]

    def camera() -> Iterator[FrameBuffer]:
        for i in range(12):
            buffer = buffers[i % 3]
            assert not buffer.in_flight
            buffer.pixels[:] = i
            yield buffer

    with segmenter.stream(camera()) as results:
        assert [len(found) for found in results] == [i % 3 for i in range(12)]
    assert not any(buffer.in_flight for buffer in buffers)


@both_kinds
def test_a_buffer_that_is_given_again_too_early_is_refused(opened: Open) -> None:
    segmenter, _ = opened()
    path = segmenter.frame_path
    with segmenter.frame_buffer(HEIGHT, WIDTH) as buffer:
        ticket = path.start(buffer)
        assert buffer.in_flight
        buffer.pixels[:] = 7  # spoils the frame, and nothing else
        with pytest.raises(FrameError, match=r"passed again while its last frame.*as many buffers as frames_in_fl"):
            segmenter(buffer)
        assert len(path.collect(ticket)) == 2
        assert not buffer.in_flight
        path.discard(path.start(buffer))
        assert not buffer.in_flight
        assert len(segmenter(buffer)) == 2
        # One buffer for two frames in flight.
        with segmenter.stream([buffer] * 4) as results, pytest.raises(FrameError, match="passed again"):
            list(results)
        assert not buffer.in_flight


@both_kinds
def test_results_that_stay_on_the_gpu(opened: Open) -> None:
    segmenter, _ = opened()
    with segmenter.frame_buffer(HEIGHT, WIDTH) as buffer, segmenter.on_device(buffer) as found:
        assert not buffer.in_flight
        assert (found.id_map().numpy(found.stream) == segmenter(buffer).mask.id_map()).all()


@both_kinds
def test_a_frame_whose_masks_need_more_memory_is_run_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolact_runtime.cuda import frame_memory

    monkeypatch.setattr(frame_memory, "_FULL_MASKS", 0)
    monkeypatch.setattr(frame_memory, "_RUNS_IN_A_COLUMN", 1)
    segmenter, network = opened(frames_in_flight=1)
    with segmenter.frame_buffer(HEIGHT, WIDTH) as buffer:
        for _ in range(3):
            assert len(segmenter(buffer)) == 2
        assert len(network.inputs) > 3
        assert all((image == network.inputs[0]).all() for image in network.inputs)


def test_buffers_of_others_are_copied_like_any_array(opened: Open) -> None:
    segmenter, network = opened()
    cpu = Segmenter(small_manifest(), FakeBackend([raw_outputs(small_manifest(), THINGS)]), None, OPTIONS)
    with host_gpu() as elsewhere:
        other_network = HostNetwork(elsewhere, network.tensors, network.function)
        with Segmenter(small_manifest(), other_network, None, OPTIONS) as other, cpu:
            for owner in (cpu, other):
                buffer = owner.frame_buffer(HEIGHT, WIDTH)
                buffer.pixels[:] = 9
                network.inputs.clear()
                assert len(segmenter(buffer)) == len(cpu(buffer)) == 2
                segmenter(np.full((HEIGHT, WIDTH, 3), 9, np.uint8))
                assert (network.inputs[0] == network.inputs[1]).all()


@both_kinds
def test_segmenters_that_share_an_engine_share_buffers(opened: Open, device: Device) -> None:
    segmenter, _ = opened()
    with segmenter.share() as other, segmenter.frame_buffer(HEIGHT, WIDTH) as buffer:
        other(buffer)
        other(buffer)
        with driver_of(device).recording() as calls:
            assert len(other(buffer)) == 2
        assert [str(name) for name in calls].count("cuMemcpyHtoDAsync") == int(not device.integrated)


# --- memory -----------------------------------------------------------------------------------------------------------


@both_kinds
def test_memory_is_freed_when_the_last_who_uses_it_is_gone(opened: Open, device: Device) -> None:
    segmenter, _ = opened()
    segmenter(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    segmenter(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    before = bytes_on_host(device)
    size = HEIGHT * WIDTH * 3
    buffer = segmenter.frame_buffer(HEIGHT, WIDTH)
    assert bytes_on_host(device) == before + size
    ticket = segmenter.frame_path.start(buffer)
    kept = buffer.pixels[3:, ::2]
    buffer.close()
    buffer.close()
    assert buffer.closed
    for use in (lambda: buffer.pixels, lambda: buffer.data, lambda: buffer.frame, lambda: segmenter(buffer)):
        with pytest.raises(BackendError, match=r"frame buffer was closed.*segmenter\.frame_buffer\(height, width\)"):
            use()
    assert len(segmenter.frame_path.collect(ticket)) == 2
    assert bytes_on_host(device) == before + size
    kept[:] = 5
    assert (kept == 5).all()
    del kept
    assert bytes_on_host(device) == before


@both_kinds
@pytest.mark.parametrize("ending", ["with", "close", "forgotten", "segmenter"])
def test_however_a_buffer_ends_nothing_is_left(opened: Open, device: Device, ending: str) -> None:
    segmenter, _ = opened(frames_in_flight=1)
    segmenter(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    before = bytes_on_host(device)
    buffer = segmenter.frame_buffer(HEIGHT, WIDTH)
    segmenter(buffer)
    if ending == "with":
        with buffer:
            pass
    elif ending == "close":
        buffer.close()
    elif ending == "forgotten":
        del buffer
        gc.collect()
    else:
        segmenter.close()
        assert buffer.closed
        assert driver_of(device).live_memory() == {}
        with pytest.raises(BackendError, match="the segmenter was closed"):
            segmenter.frame_buffer(HEIGHT, WIDTH)
        with pytest.raises(BackendError, match="was closed"):
            segmenter(buffer)
        return
    assert bytes_on_host(device) == before


@both_kinds
def test_a_frame_in_flight_outlives_buffer_and_segmenter(opened: Open, device: Device) -> None:
    segmenter, network = opened()
    path = segmenter.frame_path
    for _ in range(2):
        with segmenter.frame_buffer(HEIGHT, WIDTH) as buffer:
            buffer.pixels[:] = 200
            ticket = path.start(buffer)
    segmenter.close()
    assert buffer.closed
    assert not network.closed
    assert len(path.collect(ticket)) == 2
    assert network.inputs[-1].max() > 1
    path.discard(next(iter(path._slots)))  # type: ignore[attr-defined]  # the first frame, which nobody wanted
    assert network.closed
    assert driver_of(device).live_memory() == {}


def test_arrays_outlive_segmenter_buffer_and_device() -> None:
    driver = HostDriver()
    with Device(driver=driver) as device:
        network = HostNetwork(
            device,
            tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape),  # type: ignore[arg-type]  # three numbers
            replay([raw_outputs(small_manifest(), THINGS)]),
        )
        with Segmenter(small_manifest(), network, None, OPTIONS) as segmenter:
            pixels = segmenter.frame_buffer(HEIGHT, WIDTH, "nv12").chroma
            assert pixels is not None
    assert driver.live_memory() == {"pinned": (1, HEIGHT * WIDTH * 3 // 2)}
    pixels[:] = 77
    assert pixels.sum() == 77 * pixels.size
    del pixels
    assert driver.leaks() == []


@both_kinds
def test_a_frame_that_cannot_be_begun_lets_the_buffer_go(opened: Open, device: Device) -> None:
    segmenter, _ = opened()
    library = driver_of(device).library
    with segmenter.frame_buffer(HEIGHT, WIDTH) as buffer:
        for _ in range(4):
            segmenter(buffer)
        for name in ("cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"):
            library.inject = lambda called, name=name: 1 if called == name else None  # type: ignore[misc]
            with pytest.raises(CudaError, match=name):
                segmenter(buffer)
            library.inject = lambda _name: None
            assert not buffer.in_flight
            assert len(segmenter(buffer)) == 2


def test_there_may_be_no_pinned_memory(opened: Open, device: Device) -> None:
    segmenter, _ = opened()
    driver_of(device).library.inject = lambda name: 2 if name == "cuMemHostAlloc" else None
    with pytest.raises(CudaOutOfMemoryError):
        segmenter.frame_buffer(1000, 1000)
    driver_of(device).library.inject = lambda _name: None


def test_buffers_are_asked_for_and_closed_on_many_threads(opened: Open, device: Device) -> None:
    segmenter, _ = opened()
    errors: list[BaseException] = []

    def work(value: int) -> None:
        try:
            for _ in range(3):
                with segmenter.frame_buffer(HEIGHT, WIDTH) as buffer:
                    buffer.pixels[:] = value
                    assert len(segmenter(buffer)) == 2
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    segmenter.close()
    assert driver_of(device).live_memory() == {}
