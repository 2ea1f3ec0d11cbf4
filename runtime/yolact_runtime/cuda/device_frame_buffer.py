"""A frame buffer whose memory the GPU can access, so that a frame is read where the camera wrote it."""

from __future__ import annotations

import threading

import numpy as np

from yolact_plugins.driver.device_array import DeviceArray
from yolact_plugins.driver.driver import Device
from yolact_plugins.driver.memory import MappedBuffer, PinnedBuffer
from yolact_plugins.driver.ownership import close_after_failure
from yolact_runtime.cpu.camera_frame import FrameLayout
from yolact_runtime.cpu.frame_buffer import FrameBuffer
from yolact_runtime.errors import FrameError

__all__ = ["DeviceFrameBuffer"]


class DeviceFrameBuffer(FrameBuffer):
    """Pinned memory for the GPU to copy from; mapped memory for kernels to read if CPU and GPU share their memory.

    Args:
        device: The device that processes the frames; kept alive.
        layout: Size and format of the frames.

    Raises:
        CudaOutOfMemoryError: There is not enough pinned memory.

    Attributes:
        device: The device that processes the frames.
        address: Host address of the first byte.
        planes: Planes ``(rows, bytes of a row)`` for kernels; empty if kernels cannot read the memory.
    """

    def __init__(self, device: Device, layout: FrameLayout) -> None:
        self.device = device
        self._lock = threading.RLock()
        self._in_flight = False
        kind = MappedBuffer if device.integrated else PinnedBuffer
        self._buffer = kind(device, layout.num_bytes)
        try:
            self.address = self._buffer.address
            self.planes = _planes(self._buffer, layout) if isinstance(self._buffer, MappedBuffer) else ()
            super().__init__(layout, self._buffer.lasting_array((layout.num_bytes,), np.uint8))
        except BaseException:
            close_after_failure(self._buffer.close)
            raise

    @property
    def in_flight(self) -> bool:
        """Whether a frame in this buffer is still being processed; see :attr:`FrameBuffer.in_flight`."""
        return self._in_flight

    def begin(self) -> None:
        """Mark the buffer as being read; the memory is kept until :meth:`end`.

        Raises:
            FrameError: The previous frame is still being read.
            BackendError: The buffer is closed.
        """
        with self._lock:
            self._require(self._memory)
            if self._in_flight:
                raise FrameError(
                    "this frame buffer was passed again while its last frame is still being processed, and that frame "
                    "was probably overwritten: use as many buffers as frames_in_flight, one after the other, or wait "
                    "for the result"
                )
            self._buffer.hold()
            self._in_flight = True

    def end(self) -> None:
        """Mark the frame as finished."""
        with self._lock:
            self._in_flight = False
        self._buffer.drop()

    def close(self) -> None:
        """Close the buffer; see :meth:`FrameBuffer.close`.

        Raises:
            CudaError: The driver reports an error.
        """
        with self._lock:
            super().close()
        self._buffer.close()


def _planes(buffer: MappedBuffer, layout: FrameLayout) -> tuple[DeviceArray, ...]:
    """Return the planes, one behind the other without gaps."""
    planes, first = [], 0
    for rows, row_bytes in layout.plane_shapes:
        planes.append(buffer.device_array((rows, row_bytes), np.uint8, first))
        first += rows * row_bytes
    return tuple(planes)
