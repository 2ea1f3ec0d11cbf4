"""The objects found in one frame, where the GPU put them: for programs that go on there."""

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
    """Who lends the memory of a frame and takes it back: :class:`yolact_runtime.cuda.device_path.DevicePath`."""

    def give_back(self, slot: FrameSlot) -> None:
        """Take the memory of a frame that nobody reads any more."""


class DeviceInstances:
    """Detections and masks on the GPU, best first; ``len()`` says how many. Get it from ``Segmenter.on_device``.

    Arrays have ``__cuda_array_interface__`` and ``__dlpack__``: ``torch.from_dlpack(found.confidence)`` copies nothing.
    They are views of the segmenter's own memory, read-only by agreement, and valid until :meth:`close`, after which
    another frame is written there; copy what shall live longer. Use it as a context manager.

    Attributes:
        height: Rows of the frame.
        width: Columns of the frame.
        xyxy_relative: ``(n, 4)`` float32, (left, top, right, bottom) relative to the frame, not clipped.
        confidence: ``(n,)`` float32.
        class_id: ``(n,)`` int32, 0-based.
        mask_confidence: ``(n,)`` float32, as :attr:`yolact_runtime.Instances.mask_confidence`; None where masks are not
            re-scored on the GPU.
        window: ``(n, 8)`` int32: where each mask can have pixels. Left, right, top and bottom in pixels of the
            prototypes; first word and number of words of a column, each of 32 rows; first column and number of columns.
        offset: ``(n + 1,)`` int64: first word of each mask in `arena`.
        arena: ``(words,)`` uint32: bits of all masks. Bit ``b`` of ``arena[offset[i] + w * columns + c]`` is the pixel
            of mask ``i`` in column ``column + c`` and row ``32 * (word + w) + b``; see ``kernels/mask_window.cuh``.
        stream: In which everything was, and is, computed.
    """

    def __init__(self, owner: SlotOwner, slot: FrameSlot, count: int) -> None:
        """Take over a frame that is finished; see the class."""
        assert slot.layout is not None
        self._owner = owner
        self._slot: FrameSlot | None = slot
        self._count = count
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

    def __len__(self) -> int:
        return self._count

    def id_map(self) -> DeviceArray:
        """``(height, width)`` int32: ``i + 1`` where mask ``i`` is on top, 0 where there is none; earlier masks win.

        Returns:
            Memory that lives until :meth:`close`; whoever takes it by DLPack waits for the kernel on the GPU.
        """
        slot = self._open_slot()
        array = self._make((self.height, self.width), np.int32)
        slot.launches.id_map(array).enqueue(self.stream)
        return array

    def dense(self) -> DeviceArray:
        """``(n, height, width)`` uint8, 0 or 1: the array that is otherwise never made. Memory as of :meth:`id_map`."""
        slot = self._open_slot()
        array = self._make((self._count, self.height, self.width), np.uint8)
        if self._count:
            slot.launches.dense(array).enqueue(self.stream)
        return array

    def close(self) -> None:
        """Give the segmenter its memory back; other libraries are done with it. May be called again."""
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
            raise BackendError("these results were closed; their memory belongs to other frames now")
        return self._slot

    def _make(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        device = self.stream.device
        device.make_current()
        size: Any = np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize
        buffer = DeviceBuffer(device, max(int(size), 1))
        self._made.append(buffer)
        return buffer.array(shape, dtype, stream=self.stream)
