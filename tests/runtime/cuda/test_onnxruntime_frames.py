"""Whole frames with a real network in the real ONNX Runtime, bound to the memory of a GPU that is none, in its streams.

What differs from CUDA is in :mod:`support.cuda_onnxruntime`. Expected is what the same ONNX Runtime makes of the same
input without any of it, and the CPU's post-processing.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cuda_onnxruntime import CudaOnnxRuntime
from support.host_gpu import HostDriver
from support.properties import examples
from support.random_network import random_network
from support.scenes import camera_frames, small_manifest
from support.tools import needs_tool
from yolact_plugins.driver.driver import Device
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.backends import onnxruntime_cuda as adapter
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session
from yolact_runtime.cpu.postprocess import Postprocessor
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.masks.instances import Instances

pytestmark = [needs_tool("g++"), pytest.mark.usefixtures("kernel_cache")]

MANIFEST = small_manifest()
# One thread for each session: ONNX Runtime's own would spin for the cores that the others need.
OPTIONS = SegmenterOptions(min_confidence=0.2, max_instances=8, num_threads=1)
RNG = np.random.default_rng(0)
FRAMES = [RNG.integers(0, 256, (40 + i % 3, 60 + 7 * (i % 2), 3), np.uint8) for i in range(12)]


class Gpu:
    """A GPU with ONNX Runtime on it; closes what was opened there."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.driver = HostDriver(**options)
        self.package = CudaOnnxRuntime(self.driver)
        self._folder = folder
        self._opened: list[Segmenter] = []

    def open(self, content: bytes, options: SegmenterOptions = OPTIONS) -> Segmenter:
        path = self._folder / f"network{len(self._opened)}.onnx"
        path.write_bytes(content)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "onnxruntime", self.package)  # type: ignore[arg-type]  # as good as a module
            patch.setattr(adapter, "_open_device", lambda: Device(driver=self.driver))
            segmenter = Segmenter.open(path, "onnxruntime-cuda", options)
        assert segmenter.postprocessing == "gpu"
        self._opened.append(segmenter)
        return segmenter

    def close(self) -> None:
        for segmenter in self._opened:
            segmenter.close()
        assert self.driver.leaks() == []
        assert self.package.num_sessions == 0
        assert self.package.faults == []


@pytest.fixture
def gpu(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gpu]:
    gpu = Gpu(tmp_path, **getattr(request, "param", {}))
    yield gpu
    gpu.close()


every_machine = pytest.mark.parametrize(
    "gpu", [{}, {"integrated": True}, {"order": 1, "strict_free": True}], indirect=True, ids=str
)


def expected_of(content: bytes, tensor: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """ONNX Runtime alone."""
    session = open_cpu_session(content, SessionSettings(num_threads=1))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": tensor}), strict=True))


def same(found: Instances, expected: Instances) -> None:
    assert (found.height, found.width) == (expected.height, expected.width)
    assert found.class_id.tolist() == expected.class_id.tolist()
    np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-5)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, rtol=1e-4, atol=1e-3)
    assert (found.mask.dense() != expected.mask.dense()).sum() <= 2


def identical(found: Instances, expected: Instances) -> None:
    assert found.mask == expected.mask
    for one, other in zip(fields(found), fields(expected), strict=True):
        assert one.tobytes() == other.tobytes()


def fields(instances: Instances) -> tuple[npt.NDArray[Any], ...]:
    return instances.class_id, instances.confidence, instances.xyxy


# --- one frame --------------------------------------------------------------------------------------------------------


@every_machine
@pytest.mark.parametrize(("dtype", "batch"), [(np.float32, 1), (np.float32, "batch"), (np.float16, 1)])
def test_outputs_are_bit_for_bit_those_of_onnx_runtime(gpu: Gpu, dtype: Any, batch: int | str) -> None:
    content = random_network(MANIFEST, 5, batch=batch, dtype=dtype)
    segmenter = gpu.open(content)
    postprocess = Postprocessor.of(MANIFEST, OPTIONS.nms_settings(MANIFEST), OPTIONS.crop_margin, None)
    found = 0
    for frame in FRAMES[:3]:
        seen = segmenter.frame_path.inspect(frame)
        assert seen.tensor.dtype == dtype
        expected = expected_of(content, seen.tensor)
        assert {name: array.tobytes() for name, array in seen.outputs.items()} == {
            name: array.tobytes() for name, array in expected.items()
        }
        same(seen.instances, postprocess(expected, *frame.shape[:2]))
        found += len(seen.instances)
    assert found > 10


@every_machine
def test_frames_of_every_format(gpu: Gpu, tmp_path: Path) -> None:
    content = random_network(MANIFEST, 6)
    segmenter, path = gpu.open(content), tmp_path / "cpu.onnx"
    path.write_bytes(content)
    with Segmenter.open(path, "onnxruntime-cpu", OPTIONS) as cpu:
        for frame in camera_frames(np.random.default_rng(1), 24, 36):
            found, expected = segmenter(frame), cpu(frame)
            assert found.class_id.tolist() == expected.class_id.tolist()
            np.testing.assert_allclose(found.confidence, expected.confidence, rtol=1e-3)


# --- many frames ------------------------------------------------------------------------------------------------------


@every_machine
@pytest.mark.parametrize("frames_in_flight", [1, 2, 4])
def test_a_stream_is_in_order_and_equal_to_single_frames(gpu: Gpu, frames_in_flight: int) -> None:
    options = dataclasses.replace(OPTIONS, frames_in_flight=frames_in_flight)
    segmenter = gpu.open(random_network(MANIFEST, 7), options)
    single = [segmenter(frame) for frame in FRAMES]
    assert len({instances.class_id.tobytes() for instances in single}) > 6
    with segmenter.stream(FRAMES) as results:
        for found, expected in zip(results, single, strict=True):
            identical(found, expected)


@pytest.mark.parametrize("gpu", [{"order": order, "strict_free": True} for order in (0, 4)], indirect=True)
def test_frames_from_many_threads_through_two_segmenters(gpu: Gpu) -> None:
    segmenter = gpu.open(random_network(MANIFEST, 8))
    with segmenter.share(dataclasses.replace(OPTIONS, min_confidence=0.1)) as other:
        # One session for both.
        assert len(gpu.package.asked) == 1
        single = {each: [each(frame) for frame in FRAMES] for each in (segmenter, other)}

        def check(i: int) -> None:
            each = (segmenter, other)[i % 2]
            identical(each(FRAMES[i % 12]), single[each][i % 12])

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(check, range(36)))


@examples(25)
@given(
    order=st.integers(0, 1000),
    seed=st.integers(0, 3),
    steps=st.lists(
        st.tuples(st.sampled_from(["start", "collect", "discard", "inspect"]), st.integers(0, 11)), max_size=24
    ),
)
def test_any_order_of_starts_and_ends(
    tmp_path_factory: pytest.TempPathFactory, order: int, seed: int, steps: list[tuple[str, int]]
) -> None:
    """Frames that are in flight together, collected in any order or not at all, are what they are alone."""
    gpu = Gpu(tmp_path_factory.mktemp("gpu"), order=order, strict_free=True)
    segmenter = gpu.open(random_network(MANIFEST, seed))
    path = segmenter.frame_path
    assert isinstance(path, DevicePath)
    under_way: list[tuple[int, Any]] = []
    for step, i in steps:
        if step == "start" and len(under_way) < 5:
            under_way.append((i, path.start(FRAMES[i])))
        elif step == "inspect":
            identical(path.inspect(FRAMES[i]).instances, alone(seed, i))
        elif under_way:
            number, ticket = under_way.pop(i % len(under_way))
            if step == "collect":
                identical(path.collect(ticket), alone(seed, number))
            else:
                path.discard(ticket)
    # What is still in flight frees its memory when it is collected.
    segmenter.close()
    for number, ticket in under_way:
        identical(path.collect(ticket), alone(seed, number))
    gpu.close()


_ALONE: dict[tuple[int, int], Instances] = {}


def alone(seed: int, number: int) -> Instances:
    """A frame on a GPU of its own."""
    import tempfile

    if (seed, number) not in _ALONE:
        with tempfile.TemporaryDirectory() as folder:
            gpu = Gpu(Path(folder))
            segmenter = gpu.open(random_network(MANIFEST, seed))
            _ALONE.update({(seed, i): segmenter(frame) for i, frame in enumerate(FRAMES)})
            gpu.close()
    return _ALONE[seed, number]


@pytest.mark.parametrize("results", [0, 1, 5])
def test_a_segmenter_that_is_closed_while_a_stream_runs_frees_everything(gpu: Gpu, results: int) -> None:
    from yolact_runtime.errors import BackendError

    segmenter = gpu.open(random_network(MANIFEST, 9))
    stream = segmenter.stream(iter(FRAMES * 10), timeout_s=60)
    for _ in range(results):
        next(stream)
    segmenter.close()
    with pytest.raises(BackendError, match="the segmenter was closed"):
        next(stream)
    stream.close()


def test_results_stay_on_the_gpu(gpu: Gpu) -> None:
    segmenter = gpu.open(random_network(MANIFEST, 10))
    for frame in FRAMES[:4]:
        expected = segmenter(frame)
        with segmenter.on_device(frame) as found:
            assert found.class_id.numpy(found.stream).tolist() == expected.class_id.tolist()
            assert (found.dense().numpy(found.stream) == expected.mask.dense()).all()


def test_everything_is_taken_at_open_when_the_size_is_known(gpu: Gpu) -> None:
    segmenter = gpu.open(random_network(MANIFEST, 11), dataclasses.replace(OPTIONS, frame_size=FRAMES[0].shape[:2]))
    with gpu.driver.recording() as calls:
        segmenter(FRAMES[0])
    assert not [name for name in calls if "Alloc" in name or "Capture" in name or "Instantiate" in name]
