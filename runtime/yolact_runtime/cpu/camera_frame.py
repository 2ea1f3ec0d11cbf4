"""Frames as cameras and decoders give them: pixels in a stated format, on the host or on the GPU."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_plugins.colour import BT601, YuvMatrix
from yolact_plugins.driver.foreign_array import is_device_array
from yolact_plugins.reference import nv12_to_bgr, yuyv_to_bgr
from yolact_runtime.cpu.preprocess import as_bgr
from yolact_runtime.errors import FrameError

__all__ = ["CameraFrame", "FrameLayout", "PixelFormat", "host_bgr", "require_yuv"]


class PixelFormat(Enum):
    """Pixel format of a frame: how its bytes become colours. Names are those of V4L2 and GStreamer, in lower case."""

    BGR = "bgr"
    RGB = "rgb"
    BGRA = "bgra"
    NV12 = "nv12"
    YUYV = "yuyv"


_NUM_BYTES = {PixelFormat.BGR: 3, PixelFormat.RGB: 3, PixelFormat.BGRA: 4}


@dataclass(frozen=True)
class FrameLayout:
    """Size and pixel format of a frame. The GPU is prepared once for all frames of one layout.

    Attributes:
        height: Rows of pixels.
        width: Columns of pixels.
        format: Pixel format.
        yuv: Matrix of NV12 and YUYV; see :mod:`yolact_plugins.colour`.
    """

    height: int
    width: int
    format: PixelFormat
    yuv: YuvMatrix = BT601

    @property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        """Shape of each plane without gaps, (rows, bytes of a row); NV12 has two planes, the other formats one."""
        if self.format is PixelFormat.NV12:
            return (self.height, self.width), (-(-self.height // 2), 2 * -(-self.width // 2))
        if self.format is PixelFormat.YUYV:
            return ((self.height, 4 * -(-self.width // 2)),)
        return ((self.height, _NUM_BYTES[self.format] * self.width),)

    @property
    def num_bytes(self) -> int:
        """Bytes of all planes without gaps."""
        return sum(rows * row_bytes for rows, row_bytes in self.plane_shapes)


@dataclass(frozen=True)
class CameraFrame:
    """A frame with its pixel format. BGR, BGRA and grayscale arrays need none: pass them as they are.

    Nothing is copied when it is made; the arrays belong to the caller.

    Example:
        ```python
        instances = segmenter(CameraFrame(nv12, "nv12"))  # (H * 3 / 2, W) uint8, as V4L2 delivers it
        instances = segmenter(CameraFrame(luma, "nv12", chroma=chroma, yuv=BT709))
        ```

    Attributes:
        pixels: uint8, in host memory (NumPy) or on the GPU (an object with DLPack or the CUDA array interface, which is
            used in place and must not change until the result is there). RGB and BGR ``(H, W, 3)``, BGRA
            ``(H, W, 4)``, YUYV ``(H, W / 2, 4)`` or ``(H, W, 2)`` with W even, NV12 ``(H, W)`` luma. Rows may have gaps
            between them.
        format: Pixel format: a :class:`PixelFormat` or its value.
        chroma: Second plane of NV12, ``(ceil(H / 2), ceil(W / 2), 2)``. None for the other formats, and for NV12 in one
            array: `pixels` is then ``(H * 3 / 2, W)`` with H and W even, the chroma rows below those of luma.
        yuv: Matrix of NV12 and YUYV; see :mod:`yolact_plugins.colour`.

    Raises:
        FrameError: The arrays are not a frame of that format, or `yuv` is not a matrix.
    """

    pixels: Any
    format: PixelFormat | str
    chroma: Any = None
    yuv: YuvMatrix = BT601

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "format", PixelFormat(self.format))
        except ValueError as error:
            formats = ", ".join(each.value for each in PixelFormat)
            raise FrameError(f"a frame's format is one of {formats}, found {self.format!r}") from error
        require_yuv(self.yuv)
        for array in (self.pixels, *([] if self.chroma is None else [self.chroma])):
            if not (isinstance(array, np.ndarray) or is_device_array(array)):
                raise FrameError(f"a frame is an array on the host or on the GPU, found {type(array).__name__}")
        if self.chroma is not None and self.on_device != is_device_array(self.chroma):
            raise FrameError("luma and chroma of a frame lie both on the host or both on the GPU")
        self._check_shapes()

    @property
    def on_device(self) -> bool:
        """Whether the pixels are in a GPU's memory."""
        return not isinstance(self.pixels, np.ndarray)

    @property
    def layout(self) -> FrameLayout:
        """Size and pixel format."""
        height, width = (int(side) for side in self.pixels.shape[:2])
        if self.format is PixelFormat.NV12 and self.chroma is None:
            height = height * 2 // 3
        if self.format is PixelFormat.YUYV and self.pixels.shape[2] == 4:
            width *= 2
        return FrameLayout(height, width, PixelFormat(self.format), self.yuv)

    def planes(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """Return views of a host frame's planes, ``(rows, …)`` each, in the order of ``layout.plane_shapes``."""
        if self.format is not PixelFormat.NV12:
            return (self.pixels,)
        if self.chroma is not None:
            return self.pixels, self.chroma
        height = self.layout.height
        return self.pixels[:height], self.pixels[height:]

    def _check_shapes(self) -> None:
        shape = tuple(int(side) for side in self.pixels.shape)
        dtypes = [getattr(a, "dtype", None) for a in (self.pixels, self.chroma) if isinstance(a, np.ndarray)]
        if any(dtype != np.uint8 for dtype in dtypes):
            found = next(dtype for dtype in dtypes if dtype != np.uint8)
            raise FrameError(f"a CameraFrame is of uint8 arrays with values 0..255, found {found}; convert it first")
        if not self._fits(shape):
            chroma = "" if self.chroma is None else f" with chroma {tuple(self.chroma.shape)}"
            raise FrameError(f"no {PixelFormat(self.format).value} frame has the shape {shape}{chroma}")

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if 0 in shape:
            return False
        if self.format is PixelFormat.NV12:
            if len(shape) != 2 or (self.chroma is None and (shape[0] % 3 or shape[1] % 2)):
                return False
            wanted = (-(-shape[0] // 2), -(-shape[1] // 2), 2)
            return self.chroma is None or tuple(int(side) for side in self.chroma.shape) == wanted
        if self.chroma is not None or len(shape) != 3:
            return False
        if self.format is PixelFormat.YUYV:
            return shape[2] == 4 or (shape[2] == 2 and shape[1] % 2 == 0)
        return shape[2] == _NUM_BYTES[PixelFormat(self.format)]


def require_yuv(yuv: object) -> None:
    """Raise :class:`FrameError` where something else is given for the matrix of NV12 and YUYV, such as its name."""
    if not isinstance(yuv, YuvMatrix):
        raise FrameError(
            f"yuv is a YuvMatrix: BT601, BT601_FULL or BT709 of yolact_plugins.colour, or YuvMatrix.of(...); "
            f"found {yuv!r:.80}"
        )


def host_bgr(frame: Any, bit_depth: int | None = None) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """Return a frame as blue, green and red samples, for a network on the host.

    Args:
        frame: A NumPy array as :func:`yolact_runtime.cpu.preprocess.as_bgr` takes it, or a :class:`CameraFrame` of
            such.
        bit_depth: Significant bits of plain uint16 arrays; None refuses them.

    Returns:
        Samples ``(H, W, 3)``, blue first: uint8, a view where possible; float32 of NV12 and YUYV, clipped, not rounded.

    Raises:
        FrameError: It is not a frame, or is in a GPU's memory.
    """
    on_device = frame.on_device if isinstance(frame, CameraFrame) else is_device_array(frame)
    if on_device:
        raise FrameError(
            "this frame lies on the GPU and the network runs on the host: copy it to the host first, or open the model "
            "with a TensorRT backend"
        )
    if not isinstance(frame, CameraFrame):
        return as_bgr(frame, bit_depth)
    if frame.format is PixelFormat.RGB:
        return as_bgr(frame.pixels)[..., ::-1]
    if frame.format is PixelFormat.NV12:
        layout = frame.layout
        luma, chroma = frame.planes()
        return nv12_to_bgr(luma, chroma.reshape(*chroma.shape[:1], -(-layout.width // 2), 2), frame.yuv)
    if frame.format is PixelFormat.YUYV:
        width = frame.layout.width
        return yuyv_to_bgr(frame.pixels.reshape(len(frame.pixels), -1, 4), width, frame.yuv)
    return as_bgr(frame.pixels)
