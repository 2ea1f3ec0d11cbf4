"""Memory in which cameras write frames, lent by a segmenter: on a GPU's machine it is memory that the GPU reaches."""

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

__all__ = ["FrameBuffer", "LentBuffers", "buffer_layout"]

Part = TypeVar("Part")
# As of files: what claims more is a mistake.
_MAX_PIXELS = 1 << 30


class FrameBuffer:
    """Memory for frames of one size and format; get it from ``Segmenter.frame_buffer``, which says when to write.

    A camera writes into :attr:`pixels` (and :attr:`chroma`, of NV12), and the buffer is given to the segmenter instead
    of an array. Use it as a context manager, or close it, or let the segmenter close it. After that the segmenter
    refuses it; arrays that somebody still has of it stay readable and writable, and their memory goes with the last.

    Args:
        layout: Of the frames; W is even for YUYV.
        memory: ``(bytes,)`` uint8, as many as the layout needs; filled with zeros.

    Attributes:
        layout: Size and format.
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
        """NV12: ``(ceil(H / 2), ceil(W / 2), 2)``, behind the luma without a gap; None for the other formats."""
        chroma: npt.NDArray[np.uint8] | None = self.frame.chroma
        return chroma

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """``(bytes,)``: all planes behind one another, as V4L2 and GStreamer have them where rows have no gaps."""
        return self._require(self._memory)

    @property
    def frame(self) -> CameraFrame:
        """The same memory as a :class:`CameraFrame`, which a segmenter copies like any other in host memory."""
        return self._require(self._frame)

    @property
    def closed(self) -> bool:
        """The segmenter takes it no more."""
        return self._memory is None

    @property
    def in_flight(self) -> bool:
        """A frame that was begun with it is not finished: whoever writes there now spoils that frame."""
        return False

    def close(self) -> None:
        """Give the memory back: once no frame in flight reads it, and no array of it is left. May be called again."""
        self._memory = self._frame = None

    def __enter__(self) -> FrameBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The segmenter would close it; whoever forgets it earlier needs no warning.
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
    """Buffers of one segmenter, which closes them; those that nobody has any more are forgotten. Thread-safe."""

    def __init__(self) -> None:
        # The garbage collector may come in the middle of a method, and with it the end of a buffer.
        self._lock = threading.RLock()
        self._buffers: weakref.WeakSet[FrameBuffer] = weakref.WeakSet()
        self._closed = False

    def add(self, buffer: FrameBuffer) -> None:
        """One more.

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
        """Close all, and whatever comes. May be called again."""
        with self._lock:
            self._closed = True
            buffers = list(self._buffers)
        close_all(*(buffer.close for buffer in buffers))


def buffer_layout(height: int, width: int, pixel_format: PixelFormat | str, yuv: YuvMatrix) -> FrameLayout:
    """Check what somebody asks a buffer for.

    Raises:
        FrameError: There are no such frames.
    """
    try:
        format_ = PixelFormat(pixel_format)
    except ValueError as error:
        formats = ", ".join(each.value for each in PixelFormat)
        raise FrameError(f"a frame's format is one of {formats}, found {pixel_format!r}") from error
    sides: Any = (height, width)
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in sides):
        raise FrameError(f"a frame has whole numbers of rows and columns, at least 1; found {height!r} x {width!r}")
    # NumPy's own numbers wrap around in products.
    height, width = int(height), int(width)
    if height * width > _MAX_PIXELS:
        raise FrameError(f"a frame has up to 2**30 pixels; {height} x {width} are more")
    if format_ is PixelFormat.YUYV and width % 2:
        raise FrameError(f"two pixels of a YUYV frame share their colour, so its width is even; found {width}")
    require_yuv(yuv)
    return FrameLayout(height, width, format_, yuv)


def _planes(
    layout: FrameLayout, memory: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], PixelFormat, npt.NDArray[np.uint8] | None]:
    """Pixels, format and chroma, as :class:`CameraFrame` takes them."""
    height, width = layout.height, layout.width
    if layout.format is PixelFormat.NV12:
        luma, chroma = memory[: height * width], memory[height * width :]
        return luma.reshape(height, width), layout.format, chroma.reshape(-(-height // 2), -(-width // 2), 2)
    samples = {PixelFormat.BGRA: 4, PixelFormat.YUYV: 4}.get(layout.format, 3)
    return memory.reshape(height, -1, samples), layout.format, None
