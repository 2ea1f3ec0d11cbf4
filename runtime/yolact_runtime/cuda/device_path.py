"""The frame pipeline on the GPU: a pool of frames in flight, and their results as instances."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.driver.ownership import close_after_failure, close_all
from yolact_runtime.backends.base import DeviceBackend
from yolact_runtime.cpu.camera_frame import CameraFrame, FrameLayout
from yolact_runtime.cpu.frame_buffer import FrameBuffer, LentBuffers
from yolact_runtime.cpu.postprocess import MaskIou, to_pixels
from yolact_runtime.cuda.device_frame_buffer import DeviceFrameBuffer
from yolact_runtime.cuda.device_instances import DeviceInstances
from yolact_runtime.cuda.device_kernels import DeviceKernels
from yolact_runtime.cuda.frame_model import FrameModel
from yolact_runtime.cuda.frame_slot import FrameSlot
from yolact_runtime.cuda.given_frame import as_camera_frame
from yolact_runtime.cuda.mask_iou import pack_network
from yolact_runtime.errors import BackendError, UsageError
from yolact_runtime.golden import Inspection
from yolact_runtime.masks.instances import Instances
from yolact_runtime.masks.masks import Masks

__all__ = ["DevicePath"]

_log = logging.getLogger(__name__)
_CLOSED = "the segmenter was closed; open the model again"
_MAX_SLOTS = 16


class DevicePath:
    """The frame pipeline on the GPU. Thread-safe: frames that are in flight at the same time have separate memory.

    Args:
        backend: The open backend.
        model: The model, checked against the backend's tensors.
        kernels: The loaded kernels; owned.
        frames_in_flight: Number of frames to allocate memory for. Callers that start more get more, up to 16.
        mask_iou: Function that predicts the IoU of masks on the host (YOLACT++) if the kernels do not compute the
            network; or None.

    Raises:
        CudaOutOfMemoryError: GPU memory is exhausted; the kernels are closed, the backend is not.

    Attributes:
        model: The model and its settings.
        on_close: Callback that runs once, when everything is freed.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        model: FrameModel,
        kernels: DeviceKernels,
        frames_in_flight: int,
        mask_iou: MaskIou | None = None,
    ) -> None:
        self.model, self._backend, self._kernels, self._mask_iou = model, backend, kernels, mask_iou
        self.on_close: Callable[[], None] | None = None
        # The garbage collector may return a frame in the middle of a method that holds the lock.
        self._lock = threading.RLock()
        self._free: list[FrameSlot] = []
        self._slots: list[FrameSlot] = []
        self._closed = False
        self._buffers: list[DeviceBuffer] = []
        self._constants: dict[str, DeviceArray] = {}
        self._lent_buffers = LentBuffers()
        self._log_once = _LogOnce(backend.name)
        device = backend.device
        try:
            device.make_current()
            constants = {"prior": model.priors()}
            if model.mask_iou is not None:
                constants["mask_iou_network"] = pack_network(model.mask_iou)
            for name, values in constants.items():
                self._buffers.append(DeviceBuffer(device, values.nbytes))
                self._constants[name] = self._buffers[-1].array(values.shape, np.float32)
            for _ in range(frames_in_flight):
                self.give_back(self._add_slot())
            for name, values in constants.items():
                # Pageable memory: the copy is complete when this returns.
                self._constants[name].upload(values, self._slots[0].stream)
            self._slots[0].stream.synchronize()
        except BaseException:
            close_after_failure(self._free_memory)
            raise

    def warm_up(self, layout: FrameLayout) -> None:
        """Prepare for frames in host memory of a layout; see :meth:`FrameSlot.warm_up`."""
        for slot in self._slots:
            slot.warm_up(layout)

    @property
    def device(self) -> Device:
        """The device that processes the frames."""
        return self._backend.device

    @property
    def uses_graphs(self) -> bool:
        """Whether frames are launches of a CUDA graph, from the second of a size and format on."""
        return all(slot.uses_graphs for slot in self._slots)

    def start(self, frame: Any) -> FrameSlot:
        """Start processing a frame; see :meth:`FrameSlot.start`.

        Args:
            frame: A :class:`CameraFrame`, a NumPy array as for a network on the host, a BGR or BGRA array on the GPU,
                or a :class:`FrameBuffer`.

        Raises:
            FrameError: The frame is not an image, or is a buffer whose previous frame is not finished.
            BackendError: The pipeline or the buffer is closed.
        """
        source = self._source(frame)
        slot = self._take()
        try:
            slot.start(source)
        except BaseException:
            close_after_failure(partial(self.give_back, slot))
            raise
        return slot

    def frame_buffer(self, layout: FrameLayout) -> DeviceFrameBuffer:
        """Allocate memory that the GPU can access, for frames of a layout; it is closed with the pipeline.

        Raises:
            BackendError: The pipeline is closed.
            CudaOutOfMemoryError: There is not enough pinned memory.
        """
        if self._closed:
            raise BackendError(_CLOSED)
        buffer = DeviceFrameBuffer(self.device, layout)
        self._lent_buffers.add(buffer)
        return buffer

    def collect(self, ticket: FrameSlot) -> Instances:
        """Wait for a frame and return its instances.

        Raises:
            BackendError: The network's outputs are not finite, or its library failed.
            CudaError: Something failed on the GPU.
        """
        with self._lent(ticket):
            return self.read(ticket, ticket.finish())

    def read(self, slot: FrameSlot, count: int) -> Instances:
        """Copy the results of a frame from host memory, so that the slot can be reused.

        Args:
            slot: The slot of a finished frame.
            count: Result of :meth:`FrameSlot.finish`.
        """
        results, layout = slot.memory.results, slot.layout
        assert layout is not None
        xyxy: npt.NDArray[np.float32] = results["detection_xyxy"][:count].copy()
        if not np.isfinite(xyxy).all():
            _log.warning("%s: a box of infinite size suppresses others; the model is damaged", self.model.manifest.name)
        offset = results["run_offset"][: count + 1].copy()
        total = int(offset[-1])
        start, end = results["run_start"][:total].copy(), results["run_end"][:total].copy()
        masks = Masks.from_columns(offset, start, end, layout.height, layout.width)
        class_id = results["detection_class"][:count].copy()
        confidence = results["detection_confidence"][:count].copy()
        rescored = None
        if self.model.mask_iou is not None:
            rescored = results["mask_confidence"][:count].copy()
        elif self._mask_iou is not None:
            rescored = confidence * self._predicted_iou(self._mask_iou, slot, class_id)
        boxes, names = to_pixels(xyxy, layout.height, layout.width), self.model.manifest.class_names
        return Instances(boxes, masks, confidence, class_id, rescored, names)

    def collect_on_device(self, ticket: FrameSlot) -> DeviceInstances:
        """Wait for a frame; its results keep the slot until they are closed."""
        try:
            return DeviceInstances(self, ticket, ticket.finish(), self.model.manifest.class_names)
        except BaseException:
            close_after_failure(partial(self.give_back, ticket))
            raise

    def inspect(self, frame: Any) -> Inspection:
        """Return a frame's instances and the tensors that led to them.

        See :class:`yolact_runtime.frame_path.FramePath`.
        """
        slot = self.start(frame)
        with self._lent(slot):
            instances = self.read(slot, slot.finish())
            arrays = {name: slot.memory.arrays[name].numpy(slot.stream) for name in self.model.tensors}
            return Inspection(arrays.pop(slot.input_name), arrays, instances)

    def discard(self, ticket: FrameSlot) -> None:
        """Discard a frame whose result is not needed."""
        with self._lent(ticket):
            ticket.abandon()

    def give_back(self, slot: FrameSlot) -> None:
        """Return a slot, so that it can take another frame."""
        with self._lock:
            if not self._closed:
                self._free.append(slot)
                return
        close_all(slot.close, partial(self._free_memory_when_done, slot))

    @contextmanager
    def _lent(self, slot: FrameSlot) -> Iterator[None]:
        """Return the slot after the block; an error of the block is the one to report."""
        try:
            yield
        except BaseException:
            close_after_failure(partial(self.give_back, slot))
            raise
        self.give_back(slot)

    def close(self) -> None:
        """Free everything but frames in flight, which are freed when they are collected.

        After the loss of the GPU's context, which is not reported again, everything that can be freed is freed.

        Raises:
            CudaError: Something could not be freed; everything else was.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            free, self._free = self._free, []
            done = not self._slots
        steps: list[Callable[[], None]] = [self._lent_buffers.close]
        for slot in free:
            # A slot counts until it is closed: another thread may return the last one in flight at the same time, and
            # the network must not be closed before its contexts.
            steps += [slot.close, partial(self._free_memory_when_done, slot)]
        close_all(*steps, *([self._free_memory] if done else []))

    def _free_memory_when_done(self, slot: FrameSlot) -> None:
        with self._lock:
            self._slots.remove(slot)
            done = not self._slots
        if done:
            self._free_memory()

    def _free_memory(self) -> None:
        slots, self._slots, self._free = self._slots, [], []
        steps: list[Callable[[], None]] = [slot.close for slot in slots]
        steps += [buffer.close for buffer in self._buffers]
        steps.append(self._kernels.close)
        if self.on_close is not None:
            steps.append(self.on_close)
        close_all(*steps)

    def _source(self, frame: Any) -> CameraFrame | DeviceFrameBuffer:
        if not isinstance(frame, FrameBuffer):
            return as_camera_frame(frame, self.model.manifest.input.bit_depth)
        if isinstance(frame, DeviceFrameBuffer) and frame.device.is_same(self.device):
            return frame
        return frame.frame

    def _take(self) -> FrameSlot:
        with self._lock:
            if self._closed:
                raise BackendError(_CLOSED)
            if self._free:
                return self._free.pop(0)
            if len(self._slots) >= _MAX_SLOTS:
                raise UsageError(
                    f"{_MAX_SLOTS} frames are in flight at once; collect results, and close those of on_device, before "
                    f"starting more"
                )
            _log.info("%d frames in flight: allocating memory for one more", len(self._slots) + 1)
            return self._add_slot()

    def _add_slot(self) -> FrameSlot:
        slot = FrameSlot(self._backend, self.model, self._kernels, self._constants, self._log_once)
        self._slots.append(slot)
        return slot

    def _predicted_iou(
        self, predict: MaskIou, slot: FrameSlot, class_id: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """Predict on the host, for a network that the kernels do not compute; engines have a fixed batch size."""
        count = len(class_id)
        if not count:
            return np.zeros(0, np.float32)
        _, height, width = self.model.prototype_shape
        buffer = slot.memory.arrays["rescoring_soft"]
        soft = slot.memory.first_rows(buffer, count).numpy(slot.stream).reshape(count, 1, height, width)
        predicted = predict(soft)
        if predicted.shape != (count, self.model.num_classes) or not np.isfinite(predicted).all():
            raise BackendError(
                f"the mask-IoU network returned {predicted.shape} for {count} masks, or values that are not finite"
            )
        return predicted[np.arange(count), class_id]


class _LogOnce:
    """A logger of each message about slots, once; it keeps no reference to the pipeline."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: set[str] = set()

    def __call__(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            _log.info("%s: %s", self._name, sentence)
