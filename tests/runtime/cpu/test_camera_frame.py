"""Frames as cameras give them: what is a frame of which format, and what it is on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from yolact_plugins import reference
from yolact_plugins.colour import BT709
from yolact_runtime import CameraFrame, PixelFormat
from yolact_runtime.cpu.camera_frame import FrameLayout, host_bgr
from yolact_runtime.cpu.preprocess import preprocess, stretch
from yolact_runtime.errors import FrameError
from yolact_runtime.model.manifest import InputSpec


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("frame", "size"),
    [
        (CameraFrame(zeros(4, 6, 3), "bgr"), (4, 6)),
        (CameraFrame(zeros(4, 6, 3), PixelFormat.RGB), (4, 6)),
        (CameraFrame(zeros(4, 6, 4), "bgra"), (4, 6)),
        (CameraFrame(zeros(6, 6), "nv12"), (4, 6)),
        (CameraFrame(zeros(5, 7), "nv12", zeros(3, 4, 2)), (5, 7)),
        (CameraFrame(zeros(4, 6, 2), "yuyv"), (4, 6)),
        (CameraFrame(zeros(5, 3, 4), "yuyv"), (5, 6)),
    ],
)
def test_size_planes_and_bytes(frame: CameraFrame, size: tuple[int, int]) -> None:
    layout = frame.layout
    assert (layout.height, layout.width) == size
    planes = frame.planes()
    assert layout.num_bytes == sum(plane.size for plane in planes)
    assert [(len(plane), plane.size // len(plane)) for plane in planes] == list(layout.plane_shapes)
    assert host_bgr(frame).shape == (*size, 3)


@pytest.mark.parametrize(
    ("pixels", "format_", "chroma", "message"),
    [
        (zeros(4, 6, 3), "yuv444", None, "one of bgr, rgb, bgra, nv12, yuyv, found 'yuv444'"),
        (zeros(4, 6, 4), "bgr", None, r"no bgr frame has the shape \(4, 6, 4\)"),
        (zeros(4, 6), "bgr", None, r"no bgr frame has the shape \(4, 6\)"),
        (zeros(0, 6, 3), "bgr", None, "no bgr frame"),
        (zeros(4, 6), "nv12", None, "no nv12 frame"),
        (zeros(3, 5), "nv12", None, "no nv12 frame"),
        (zeros(4, 6), "nv12", zeros(2, 2, 2), r"no nv12 frame has the shape \(4, 6\) with chroma \(2, 2, 2\)"),
        (zeros(4, 5, 2), "yuyv", None, "no yuyv frame"),
        (zeros(4, 6, 3), "bgr", zeros(2, 3, 2), "with chroma"),
        (np.zeros((4, 6, 3), np.float32), "bgr", None, "of uint8 arrays with values 0..255, found float32"),
        ("frame", "bgr", None, "an array on the host or on the GPU, found str"),
        (zeros(4, 6), "nv12", "chroma", "found str"),
    ],
)
def test_what_is_no_frame(pixels: Any, format_: str, chroma: Any, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        CameraFrame(pixels, format_, chroma)


@pytest.mark.parametrize("yuv", ["bt709", None, 5, (16.0, 1.0, 1.0, 1.0, 1.0, 1.0)])
def test_a_matrix_is_none_by_its_name(yuv: Any) -> None:
    """Else it would be noticed in the middle of a frame, in words that say nothing."""
    with pytest.raises(FrameError, match=r"yuv is a YuvMatrix: BT601, BT601_FULL or BT709 of yolact_plugins\.colour"):
        CameraFrame(zeros(6, 4), "nv12", yuv=yuv)


def test_colours_on_the_host() -> None:
    rng = np.random.default_rng(0)
    luma, chroma = rng.integers(0, 256, (5, 7), np.uint8), rng.integers(0, 256, (3, 4, 2), np.uint8)
    packed = rng.integers(0, 256, (5, 4, 4), np.uint8)
    rgb = rng.integers(0, 256, (5, 7, 3), np.uint8)
    assert (host_bgr(CameraFrame(luma, "nv12", chroma, BT709)) == reference.nv12_to_bgr(luma, chroma, BT709)).all()
    assert (host_bgr(CameraFrame(packed, "yuyv")) == reference.yuyv_to_bgr(packed, 8)).all()
    assert (host_bgr(CameraFrame(rgb, "rgb")) == rgb[..., ::-1]).all()
    together = np.concatenate([rng.integers(0, 256, (4, 6), np.uint8), rng.integers(0, 256, (2, 6), np.uint8)])
    expected = reference.nv12_to_bgr(together[:4], together[4:].reshape(2, 3, 2))
    assert (host_bgr(CameraFrame(together, "nv12")) == expected).all()


def test_colours_that_are_not_rounded_are_stretched_as_they_are() -> None:
    spec = InputSpec(8, 9, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    frame = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    assert (stretch(frame.astype(np.float32), spec) == preprocess(frame, spec)).all()
    assert (stretch(frame[:, ::-1], spec) == preprocess(np.ascontiguousarray(frame[:, ::-1]), spec)).all()


def test_layouts_are_equal_when_frames_go_the_same_way() -> None:
    assert CameraFrame(zeros(4, 6, 3), "bgr").layout == FrameLayout(4, 6, PixelFormat.BGR)
    assert CameraFrame(zeros(6, 6), "nv12").layout == CameraFrame(zeros(4, 6), "nv12", zeros(2, 3, 2)).layout
    assert CameraFrame(zeros(6, 6), "nv12").layout != CameraFrame(zeros(6, 6), "nv12", yuv=BT709).layout
