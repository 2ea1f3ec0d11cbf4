"""The objects found in one frame, in GPU memory, for programs that continue there."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_plugins.driver.ownership import close_all
from yolact_runtime.cuda.frame_slot import FrameSlot
from yolact_runtime.errors import BackendError

__all__ = ["DeviceInstances", "SlotOwner"]


class SlotOwner(Protocol):
    """The owner of a frame's memory, to which it is returned: :class:`yolact_runtime.cuda.device_path.DevicePath`."""

    def give_back(self, slot: FrameSlot) -> None:
        """Take back the memory of a frame that is no longer read."""


class DeviceInstances:
    """The objects found in one frame, in the GPU's memory, best first. ``Segmenter.on_device`` returns it.

    ``len(found)`` is the number of instances. Arrays have ``__cuda_array_interface__`` and ``__dlpack__``:
    ``torch.from_dlpack(found.confidence)`` copies nothing. They are views of the segmenter's memory, to be read only,
    and valid until :meth:`close`; then another frame is written there. Copy what must live longer. Use it as a context
    manager.

    Attributes:
        height: Rows of the frame.
        width: Columns of the frame.
        xyxy_relative: ``(n, 4)`` float32: boxes (left, top, right, bottom) relative to the frame, not clipped.
        confidence: ``(n,)`` float32: softmax scores of the classes.
        class_id: ``(n,)`` int32: classes, counted from 0 without the background.
        class_names: Names of all classes, indexed by ``class_id``.
        mask_confidence: Confidences that include the mask's quality, ``(n,)`` float32, as
            :attr:`yolact_runtime.Instances.mask_confidence`; None if masks are not re-scored on the GPU.
        window: Bounds of each mask's pixels, ``(n, 8)`` int32: left, right, top and bottom in pixels of the prototypes;
            first word and number of words of a column, each of 32 rows; first column and number of columns.
        offset: ``(n + 1,)`` int64: first word of each mask in `arena`.
        arena: ``(words,)`` uint32: bits of all masks. Bit ``b`` of ``arena[offset[i] + w * columns + c]`` is the pixel
            of mask ``i`` in column ``column + c`` and row ``32 * (word + w) + b``; see ``kernels/mask_window.cuh``.
        stream: CUDA stream in which the arrays were computed, and in which :meth:`id_map` and :meth:`dense` compute.
    """

    def __init__(
        self, owner: SlotOwner, slot: FrameSlot, count: int, class_names: tuple[str, ...] | None = None
    ) -> None:
        """Take over a finished frame; ``Segmenter.on_device`` calls this."""
        assert slot.layout is not None
        self._owner = owner
        self._slot: FrameSlot | None = slot
        self._count = count
        self.class_names = class_names
        self._made: list[DeviceBuffer] = []
        self.height, self.width = slot.layout.height, slot.layout.width
        self.stream: Stream = slot.stream
        arrays, first = slot.memory.arrays, slot.memory.first_rows
        self.xyxy_relative = first(arrays["detection_xyxy"], count)
        self.confidence = first(arrays["detection_confidence"], count)
        self.class_id = first(arrays["detection_class"], count)
        scores = arrays.get("mask_confidence")
        self.mask_confidence = None if scores is None else first(scores, count)
        self.window = first(arrays["window"], count)
        self.offset = first(arrays["offset"], count + 1)
        self.arena = arrays["arena"]

    def __repr__(self) -> str:
        closed = ", closed" if self._slot is None else ""
        return f"<DeviceInstances: {self._count} in a frame of {self.width} x {self.height}, in GPU memory{closed}>"

    def __len__(self) -> int:
        return self._count

    def id_map(self) -> DeviceArray:
        """Compute an image of the masks: ``i + 1`` where mask ``i`` is, 0 elsewhere; earlier masks win.

        Returns:
            The image, ``(height, width)`` int32, valid until :meth:`close`. It is computed in :attr:`stream`; a library
            that takes it by DLPack waits for that on the GPU.

        Raises:
            BackendError: These results are closed.
            CudaOutOfMemoryError: There is not enough memory on the GPU.
        """
        slot = self._open_slot()
        array = self._make((self.height, self.width), np.int32)
        slot.launches.id_map(array).enqueue(self.stream)
        return array

    def dense(self) -> DeviceArray:
        """Compute dense masks.

        Returns:
            The masks, ``(n, height, width)`` uint8 of 0 and 1, valid until :meth:`close`; see :meth:`id_map`.

        Raises:
            BackendError: These results are closed.
            CudaOutOfMemoryError: There is not enough memory on the GPU.
        """
        slot = self._open_slot()
        array = self._make((self._count, self.height, self.width), np.uint8)
        if self._count:
            slot.launches.dense(array).enqueue(self.stream)
        return array

    def close(self) -> None:
        """Give the memory back to the segmenter, once other libraries have finished with it. May be called again."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        made, self._made = self._made, []
        close_all(slot.stream.synchronize, *(buffer.close for buffer in made), partial(self._owner.give_back, slot))

    def __enter__(self) -> DeviceInstances:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_slot(self) -> FrameSlot:
        if self._slot is None:
            raise BackendError("these results were closed; their memory is reused for other frames")
        return self._slot

    def _make(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        device = self.stream.device
        device.make_current()
        size: Any = np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize
        buffer = DeviceBuffer(device, max(int(size), 1))
        self._made.append(buffer)
        return buffer.array(shape, dtype, stream=self.stream)
