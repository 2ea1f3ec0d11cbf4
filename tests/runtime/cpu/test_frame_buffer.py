"""Frame buffers without a GPU: plain memory, and the same program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.scenes import Thing, camera_frames, fake_segmenter
from yolact_plugins.colour import BT709
from yolact_runtime import FrameBuffer, PixelFormat, SegmenterOptions
from yolact_runtime.errors import BackendError, FrameError

THINGS = [Thing((0.25, 0.25, 0.75, 0.75))]
SHAPES = {
    PixelFormat.BGR: (6, 10, 3),
    PixelFormat.RGB: (6, 10, 3),
    PixelFormat.BGRA: (6, 10, 4),
    PixelFormat.NV12: (6, 10),
    PixelFormat.YUYV: (6, 5, 4),
}


@pytest.mark.parametrize("pixel_format", PixelFormat, ids=str)
def test_a_buffer_of_each_format(pixel_format: PixelFormat) -> None:
    segmenter, backend = fake_segmenter([THINGS])
    with segmenter.frame_buffer(6, 10, pixel_format.value, BT709) as buffer:
        assert (buffer.pixels.shape, buffer.pixels.dtype, buffer.pixels.flags.c_contiguous) == (
            SHAPES[pixel_format],
            np.uint8,
            True,
        )
        assert not buffer.data.any()
        assert (buffer.chroma is None) == (pixel_format is not PixelFormat.NV12)
        assert buffer.layout == buffer.frame.layout
        assert buffer.layout.yuv == BT709
        buffer.data[:] = np.random.default_rng(0).integers(0, 256, buffer.data.size, np.uint8)
        segmenter(buffer.frame)
        segmenter(buffer)
        assert (backend.tensors[0] == backend.tensors[1]).all()
        assert repr(buffer) == f"<FrameBuffer: {pixel_format.value}, 10 x 6>"
    assert repr(buffer).endswith("closed>")


def test_planes_lie_behind_one_another() -> None:
    segmenter, _ = fake_segmenter([THINGS])
    with segmenter.frame_buffer(5, 7, "nv12") as buffer:
        assert buffer.chroma is not None
        assert buffer.chroma.shape == (3, 4, 2)
        buffer.pixels[:], buffer.chroma[:] = 1, 2
        assert buffer.data.tolist() == [1] * 35 + [2] * 24


def test_a_buffer_may_be_overwritten_as_soon_as_the_next_frame_is_asked_for() -> None:
    segmenter, backend = fake_segmenter([THINGS] * 4, SegmenterOptions(frames_in_flight=2))
    buffer = segmenter.frame_buffer(6, 10)

    def camera() -> Any:
        for i in range(4):
            buffer.pixels[:] = 50 * i
            yield buffer

    assert len(list(segmenter.stream(camera()))) == 4
    assert len({float(tensor.max()) for tensor in backend.tensors}) == 4
    assert not buffer.in_flight


def test_closed_buffers_and_closed_segmenters() -> None:
    segmenter, _ = fake_segmenter([THINGS])
    first, second = segmenter.frame_buffer(6, 10), segmenter.frame_buffer(6, 10)
    kept = first.pixels
    first.close()
    first.close()
    for use in (lambda: first.pixels, lambda: first.chroma, lambda: first.data, lambda: segmenter(first)):
        with pytest.raises(BackendError, match="this frame buffer was closed, by its owner or with its segmenter"):
            use()
    kept[:] = 1
    segmenter.close()
    assert second.closed
    with pytest.raises(BackendError, match="the segmenter was closed; open the model again"):
        segmenter.frame_buffer(6, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10), "at least 1; found 0 x 10"),
        ((6, -1), "at least 1; found 6 x -1"),
        ((6.0, 10), "whole numbers of rows and columns"),
        ((True, 10), "whole numbers"),
        (("6", 10), "whole numbers"),
        ((1 << 16, 1 << 16), r"up to 2\*\*30 pixels; 65536 x 65536"),
        ((np.int32(1 << 16), np.int32(1 << 16)), r"up to 2\*\*30 pixels; 65536 x 65536"),
        ((np.uint16(1 << 15), np.uint16((1 << 15) + 1)), r"up to 2\*\*30 pixels; 32768 x 32769"),
        ((6, 9, "yuyv"), "its width is even; found 9"),
        ((6, 10, "rgba"), "one of bgr, rgb, bgra, nv12, yuyv, found 'rgba'"),
        ((6, 10, None), "found None"),
        ((6, 10, "nv12", "bt709"), r"BT601, BT601_FULL or BT709 of yolact_plugins\.colour, .*found 'bt709'"),
        ((6, 10, "bgr", None), "yuv is a YuvMatrix: .*found None"),
    ],
)
def test_there_are_no_such_frames(arguments: tuple[Any, ...], message: str) -> None:
    segmenter, _ = fake_segmenter([THINGS])
    with pytest.raises(FrameError, match=message):
        segmenter.frame_buffer(*arguments)


def test_a_frame_of_every_layout_fits_its_buffer() -> None:
    segmenter, _ = fake_segmenter([THINGS])
    for frame in camera_frames(np.random.default_rng(0), 6, 10):
        layout = frame.layout
        buffer = segmenter.frame_buffer(layout.height, layout.width, layout.format, layout.yuv)
        assert isinstance(buffer, FrameBuffer)
        assert buffer.layout == layout
        assert buffer.data.size == sum(plane.size for plane in frame.planes())
