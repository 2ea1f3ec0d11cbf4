"""Memory for cameras to write frames into, provided by a segmenter; with a GPU, the GPU can access it."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from yolact_plugins.colour import YuvMatrix
from yolact_plugins.driver.ownership import close_all
from yolact_runtime.cpu.camera_frame import CameraFrame, FrameLayout, PixelFormat, require_yuv
from yolact_runtime.errors import BackendError, FrameError
from yolact_runtime.model.manifest_limits import MAX_FRAME_PIXELS

__all__ = ["FrameBuffer", "LentBuffers", "buffer_layout"]

Part = TypeVar("Part")


class FrameBuffer:
    """Memory for frames of one size and format. Use ``Segmenter.frame_buffer`` to get one; it says when to write.

    A camera writes into :attr:`pixels` (and :attr:`chroma` for NV12), and the buffer is passed to the segmenter instead
    of an array. Use it as a context manager, close it, or let the segmenter close it. The segmenter then rejects it;
    remaining arrays of it stay readable and writable, and the last of them frees the memory.

    Args:
        layout: Size and format of the frames; the width is even for YUYV.
        memory: Array ``(bytes,)`` of uint8 with the size that the layout needs; it is filled with zeros.

    Attributes:
        layout: Size and format of the frames.
    """

    def __init__(self, layout: FrameLayout, memory: npt.NDArray[np.uint8]) -> None:
        memory[:] = 0
        self.layout = layout
        self._memory: npt.NDArray[np.uint8] | None = memory
        self._frame: CameraFrame | None = CameraFrame(*_planes(layout, memory), yuv=layout.yuv)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """The frame, C-contiguous: BGR, RGB ``(H, W, 3)``, BGRA ``(H, W, 4)``, YUYV ``(H, W / 2, 4)``, NV12 ``(H, W)``.

        Raises:
            BackendError: The buffer is closed.
        """
        pixels: npt.NDArray[np.uint8] = self.frame.pixels
        return pixels

    @property
    def chroma(self) -> npt.NDArray[np.uint8] | None:
        """Chroma plane of NV12, ``(ceil(H / 2), ceil(W / 2), 2)``, directly behind the luma; None for other formats."""
        chroma: npt.NDArray[np.uint8] | None = self.frame.chroma
        return chroma

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """All planes in one ``(bytes,)`` array, one behind the other, as V4L2 and GStreamer do without row padding."""
        return self._require(self._memory)

    @property
    def frame(self) -> CameraFrame:
        """The same memory as a :class:`CameraFrame`, which a segmenter copies like any other frame in host memory."""
        return self._require(self._frame)

    @property
    def closed(self) -> bool:
        """Whether the buffer is closed, so that the segmenter no longer accepts it."""
        return self._memory is None

    @property
    def in_flight(self) -> bool:
        """Whether a frame in this buffer is still being processed; writing to the buffer then corrupts that frame."""
        return False

    def close(self) -> None:
        """Free the memory once no frame in flight reads it and no array of it is left. May be called again."""
        self._memory = self._frame = None

    def __enter__(self) -> FrameBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The segmenter would close it, so a buffer that is dropped earlier needs no warning.
        if not _is_finalizing() and "_frame" in self.__dict__:
            self.close()

    def __repr__(self) -> str:
        layout, state = self.layout, ", closed" if self.closed else ""
        return f"<{type(self).__name__}: {layout.format.value}, {layout.width} x {layout.height}{state}>"

    def _require(self, part: Part | None) -> Part:
        if part is None:
            raise BackendError(
                "this frame buffer was closed, by its owner or with its segmenter: ask for another one, "
                "segmenter.frame_buffer(height, width)"
            )
        return part


class LentBuffers:
    """The buffers of one segmenter, which closes them; unreferenced ones are forgotten. Thread-safe."""

    def __init__(self) -> None:
        # The garbage collector may run in the middle of a method and end a buffer.
        self._lock = threading.RLock()
        self._buffers: weakref.WeakSet[FrameBuffer] = weakref.WeakSet()
        self._closed = False

    def add(self, buffer: FrameBuffer) -> None:
        """Add a buffer.

        Raises:
            BackendError: The segmenter was closed; the buffer is closed, too.
        """
        with self._lock:
            if not self._closed:
                self._buffers.add(buffer)
                return
        buffer.close()
        raise BackendError("the segmenter was closed; open the model again")

    def close(self) -> None:
        """Close all buffers, and every one that is added later. May be called again."""
        with self._lock:
            self._closed = True
            buffers = list(self._buffers)
        close_all(*(buffer.close for buffer in buffers))


def buffer_layout(height: int, width: int, pixel_format: PixelFormat | str, yuv: YuvMatrix) -> FrameLayout:
    """Validate the size and format of a requested buffer.

    Raises:
        FrameError: The size or format is invalid.
    """
    try:
        format_ = PixelFormat(pixel_format)
    except ValueError as error:
        formats = ", ".join(each.value for each in PixelFormat)
        raise FrameError(f"a frame's format is one of {formats}, found {pixel_format!r}") from error
    sides: Any = (height, width)
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in sides):
        raise FrameError(f"a frame has whole numbers of rows and columns, at least 1; found {height!r} x {width!r}")
    # NumPy integers wrap around in products.
    height, width = int(height), int(width)
    if height * width > MAX_FRAME_PIXELS:
        raise FrameError(f"a frame has up to 2**30 pixels; {height} x {width} are more")
    if format_ is PixelFormat.YUYV and width % 2:
        raise FrameError(f"two pixels of a YUYV frame share their colour, so its width is even; found {width}")
    require_yuv(yuv)
    return FrameLayout(height, width, format_, yuv)


def _planes(
    layout: FrameLayout, memory: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], PixelFormat, npt.NDArray[np.uint8] | None]:
    """Return pixels, format and chroma for :class:`CameraFrame`."""
    height, width = layout.height, layout.width
    if layout.format is PixelFormat.NV12:
        luma, chroma = memory[: height * width], memory[height * width :]
        return luma.reshape(height, width), layout.format, chroma.reshape(-(-height // 2), -(-width // 2), 2)
    samples = {PixelFormat.BGRA: 4, PixelFormat.YUYV: 4}.get(layout.format, 3)
    return memory.reshape(height, -1, samples), layout.format, None
