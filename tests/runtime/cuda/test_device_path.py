"""The way of a frame on the GPU, on a GPU of host memory whose kernels are the real ones: against the CPU's way."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from support.device_network import HostNetwork, replay, tensor_specs
from support.host_gpu import HostDriver, host_gpu
from support.scenes import DEFAULT_PROTOTYPE, Thing, camera_frames, raw_outputs, small_manifest
from support.tools import needs_tool
from yolact_plugins.driver.driver import Device
from yolact_plugins.errors import CudaOutOfMemoryError
from yolact_runtime import NmsMethod, Segmenter, SegmenterOptions
from yolact_runtime.backends import DeviceBackend, FakeBackend
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.errors import BackendError, FrameError, OutputError, UsageError
from yolact_runtime.masks.instances import Instances
from yolact_runtime.model.manifest import NetworkDtypes
from yolact_runtime.model.network_outputs import RawOutputs

pytestmark = [needs_tool("g++"), pytest.mark.usefixtures("kernel_cache")]

THINGS = [
    Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9),
    Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1),
    Thing((0.3, 0.5, 0.9, 0.95), class_id=1, confidence=0.4, prototype=2),
]
PICTURES = SegmenterOptions(min_confidence=0.1)
FRAME = np.random.default_rng(0).integers(0, 256, (45, 70, 3), np.uint8)
Outputs = dict[str, npt.NDArray[np.float32]]


every_machine = pytest.mark.parametrize(
    "device", [{}, {"integrated": True}, *({"order": order} for order in (1, 2, 3))], indirect=True, ids=str
)


def driver_of(device: Device) -> HostDriver:
    assert isinstance(device.driver, HostDriver)
    return device.driver


def random_outputs(seed: int, priors: int, classes: int) -> Outputs:
    """What no trained network returns: many candidates in all classes, soft masks of every shape."""
    rng = np.random.default_rng(seed)
    prototype = rng.normal(0, 1, (6, 8, 12)).astype(np.float32)
    for _ in range(2):  # smooth, so that masks have shapes
        prototype = (prototype + np.roll(prototype, 1, 1) + np.roll(prototype, 1, 2) + np.roll(prototype, -1, 2)) / 2
    return {
        "box_regression": rng.normal(0, 2, (1, priors, 4)).astype(np.float32),
        "class_logit": rng.normal(0, 3, (1, priors, classes + 1)).astype(np.float32),
        "mask_coefficient": rng.normal(0, 1, (1, priors, 6)).astype(np.float32),
        "prototype": prototype[None].astype(np.float32),
    }


@dataclasses.dataclass
class Pair:
    """One model on both ways."""

    gpu: Segmenter
    cpu: Segmenter
    network: HostNetwork

    def check(self, frame: Any, host_frame: Any = None) -> Instances:
        found, expected = self.gpu(frame), self.cpu(frame if host_frame is None else host_frame)
        same(found, expected)
        return found


def same(found: Instances, expected: Instances) -> None:
    assert (found.height, found.width) == (expected.height, expected.width)
    assert found.class_id.tolist() == expected.class_id.tolist()
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=1e-4, atol=1e-3)
    # Where the hand-made prototypes of +6 and -6 meet, some pixels are 0.5 but for rounding; of random ones, two are.
    mine, theirs = found.mask.dense(), expected.mask.dense()
    assert (mine != theirs).sum() <= 8
    for masks in (found.mask, expected.mask):
        assert (masks.start < masks.end).all()


@pytest.fixture
def pair(device: Device) -> Iterator[Callable[..., Pair]]:
    opened: list[Segmenter] = []

    def make(
        scenes: Sequence[Outputs],
        options: SegmenterOptions = PICTURES,
        mask_iou: tuple[FakeBackend, FakeBackend] | None = None,
        dtype: npt.DTypeLike = np.float32,
        input_dtype: npt.DTypeLike = np.float32,
    ) -> Pair:
        manifest = small_manifest(mask_rescoring=mask_iou is not None)
        shape = scenes[0]["prototype"].shape[1:]
        network = HostNetwork(device, tensor_specs(manifest, shape, dtype, input_dtype), replay(scenes))  # type: ignore[arg-type]  # three numbers
        assert isinstance(network, DeviceBackend)
        rounded = [{name: array.astype(dtype) for name, array in scene.items()} for scene in scenes]
        gpu = Segmenter(manifest, network, mask_iou[0] if mask_iou else None, options)
        opened.append(gpu)
        cpu = Segmenter(manifest, FakeBackend(rounded), mask_iou[1] if mask_iou else None, options)
        return Pair(gpu, cpu, network)

    yield make
    for segmenter in opened:
        segmenter.close()


def scene(things: Sequence[Thing] = THINGS) -> Outputs:
    return raw_outputs(small_manifest(), things)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(45, 70), (1, 1), (300, 20), (64, 640)])
def test_a_scene_at_every_frame_size(pair: Callable[..., Pair], size: tuple[int, int]) -> None:
    found = pair([scene()]).check(np.zeros((*size, 3), np.uint8))
    assert len(found) == 3


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", [NmsMethod.FAST, NmsMethod.CROSS_CLASS])
def test_random_outputs(pair: Callable[..., Pair], seed: int, method: NmsMethod) -> None:
    options = SegmenterOptions(
        nms=method, min_confidence=(0.0, 0.3)[seed % 2], crop_margin=(0.0, 0.1, np.inf)[seed % 3]
    )
    outputs = random_outputs(seed, small_manifest().priors.num_priors, 3)
    found = pair([outputs], options).check(FRAME)
    assert len(found) > 5


def test_half_precision(pair: Callable[..., Pair]) -> None:
    both = pair([random_outputs(1, 90, 3)], dtype=np.float16, input_dtype=np.float16)
    both.check(FRAME)
    assert both.network.inputs[0].dtype == np.float16


def test_nothing_found(pair: Callable[..., Pair]) -> None:
    found = pair([scene([])]).check(FRAME)
    assert len(found) == 0


def test_the_network_gets_what_the_cpu_gives_it(pair: Callable[..., Pair]) -> None:
    both = pair([scene()])
    both.check(FRAME)
    cpu = both.cpu._model.shared.network
    assert isinstance(cpu, FakeBackend)
    np.testing.assert_allclose(both.network.inputs[0], cpu.tensors[0], atol=1e-4)


@every_machine
def test_many_frames_of_several_sizes(pair: Callable[..., Pair]) -> None:
    scenes = [scene(THINGS[: i % 4]) for i in range(9)]
    both = pair(scenes, dataclasses.replace(PICTURES, frames_in_flight=1))
    sizes = [(45, 70), (45, 70), (45, 70), (20, 30), (20, 30), (90, 70), (45, 70), (45, 70), (45, 70)]
    counts = [len(both.check(np.zeros((*size, 3), np.uint8))) for size in sizes]
    assert counts == [i % 4 for i in range(9)]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_masks_are_scored_by_the_second_network(pair: Callable[..., Pair], dtype: npt.DTypeLike) -> None:
    iou = {"mask_iou": np.linspace(0.1, 0.9, 9, dtype=np.float32).reshape(3, 3)}
    backends = FakeBackend([iou]), FakeBackend([iou])
    both = pair([scene()], dataclasses.replace(PICTURES, crop_margin=0.2), backends, dtype)
    found, expected = both.gpu(FRAME), both.cpu(FRAME)
    assert found.mask_confidence is not None
    assert expected.mask_confidence is not None
    np.testing.assert_allclose(found.mask_confidence, expected.mask_confidence, rtol=1e-5)
    np.testing.assert_allclose(backends[0].tensors[0], backends[1].tensors[0], atol=1e-5)


@pytest.mark.parametrize("name", RawOutputs._fields)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_refused_as_on_the_cpu(
    pair: Callable[..., Pair], name: str, value: float
) -> None:
    broken = scene()
    # The last value belongs to no detection: damage is damage.
    broken[name].reshape(-1)[-1] = value
    both = pair([broken, scene()])
    for segmenter in (both.gpu, both.cpu):
        with pytest.raises(OutputError if segmenter is both.cpu else BackendError, match="NaN or infinity"):
            segmenter(FRAME)
    assert len(both.gpu(FRAME)) == 3


def test_frames_after_one_that_was_refused_are_as_if_it_had_not_been(pair: Callable[..., Pair], device: Device) -> None:
    """Wherever they lie, and also when nobody waited for the one that is refused."""
    broken = scene()
    broken["prototype"].reshape(-1)[0] = np.nan
    both = pair([broken, scene()] * 4, dataclasses.replace(PICTURES, frames_in_flight=1))
    there, owner = on_device(device, FRAME)
    for frame in (FRAME, there, FRAME):
        with pytest.raises(BackendError, match="NaN or infinity"):
            both.gpu(frame)
        assert len(both.gpu(frame)) == 3
    path: Any = both.gpu.frame_path
    slot = path.start(FRAME)
    slot.abandon()
    path.give_back(slot)
    assert len(both.gpu(FRAME)) == 3
    owner.close()


@pytest.mark.parametrize("shape", [(1, 1 << 25, 3), (1 << 25, 1, 3), (1 << 16, 1 << 15, 3)])
def test_frames_that_overflow_the_arithmetic_of_the_kernels_are_refused(
    pair: Callable[..., Pair], shape: tuple[int, ...]
) -> None:
    both = pair([scene()])
    found = both.gpu(FRAME)
    with pytest.raises(FrameError, match=f"a frame of {shape[1]} x {shape[0]} pixels is too large for the kernels"):
        both.gpu(np.broadcast_to(np.zeros(3, np.uint8), shape))
    same(both.gpu(FRAME), found)


# --- one frame's cost -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capturable", [True, False])
def test_a_frame_allocates_nothing_and_waits_once(
    pair: Callable[..., Pair], device: Device, capturable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    both = pair([scene()])
    both.network.capturable = capturable
    for _ in range(6):
        both.gpu(FRAME)
    with driver_of(device).recording() as calls, caplog.at_level("INFO"):
        both.gpu(FRAME)
    names = [str(call) for call in calls]
    assert not [name for name in names if "Alloc" in name or "Free" in name or "Create" in name]
    assert len([name for name in names if "Synchronize" in name]) == 1
    assert names.count("cuGraphLaunch") == int(capturable)
    # From the camera's frame to the host's memory; nothing else is enqueued.
    assert names.count("cuLaunchKernel") == (0 if capturable else 10)
    assert not [name for name in names if "Memset" in name]
    # The frame; results are brought by a kernel.
    assert len([name for name in names if "Memcpy" in name]) == 1


def test_everything_is_taken_at_open_when_the_size_is_known(pair: Callable[..., Pair], device: Device) -> None:
    both = pair([scene()], dataclasses.replace(PICTURES, frame_size=(45, 70)))
    with driver_of(device).recording() as calls:
        both.gpu(FRAME)
    names = [str(call) for call in calls]
    assert not [name for name in names if "Alloc" in name or "Capture" in name or "Instantiate" in name]
    assert names.count("cuGraphLaunch") == 1


def test_masks_that_need_more_memory_get_it(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from yolact_runtime.cuda import frame_memory

    monkeypatch.setattr(frame_memory, "_FULL_MASKS", 0)
    monkeypatch.setattr(frame_memory, "_RUNS_IN_A_COLUMN", 1)
    both = pair([random_outputs(3, 90, 3)], SegmenterOptions())
    with caplog.at_level("INFO", "yolact_runtime"):
        found = [both.check(FRAME) for _ in range(3)]
    assert len(found[0]) == 100
    # Two frames in flight have memory of their own; each grows once for the bits and once for the runs.
    assert caplog.text.count("allocating more memory") == 4
    both.check(FRAME[:30, :40])


# --- frames of every kind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(45, 70), (45, 70, 1), (45, 70, 4)])
def test_gray_and_alpha(pair: Callable[..., Pair], shape: tuple[int, ...]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    both = pair([scene()])
    both.check(frame)
    np.testing.assert_allclose(both.network.inputs[0], both.cpu._model.shared.network.tensors[0], atol=1e-4)  # type: ignore[attr-defined]  # a fake


@pytest.mark.parametrize("size", [(44, 70), (31, 33)])
@every_machine
def test_formats_of_cameras(pair: Callable[..., Pair], size: tuple[int, int]) -> None:
    both = pair([scene()])
    for i, frame in enumerate(camera_frames(np.random.default_rng(2), *size)):
        both.check(frame)
        tensors = both.cpu._model.shared.network.tensors  # type: ignore[attr-defined]  # a fake
        np.testing.assert_allclose(both.network.inputs[i], tensors[i], atol=2e-4)


def on_device(device: Device, array: npt.NDArray[np.uint8], gap: int = 0) -> Any:
    """The array in GPU memory that somebody else owns, with `gap` bytes between rows."""
    from yolact_plugins.driver.device_array import DeviceArray
    from yolact_plugins.driver.memory import DeviceBuffer

    rows = array.reshape(len(array), -1)
    pitch = rows.shape[1] + gap
    buffer = DeviceBuffer(device, len(rows) * pitch)
    driver_of(device).view(buffer.pointer, (len(rows), pitch), np.uint8)[:, : rows.shape[1]] = rows
    inner = [array.itemsize * int(np.prod(array.shape[axis + 1 :])) for axis in range(1, array.ndim)]
    return DeviceArray(device, buffer.pointer, array.shape, np.uint8, strides=(pitch, *inner), owner=buffer), buffer


@pytest.mark.parametrize("gap", [0, 5])
def test_frames_on_the_gpu_are_used_where_they_are(pair: Callable[..., Pair], device: Device, gap: int) -> None:
    both = pair([scene()])
    buffers = []
    for i, host in enumerate(camera_frames(np.random.default_rng(2), 44, 70) * 2):
        planes = []
        for array in (host.pixels, host.chroma):
            if array is None:
                planes.append(None)
                continue
            there, buffer = on_device(device, np.ascontiguousarray(array), gap)
            planes.append(there)
            buffers.append(buffer)
        with driver_of(device).recording() as calls:
            both.check(dataclasses.replace(host, pixels=planes[0], chroma=planes[1]), host)
        assert not [call for call in calls if "HtoD" in str(call)]
        tensors = both.cpu._model.shared.network.tensors  # type: ignore[attr-defined]  # a fake
        np.testing.assert_allclose(both.network.inputs[i], tensors[i], atol=2e-4)
    for buffer in buffers:
        buffer.close()


def test_frames_that_cannot_be_used(pair: Callable[..., Pair], device: Device) -> None:
    both = pair([scene()])
    there, buffer = on_device(device, FRAME)
    with buffer:
        turned = type(there)(device, there.pointer, (70, 45, 3), np.uint8, strides=(3, 210, 1), owner=buffer)
        with pytest.raises(FrameError, match="may have gaps between rows only"):
            both.gpu(turned)
        with pytest.raises(FrameError, match=r"\(H, W, 3\) BGR or \(H, W, 4\)"):
            both.gpu(type(there)(device, there.pointer, (45, 70), np.uint8, owner=buffer))
        with pytest.raises(FrameError, match="lies on the GPU and the network runs on the host"):
            both.cpu(there)
        assert len(both.gpu(there)) == 3
    with pytest.raises(FrameError, match="found str"):
        both.gpu("frame")


# --- several frames ---------------------------------------------------------------------------------------------------


@every_machine
def test_a_stream_is_in_order_and_equal_to_single_frames(pair: Callable[..., Pair]) -> None:
    scenes = [scene(THINGS[: i % 4]) for i in range(12)]
    both = pair(scenes)
    # Frames in flight may run in any order: what the network sees depends on the frame.
    spec = small_manifest().input
    both.network.function = lambda image: scenes[round(float(image[0, 0, 0, 0]) * spec.std_bgr[2] + spec.mean_bgr[2])]

    def camera() -> Iterator[npt.NDArray[np.uint8]]:
        buffer = np.empty((45, 70, 3), np.uint8)
        for i in range(12):
            buffer[:] = i
            yield buffer

    found = list(both.gpu.stream(camera()))
    assert [len(instances) for instances in found] == [i % 4 for i in range(12)]
    for instances, frame in zip(found, camera(), strict=True):
        same(instances, both.cpu(frame))


def test_the_next_frames_are_given_to_the_gpu_before_anybody_waits_for_them(
    pair: Callable[..., Pair], device: Device
) -> None:
    both = pair([scene()])
    with driver_of(device).recording() as calls:
        stream = both.gpu.stream([FRAME] * 6)
        assert len(next(stream)) == 3
        # Two more are begun while the consumer is busy with the first, and nothing has waited for them.
        deadline = time.monotonic() + 300
        while calls.count("cuEventRecord") < 3:
            assert time.monotonic() < deadline, calls
            time.sleep(0.01)
        assert calls.count("cuEventSynchronize") == 1
        assert [len(found) for found in stream] == [3] * 5
        assert calls.count("cuEventSynchronize") == calls.count("cuEventRecord") == 6


def test_frames_from_many_threads(pair: Callable[..., Pair]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    both = pair([scene()])
    expected = both.cpu(FRAME)
    with ThreadPoolExecutor(6) as pool:
        for instances in pool.map(both.gpu, itertools.repeat(FRAME, 30)):
            same(instances, expected)


@pytest.mark.parametrize("results", [0, 1, 5])
def test_a_segmenter_that_is_closed_while_streams_run_frees_everything(
    pair: Callable[..., Pair], device: Device, results: int
) -> None:
    both = pair([scene()])
    streams = [both.gpu.stream(itertools.repeat(FRAME), timeout_s=60) for _ in range(2)]
    for stream in streams:
        assert len(list(itertools.islice(stream, results))) == results
    both.gpu.close()
    for stream in streams:
        with pytest.raises(BackendError, match="the segmenter was closed"):
            next(stream)
        stream.close()
        assert list(stream) == []
    # The streams' threads may have been about to begin with one more frame, which they discard.
    for thread in threading.enumerate():
        if thread.name == "yolact-stream":
            thread.join(300)
    assert both.network.closed
    assert driver_of(device).live_memory() == {}


def test_the_network_is_closed_behind_all_its_contexts(
    pair: Callable[..., Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the last frame in flight ends on another thread while this one closes what is free."""
    both = pair([scene()])
    path = both.gpu.frame_path
    assert isinstance(path, DevicePath)
    ticket = path.start(FRAME)
    free = path._free[0]
    close, was_closed = free.close, []

    def close_slowly() -> None:
        other = threading.Thread(target=path.discard, args=(ticket,))
        other.start()
        other.join(300)
        was_closed.append(both.network.closed)
        close()

    monkeypatch.setattr(free, "close", close_slowly)
    both.gpu.close()
    assert (was_closed, both.network.closed) == ([False], True)


def test_segmenters_share_an_engine(pair: Callable[..., Pair]) -> None:
    both = pair([scene()])
    other = both.gpu.share(SegmenterOptions(min_confidence=0.5))
    assert [len(both.gpu(FRAME)), len(other(FRAME))] == [3, 2]
    both.gpu.close()
    assert not both.network.closed
    assert len(other(FRAME)) == 2
    other.close()
    assert both.network.closed
    with pytest.raises(BackendError, match="closed"):
        both.gpu.share()
    with pytest.raises(BackendError, match="closed"):
        other(FRAME)


# --- results on the GPU -----------------------------------------------------------------------------------------------


def test_results_stay_on_the_gpu(pair: Callable[..., Pair], device: Device) -> None:
    both = pair([random_outputs(2, 90, 3)], dataclasses.replace(PICTURES, min_confidence=0.3))
    expected = both.gpu(FRAME)
    with driver_of(device).recording() as calls, both.gpu.on_device(FRAME) as found:
        assert len(found) == len(expected) > 3
        assert (found.confidence.numpy(found.stream) == expected.confidence).all()
        assert (found.class_id.numpy(found.stream) == expected.class_id).all()
        id_map, dense = found.id_map(), found.dense()
        assert (id_map.numpy(found.stream) == expected.mask.id_map()).all()
        assert (dense.numpy(found.stream) == expected.mask.dense()).all()
        assert found.arena.__cuda_array_interface__["typestr"] == "<u4"
        assert found.xyxy_relative.__dlpack_device__() == (2, 0)
        facts = f"{len(expected)} in a frame of {expected.width} x {expected.height}, in GPU memory"
        assert repr(found) == f"<DeviceInstances: {facts}>"
    assert repr(found) == f"<DeviceInstances: {facts}, closed>"
    assert calls
    with pytest.raises(BackendError, match="were closed"):
        found.id_map()
    found.close()
    both.check(FRAME)


def test_results_that_are_not_closed_are_counted(pair: Callable[..., Pair]) -> None:
    both = pair([scene()])
    kept = [both.gpu.on_device(FRAME) for _ in range(16)]
    with pytest.raises(UsageError, match="16 frames are in flight at once; collect results, and close those"):
        both.gpu(FRAME)
    kept.pop().close()
    assert len(both.gpu(FRAME)) == 3
    both.gpu.close()
    assert not both.network.closed
    for found in kept:
        assert len(found) == 3
        found.close()
    assert both.network.closed


def test_results_on_the_gpu_need_a_gpu(pair: Callable[..., Pair]) -> None:
    with pytest.raises(BackendError, match="on_device needs an engine"):
        pair([scene()]).cpu.on_device(FRAME)


# --- what is asked for and cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SegmenterOptions(nms="traditional"), "traditional NMS runs on the CPU only"),
        (SegmenterOptions(max_instances=300), "keeps up to 256 boxes"),
    ],
)
def test_settings_beyond_the_kernels(pair: Callable[..., Pair], options: SegmenterOptions, message: str) -> None:
    with pytest.raises(UsageError, match=f"{message}.*cpu_postprocessing=True"):
        pair([scene()], options)
    both = pair([scene()], dataclasses.replace(options, cpu_postprocessing=True))
    assert both.gpu.postprocessing == "cpu"
    both.check(FRAME)


def test_the_cpu_is_used_only_when_asked_and_it_is_said(
    pair: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    assert pair([scene()]).gpu.postprocessing == "gpu"
    assert not caplog.records
    both = pair([scene()], dataclasses.replace(PICTURES, cpu_postprocessing=True))
    assert "post-processed on the CPU, as requested" in caplog.text
    both.check(FRAME)


@pytest.mark.parametrize("on_cpu", [False, True])
def test_a_network_of_ones_own_says_its_dtypes_itself(pair: Callable[..., Pair], on_cpu: bool) -> None:
    """The manifest states those of the file that it was read of, which this network did not come from."""
    options = dataclasses.replace(PICTURES, cpu_postprocessing=on_cpu)
    both = pair([scene()], options, dtype=np.float16, input_dtype=np.float16)
    assert both.gpu.manifest.dtypes == NetworkDtypes("float32", "float32")
    assert both.gpu.postprocessing == ("cpu" if on_cpu else "gpu")
    both.check(FRAME)


@pytest.mark.parametrize("memory_bytes", [1_000, 30_000, 60_000, 80_000])
def test_a_gpu_that_is_full_when_the_model_is_opened(memory_bytes: int) -> None:
    options = dataclasses.replace(PICTURES, frames_in_flight=4, frame_size=(100, 100))
    with host_gpu(memory_bytes=memory_bytes) as device:
        network = HostNetwork(device, tensor_specs(small_manifest(), (3, 8, 12)), replay([scene()]))
        with pytest.raises(CudaOutOfMemoryError):
            Segmenter(small_manifest(), network, None, options)
        assert network.closed


def test_a_gpu_that_is_full_when_a_frame_comes() -> None:
    with host_gpu(memory_bytes=400_000) as device:
        network = HostNetwork(device, tensor_specs(small_manifest(), (3, 8, 12)), replay([scene()]))
        with Segmenter(small_manifest(), network, None, PICTURES) as segmenter:
            assert len(segmenter(FRAME)) == 3
            with pytest.raises(CudaOutOfMemoryError):
                segmenter(np.zeros((900, 900, 3), np.uint8))
            for _ in range(3):
                assert len(segmenter(FRAME)) == 3


def test_an_engine_that_is_not_of_this_model(device: Device) -> None:
    manifest = small_manifest()
    tensors = tensor_specs(manifest, DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
    for broken, message in [
        (tensors[:-1], "lacks the output prototype"),
        (tensors[1:], "has one input; this one has none"),
        ((*tensors[:2], dataclasses.replace(tensors[2], shape=(1, 90, 9)), *tensors[3:]), r"class_logit.*\(1, 90, 4\)"),
        ((*tensors[:2], dataclasses.replace(tensors[2], dtype=np.dtype(np.int8)), *tensors[3:]), "is int8"),
        ((*tensors[:2], dataclasses.replace(tensors[2], dtype=np.dtype(np.float16)), *tensors[3:]), "several dtypes"),
    ]:
        network = HostNetwork(device, broken, replay([scene()]))
        with pytest.raises(BackendError, match=message):
            Segmenter(manifest, network, None, PICTURES)
        assert network.closed
