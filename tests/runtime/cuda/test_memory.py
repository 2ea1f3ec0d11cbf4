"""Plans of memory, and what a frame takes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.device_network import tensor_specs
from support.host_gpu import HostDriver, host_gpu
from support.properties import examples
from support.scenes import small_manifest
from yolact_plugins.driver.driver import Device
from yolact_plugins.driver.memory import DeviceBuffer, PinnedBuffer
from yolact_plugins.errors import CudaOutOfMemoryError
from yolact_runtime.cpu.camera_frame import FrameLayout, PixelFormat
from yolact_runtime.cpu.nms import NmsSettings
from yolact_runtime.cuda.frame_memory import FrameMemory
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.cuda.memory_plan import MemoryPlan

SHAPES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple), min_size=1, max_size=6)
DTYPES = st.sampled_from([np.uint8, np.float16, np.float32, np.int64])


@examples(50)
@given(SHAPES, st.data())
def test_planned_arrays_are_apart_and_aligned(shapes: list[tuple[int, ...]], data: st.DataObject) -> None:
    plan = MemoryPlan()
    for i, shape in enumerate(shapes):
        plan.add(str(i), shape, data.draw(DTYPES))
    with (
        host_gpu() as device,
        DeviceBuffer(device, plan.num_bytes) as there,
        PinnedBuffer(device, plan.num_bytes) as here,
    ):
        arrays = list(plan.on_device(there).values())
        assert [array.shape for array in arrays] == shapes
        assert all(array.pointer % 256 == 0 for array in arrays)
        ends = [array.pointer + array.num_bytes for array in arrays]
        assert all(end <= following.pointer for end, following in zip(ends, arrays[1:], strict=False))
        assert ends[-1] <= there.pointer + plan.num_bytes
        host = plan.on_host(here)
        for array, view in zip(arrays, host.values(), strict=True):
            assert (view.shape, view.dtype) == (array.shape, array.dtype)
            if view.size:
                assert view.ctypes.data - here.address == array.pointer - there.pointer


def model() -> FrameModel:
    tensors = tensor_specs(small_manifest(), (3, 8, 12))
    return FrameModel.of(small_manifest(), NmsSettings(), 0.0, False, tensors)


def test_memory_grows_and_does_not_shrink() -> None:
    with host_gpu() as device:
        memory = FrameMemory(device, model())
        large, small = FrameLayout(40, 60, PixelFormat.BGR), FrameLayout(20, 30, PixelFormat.BGR)
        assert memory.fit(small)
        assert memory.fit(large)
        words, runs = memory.arena_words, memory.run_capacity
        assert not memory.fit(small)
        assert not memory.fit(large)
        assert memory.fit(large, arena_words=words + 1)
        assert memory.fit(large, run_capacity=runs + 1)
        assert (memory.arena_words, memory.run_capacity) == (words + 1, runs + 1)
        assert memory.staging.size == 40 * 60 * 3
        memory.close()
        memory.close()


def test_what_could_not_grow_is_taken_anew() -> None:
    small, large = FrameLayout(20, 30, PixelFormat.BGR), FrameLayout(600, 800, PixelFormat.BGR)
    with host_gpu(memory_bytes=400_000) as device:
        memory = FrameMemory(device, model())
        memory.fit(small)
        for growth in ({"layout": large}, {"layout": small, "arena_words": 1 << 20}):
            with pytest.raises(CudaOutOfMemoryError):
                memory.fit(**growth)  # type: ignore[arg-type]  # by name
            # What was given up for more must not be used any more.
            assert memory.fit(small)
            assert memory.staging.size == 20 * 30 * 3
            memory.staging[:] = 1
            assert isinstance(device.driver, HostDriver)
            for name in ("frame", "arena", "run_start"):
                array = memory.arrays[name]
                device.driver.view(array.pointer, array.shape, array.dtype)
        memory.close()


def _take_all(device: Device) -> None:
    memory = FrameMemory(device, model())
    try:
        memory.fit(FrameLayout(400, 600, PixelFormat.BGR))
    finally:
        memory.close()


@pytest.mark.parametrize("memory_bytes", [100, 20_000, 60_000])
def test_a_full_gpu_leaves_nothing_behind(memory_bytes: int) -> None:
    with host_gpu(memory_bytes=memory_bytes) as device:
        with pytest.raises(CudaOutOfMemoryError):
            _take_all(device)
        assert isinstance(device.driver, HostDriver)
        assert device.driver.leaks() == ["1 contexts"]
