"""The memory of one frame in flight: allocated when the model is opened, and enlarged only if a frame needs more."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device
from yolact_plugins.driver.memory import DeviceBuffer, MappedBuffer, PinnedBuffer
from yolact_plugins.driver.ownership import Owned, close_after_failure, close_all
from yolact_runtime.cpu.camera_frame import FrameLayout
from yolact_runtime.cpu.nms import NmsMethod
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.cuda.mask_iou import plan_mask_iou
from yolact_runtime.cuda.memory_plan import MemoryPlan

__all__ = ["FrameMemory"]

# Initial capacity for this number of masks that cover the whole frame, and of runs in each of its columns. Usual frames
# need a tenth. A frame that needs more is run again with more, and the memory is kept.
_FULL_MASKS, _RUNS_IN_A_COLUMN = 16, 64
_WORD_BITS = 32
# Kernels that divide a list of work among their warps fill a GPU with 32 warps on each multiprocessor: the maximum of
# Turing, and as many as the registers of `mask_bits` allow everywhere.
_WARPS_OF_A_BLOCK, _BLOCKS_OF_A_MULTIPROCESSOR = 8, 4


class FrameMemory:
    """Buffers on the GPU, and buffers on the host that the GPU can access.

    Args:
        device: The device that holds the memory.
        model: The model, which determines the sizes.

    Raises:
        CudaOutOfMemoryError: There is not enough memory.

    Attributes:
        arrays: Arrays for kernels, by name.
        results: Downloaded results of a frame in host memory, by name; valid until the next frame.
        arena_words: Capacity for bits of masks, in words of 32 pixels.
        run_capacity: Capacity for runs.
        filling_blocks: Number of blocks of 256 threads that fill the GPU.
        wanted_tasks: Approximate number of tasks into which the bits of a frame's masks are divided.
        staging: Pinned memory for a frame from the host, ``(bytes,)`` uint8.
        staging_address: Host address of its first byte.
    """

    def __init__(self, device: Device, model: FrameModel) -> None:
        self._device = device
        self._buffers: dict[str, Owned] = {}
        self.arrays: dict[str, DeviceArray] = {}
        self.results: dict[str, npt.NDArray[Any]] = {}
        self.arena_words = self.run_capacity = 0
        self.staging: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.staging_address = 0
        self._max_detections = model.max_detections
        self._task_capacity = 0
        self.filling_blocks = device.num_multiprocessors * _BLOCKS_OF_A_MULTIPROCESSOR
        self.wanted_tasks = self.filling_blocks * _WARPS_OF_A_BLOCK
        results = _plan_results(model.max_detections)
        if model.mask_iou is not None:
            results.add("predicted_iou", (model.max_detections,), np.float32)
            results.add("mask_confidence", (model.max_detections,), np.float32)
        try:
            self._allocate("work", _plan_work(model))
            self._allocate("results", results)
            mapped = self._keep("results on the host", MappedBuffer(device, results.num_bytes))
            self.results.update(results.on_host(mapped))
            # A frame whose kernels never ran has no detections, rather than garbage.
            mapped.host_array((results.num_bytes,), np.uint8)[:] = 0
            # One copy transfers all results: both sides have the same layout.
            self.arrays["host_results"] = mapped.device_array((results.num_bytes,), np.uint8)
            self.arrays["results"] = self._buffer("results").array((results.num_bytes,), np.uint8)
        except BaseException:
            close_after_failure(self.close)
            raise

    def fit(self, layout: FrameLayout, arena_words: int = 0, run_capacity: int = 0) -> bool:
        """Make room for frames of a layout; nothing shrinks.

        Args:
            layout: Layout of future frames.
            arena_words: Minimum capacity for words of mask bits.
            run_capacity: Minimum capacity for runs.

        Returns:
            Whether anything was allocated, which invalidates earlier pointers.
        """
        strips, words = -(-layout.width // _WORD_BITS), -(-layout.height // _WORD_BITS)
        full = layout.width * words
        arena = max(arena_words, min(_FULL_MASKS, self._max_detections) * full, 1)
        runs = max(run_capacity, _RUNS_IN_A_COLUMN * layout.width)
        tasks = self.wanted_tasks + self._max_detections * (strips + words)
        wanted = (
            layout.num_bytes > self.staging.size,
            arena > self.arena_words,
            runs > self.run_capacity,
            tasks > self._task_capacity,
        )
        if wanted[0]:
            self._fit_frame(layout.num_bytes)
        if wanted[1]:
            plan = MemoryPlan()
            plan.add("arena", (arena,), np.uint32)
            self.arena_words = 0
            self._allocate("arena", plan)
            self.arena_words = arena
        if wanted[2]:
            self._fit_runs(runs)
        if wanted[3]:
            plan = MemoryPlan()
            plan.add("task_runs", (tasks,), np.int32)
            self._task_capacity = 0
            self._allocate("tasks", plan)
            self._task_capacity = tasks
        return any(wanted)

    def first_rows(self, array: DeviceArray, count: int) -> DeviceArray:
        """Return a view of the first rows of one of the arrays."""
        return DeviceArray(self._device, array.pointer, (count, *array.shape[1:]), array.dtype, owner=array.owner)

    def close(self) -> None:
        """Free everything; the work that uses it must be done. May be called again."""
        buffers, self._buffers = self._buffers, {}
        close_all(*(buffer.close for buffer in reversed(buffers.values())))

    def _fit_frame(self, num_bytes: int) -> None:
        # Freed memory must not be used if the allocation of more fails.
        self.staging = np.zeros(0, np.uint8)
        self._drop("frame on the host")
        # If CPU and GPU share their memory, kernels read the frame where the host put it.
        if self._device.integrated:
            mapped = self._keep("frame on the host", MappedBuffer(self._device, num_bytes))
            self.arrays["frame"] = mapped.device_array((num_bytes,), np.uint8)
            self.staging, self.staging_address = mapped.host_array((num_bytes,), np.uint8), mapped.address
            return
        pinned = self._keep("frame on the host", PinnedBuffer(self._device, num_bytes))
        plan = MemoryPlan()
        plan.add("frame", (num_bytes,), np.uint8)
        self._allocate("frame", plan)
        self.staging, self.staging_address = pinned.host_array((num_bytes,), np.uint8), pinned.address

    def _fit_runs(self, capacity: int) -> None:
        """Allocate runs in GPU memory, from which a kernel copies the existing ones to host memory."""
        here, there = MemoryPlan(), MemoryPlan()
        for name in ("run_start", "run_end"):
            here.add(name, (capacity,), np.int32)
            there.add(f"device_{name}", (capacity,), np.int32)
        self.run_capacity = 0
        self._drop("runs on the host")
        mapped = self._keep("runs on the host", MappedBuffer(self._device, here.num_bytes))
        self.arrays.update(here.on_device(mapped))
        self.results.update(here.on_host(mapped))
        self._allocate("runs", there)
        self.run_capacity = capacity

    def _allocate(self, name: str, plan: MemoryPlan) -> None:
        self._drop(name)
        self.arrays.update(plan.on_device(self._keep(name, DeviceBuffer(self._device, plan.num_bytes))))

    def _keep(self, name: str, buffer: Any) -> Any:
        self._buffers[name] = buffer
        return buffer

    def _drop(self, name: str) -> None:
        if name in self._buffers:
            self._buffers.pop(name).close()

    def _buffer(self, name: str) -> Any:
        return self._buffers[name]


def _plan_results(max_detections: int) -> MemoryPlan:
    plan = MemoryPlan()
    plan.add("status", (1,), np.uint32)
    plan.add("detection_count", (1,), np.int32)
    plan.add("offset", (max_detections + 1,), np.int64)
    plan.add("run_offset", (max_detections + 1,), np.int32)
    plan.add("detection_prior", (max_detections,), np.int32)
    plan.add("detection_class", (max_detections,), np.int32)
    plan.add("detection_confidence", (max_detections,), np.float32)
    plan.add("detection_xyxy", (max_detections, 4), np.float32)
    return plan


def _plan_work(model: FrameModel) -> MemoryPlan:
    plan = MemoryPlan()
    for tensor in model.tensors.values():
        plan.add(tensor.name, tensor.shape, tensor.dtype)
    priors, classes, rows = model.num_priors, model.num_classes, model.max_detections
    plan.add("normaliser", (priors, 2), np.float32)
    plan.add("survivor", (-(-priors // 32),), np.uint32)
    plan.add("candidate_count", (1,), np.int32)
    # Room for every prior: no frame has more candidates.
    plan.add("candidate_prior", (priors,), np.int32)
    plan.add("candidate_xyxy", (priors, 4), np.float32)
    plan.add("candidate_score", (classes, priors), np.float32)
    if model.settings.method is NmsMethod.CROSS_CLASS:
        plan.add("best_score", (priors,), np.float32)
        plan.add("best_class", (priors,), np.int32)
    else:
        # A bit for every pair of up to 1024 candidates, and everything that the classes may keep.
        plan.add("overlap", (min(-(-priors // 32), 32), 1024), np.uint32)
        plan.add("kept_key", (classes * max(model.settings.top_k, 0),), np.uint64)
        plan.add("kept_count", (3,), np.int32)
    _, height, width = model.prototype_shape
    if model.mask_iou is not None:
        plan_mask_iou(plan, rows, height, width)
    for prefix in dict.fromkeys(("", model.scored_masks)) if model.rescore else ("",):
        plan.add(f"{prefix}window", (rows, 8), np.int32)
        plan.add(f"{prefix}plan", (rows + 1, 4), np.int32)
        plan.add(f"{prefix}soft", (rows, height, width), np.float32)
    plan.add("rescoring_offset", (rows + 1,), np.int64)
    return plan
