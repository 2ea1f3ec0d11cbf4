"""The kernel ``preprocess`` against the reference of the same name, on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernel_host import kernels_of, needs_kernels, poisoned
from support.properties import example_count, examples
from yolact_plugins import reference
from yolact_plugins.colour import BT601, BT601_FULL, BT709, YuvMatrix

pytestmark = needs_kernels()

Bytes = npt.NDArray[np.uint8]
FORMATS = ("BGR", "RGB", "BGRA", "NV12", "YUYV")
MEAN, STD = (103.94, 116.78, 123.68), (57.38, 57.12, 58.40)
# Values up to 255 go through some 16 roundings of float32: colour conversion, three interpolations, normalisation.
ROUNDING = 255 * 16 * 2.0**-24
CASES_IN_AN_EXAMPLE = 10 if example_count(60) > 2 else 1


class Frame(NamedTuple):
    """What a camera delivers, and its colours by the reference."""

    pixels: Bytes
    chroma: Bytes
    bgr: npt.NDArray[Any]


def pitched(rows: Bytes, padding: int) -> Bytes:
    """Rows of bytes in memory with other bytes between them, as a 2-D view that ends with the last row."""
    height, length = rows.shape
    memory = np.full(height * (length + padding) - padding, 0xEE, np.uint8)
    view = np.lib.stride_tricks.as_strided(memory, rows.shape, (length + padding, 1))
    view[:] = rows
    return view


def make_frame(rng: np.random.Generator, form: str, height: int, width: int, padding: int, yuv: YuvMatrix) -> Frame:
    def noise(*shape: int) -> Bytes:
        return rng.integers(0, 256, shape, np.uint8)

    half = (width + 1) // 2
    if form == "NV12":
        luma, chroma = noise(height, width), noise((height + 1) // 2, half, 2)
        rows = pitched(chroma.reshape(len(chroma), -1), 2 * padding)
        return Frame(pitched(luma, padding), rows, reference.nv12_to_bgr(luma, chroma, yuv))
    if form == "YUYV":
        packed = noise(height, half, 4)
        pixels = pitched(packed.reshape(height, -1), padding)
        return Frame(pixels, np.zeros((1, 1), np.uint8), reference.yuyv_to_bgr(packed, width, yuv))
    image = noise(height, width, 4 if form == "BGRA" else 3)
    bgr = image[..., ::-1] if form == "RGB" else image[..., :3]
    return Frame(pitched(image.reshape(height, -1), padding), np.zeros((1, 1), np.uint8), bgr)


def run(
    frame: Frame, form: str, size: tuple[int, int], dtype: npt.DTypeLike, red_first: bool, yuv: YuvMatrix, seed: int = 0
) -> npt.NDArray[Any]:
    height, width = size
    out, status = poisoned((3, height, width), dtype), poisoned(2, np.uint32)
    numbers = [np.float32(value) for value in (*MEAN, *(1 / std for std in STD))]
    kernels_of("preprocess")(
        "preprocess_f16" if out.dtype == np.float16 else "preprocess_f32",
        ((width + 31) // 32, (height + 31) // 32),
        (32, 4),
        [
            *(frame.pixels, frame.chroma, np.int64(frame.pixels.strides[0]), np.int64(frame.chroma.strides[0])),
            *(np.int32(number) for number in (FORMATS.index(form), *frame.bgr.shape[:2])),
            *(out, np.int32(height), np.int32(width)),
            *(*numbers, np.int32(red_first)),
            *(np.float32(value) for value in yuv),
            status,
        ],
        seed,
    )
    assert status.tolist() == [0, 0xCDCDCDCD]
    return out


def check(
    frame: Frame, form: str, size: tuple[int, int], dtype: npt.DTypeLike, red_first: bool, yuv: YuvMatrix
) -> None:
    order = "RGB" if red_first else "BGR"
    expected = reference.preprocess(frame.bgr, *size, MEAN, STD, order)[0]
    found = run(frame, form, size, dtype, red_first, yuv, seed=size[0])
    # float16 rounds the result once more: half a step of its size.
    relative = 2.0**-11 if found.dtype == np.float16 else 2.0**-23
    np.testing.assert_allclose(found, expected, rtol=relative, atol=ROUNDING / min(STD))


sides = st.one_of(st.integers(1, 9), st.integers(1, 70))


@examples(60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(FORMATS), st.data())
def test_kernel_equals_the_reference(seed: int, form: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    yuv = data.draw(st.sampled_from([BT601, BT601_FULL, BT709]))
    size = data.draw(st.tuples(sides, sides))
    for _ in range(CASES_IN_AN_EXAMPLE):
        height, width = (int(side) for side in rng.integers(1, 80, 2))
        frame = make_frame(rng, form, height, width, int(rng.integers(0, 9)), yuv)
        check(frame, form, size, rng.choice(["float32", "float16"]), bool(rng.integers(2)), yuv)


@pytest.mark.parametrize(("height", "width"), [(2, 7680), (4320, 3), (1, 1), (1, 16384)])
@pytest.mark.parametrize("form", FORMATS)
def test_huge_and_tiny_frames(form: str, height: int, width: int) -> None:
    frame = make_frame(np.random.default_rng(5), form, height, width, 64, BT601)
    check(frame, form, (33, 47), np.float32, True, BT601)
    check(frame, form, (1, 550), np.float16, False, BT601)


def test_an_unchanged_size_gives_the_pixels_themselves() -> None:
    frame = make_frame(np.random.default_rng(2), "BGR", 24, 40, 3, BT601)
    found = run(frame, "BGR", (24, 40), np.float32, False, BT601)
    scale = np.float32(1 / np.array(STD))
    expected = (frame.bgr.astype(np.float32) - np.array(MEAN, np.float32)) * scale
    assert (found == expected.transpose(2, 0, 1)).all()


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    frame = make_frame(np.random.default_rng(3), "NV12", 31, 45, 1, BT601)
    results = [run(frame, "NV12", (50, 70), np.float32, True, BT601, seed) for seed in (0, 1, 2)]
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_colours_of_video_are_those_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")  # machines with a GPU may lack it
    rng = np.random.default_rng(7)
    luma = rng.integers(0, 256, (16, 24), np.uint8)
    chroma = rng.integers(0, 256, (8, 12, 2), np.uint8)
    ours = reference.nv12_to_bgr(luma, chroma)
    theirs = cv2.cvtColor(np.concatenate([luma, chroma.reshape(8, 24)]), cv2.COLOR_YUV2BGR_NV12)
    # OpenCV takes Y below 16 as 16, works with fixed point and rounds to integers.
    assert np.abs(ours - theirs)[luma >= 16].max() <= 1.01
    packed = rng.integers(0, 256, (16, 12, 4), np.uint8)
    theirs = cv2.cvtColor(packed.reshape(16, 24, 2), cv2.COLOR_YUV2BGR_YUYV)
    ours = reference.yuyv_to_bgr(packed, 24)
    assert np.abs(ours - theirs)[packed[..., ::2].reshape(16, 24) >= 16].max() <= 1.01
