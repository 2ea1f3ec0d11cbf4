from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_runtime.cpu.bit_depth import check_bit_depth, scale_to_eight_bits, to_eight_bits
from yolact_runtime.cpu.camera_frame import CameraFrame, host_bgr
from yolact_runtime.cpu.preprocess import as_bgr
from yolact_runtime.errors import FrameError, UsageError
from yolact_runtime.segmenter_options import SegmenterOptions


@pytest.mark.parametrize("bit_depth", range(8, 17))
def test_every_value_goes_to_the_nearest_of_256(bit_depth: int) -> None:
    values = np.arange(1 << bit_depth, dtype=np.uint16)
    expected = np.floor(values * 255.0 / ((1 << bit_depth) - 1) + 0.5)
    np.testing.assert_array_equal(to_eight_bits(values, bit_depth), expected)


@examples(50)
@given(white=st.integers(1, 65535), seed=st.integers(0, 99))
def test_any_white(white: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, white + 1, (3, 5), np.uint16)
    scaled = scale_to_eight_bits(values, white)
    assert scaled.dtype == np.uint8
    np.testing.assert_array_equal(scaled, np.floor(values * 255.0 / white + 0.5 + 1e-9))


def test_eight_bits_widened_to_sixteen_come_back_exactly() -> None:
    values = np.arange(256, dtype=np.uint16)
    np.testing.assert_array_equal(to_eight_bits(values * np.uint16(257), 16), values)
    np.testing.assert_array_equal(to_eight_bits(values, 8), values)


def test_a_value_of_more_bits_is_refused() -> None:
    with pytest.raises(
        FrameError, match="a frame is not of 12 bits: it has the value 4096, beyond 4095; correct bit_depth"
    ):
        to_eight_bits(np.array([[4096]], np.uint16), 12)


@pytest.mark.parametrize("value", [7, 17, 12.0, "12", True])
def test_what_is_no_bit_depth(value: object) -> None:
    with pytest.raises(UsageError, match=f"a whole number from 8 to 16 such as 12; found {re.escape(repr(value))}"):
        check_bit_depth(value, "--bit-depth")
    with pytest.raises(UsageError, match=r"^bit_depth (is the number|must be a whole number)"):
        SegmenterOptions(bit_depth=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_frames_of_sixteen_bits(shape: tuple[int, ...]) -> None:
    frame = np.random.default_rng(0).integers(0, 4096, shape, np.uint16)
    if shape[-1] == 4:
        frame[:, :, 3] = 65535
    colours: npt.NDArray[np.uint8] = to_eight_bits(frame if shape[-1] != 4 else frame[:, :, :3].copy(), 12)
    for found in (as_bgr(frame, 12), host_bgr(frame, 12)):
        np.testing.assert_array_equal(found, np.broadcast_to(colours.reshape(4, 5, -1), (4, 5, 3)))


def test_frames_of_sixteen_bits_need_their_bit_depth() -> None:
    frame = np.zeros((4, 5, 3), np.uint16)
    with pytest.raises(FrameError, match=r"say how many, such as with SegmenterOptions\(bit_depth=12\)"):
        as_bgr(frame)
    with pytest.raises(FrameError, match=r"a CameraFrame is of uint8 arrays .* found uint16"):
        CameraFrame(frame, "rgb")


def test_frames_of_eight_bits_are_left_as_they_are() -> None:
    frame = np.full((4, 5, 3), 200, np.uint8)
    assert np.shares_memory(as_bgr(frame, 12), frame)
