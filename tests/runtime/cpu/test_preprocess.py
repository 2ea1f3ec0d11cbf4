from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins import reference
from yolact_runtime.cpu.preprocess import as_bgr, preprocess
from yolact_runtime.errors import FrameError
from yolact_runtime.model.manifest import InputSpec

Frame = npt.NDArray[np.uint8]
GOLDENS = Path(__file__).parents[2] / "goldens"
RESNET = InputSpec(32, 48, (103.94, 116.78, 123.68), (57.38, 57.12, 58.40))
DARKNET = InputSpec(32, 48, (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
IN_GRAPH = InputSpec(32, 48, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "BGR")
SPECS = {"resnet": RESNET, "darknet": DARKNET, "normalised in the graph": IN_GRAPH}


def _frame(seed: int, *shape: int) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _expected(frame: Frame, spec: InputSpec) -> npt.NDArray[np.float32]:
    return reference.preprocess(frame, spec.height, spec.width, spec.mean_bgr, spec.std_bgr, spec.channel_order)


def _tolerance(spec: InputSpec) -> float:
    """1e-5 after normalisation; a network that normalises in its graph sees 0..255, where float32 steps are 1.5e-5."""
    return 1e-5 if min(spec.std_bgr) > 10 else 255 * 2**-22


@examples(100)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(list(SPECS)),
)
def test_equals_the_reference(seed: int, rows: int, columns: int, height: int, width: int, name: str) -> None:
    spec = dataclasses.replace(SPECS[name], height=height, width=width)
    frame = _frame(seed, rows, columns, 3)
    tensor = preprocess(frame, spec)
    assert tensor.shape == (1, 3, height, width)
    np.testing.assert_allclose(tensor, _expected(frame, spec), rtol=0, atol=_tolerance(spec))


def test_equals_pytorch_on_an_ordinary_frame() -> None:
    torch = pytest.importorskip("torch")
    spec = dataclasses.replace(RESNET, height=138, width=138)
    frame = _frame(1, 480, 640, 3)
    planes = torch.from_numpy(frame).float().permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (138, 138), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean_bgr, spec.std_bgr))
    expected = ((resized - mean) / std)[:, [2, 1, 0]]
    # PyTorch computes positions in float32: off by 640 * 2^-24 pixels of up to 255, divided by a std of 57.
    np.testing.assert_allclose(preprocess(frame, spec), expected.numpy(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("config", ["yolact_resnet50", "yolact_im400"])
@pytest.mark.parametrize("image", ["astronaut", "coffee", "chelsea"])
def test_equals_the_network_input_of_the_original_implementation(config: str, image: str) -> None:
    size = json.loads(gzip.decompress((GOLDENS / "official" / f"{config}.json.gz").read_bytes()))["max_size"]
    with np.load(GOLDENS / "official" / f"{config}.npz") as golden:
        expected = golden[f"{image}.input"]
    frame = cv2.imread(str(GOLDENS / "images" / f"{image}.png"))
    flat = preprocess(frame, dataclasses.replace(RESNET, height=size, width=size)).ravel()
    np.testing.assert_allclose(flat[:: max(1, flat.size // 4096)][:4096], expected, rtol=0, atol=2e-4)


def test_mean_and_std_are_in_bgr_order_and_the_swap_comes_last() -> None:
    spec = InputSpec(1, 1, (1.0, 2.0, 3.0), (9.0, 6.0, 3.0))
    frame = np.array([[[10, 20, 30]]], np.uint8)  # blue, green, red
    np.testing.assert_allclose(preprocess(frame, spec).ravel(), [9, 3, 1], rtol=1e-6)
    np.testing.assert_allclose(
        preprocess(frame, dataclasses.replace(spec, channel_order="BGR")).ravel(), [1, 3, 9], rtol=1e-6
    )


def test_darknet_frames_are_divided_by_255_and_nothing_else() -> None:
    assert (preprocess(np.full((7, 9, 3), 255, np.uint8), DARKNET) == 1).all()
    assert (preprocess(np.zeros((7, 9, 3), np.uint8), DARKNET) == 0).all()


def test_interpolates_in_float_and_does_not_round() -> None:
    frame = np.array([[[0] * 3, [1] * 3]], np.uint8)
    assert (preprocess(frame, dataclasses.replace(IN_GRAPH, height=1, width=1)) == 0.5).all()


def test_does_not_antialias() -> None:
    frame = np.zeros((3, 12, 3), np.uint8)
    frame[1, 1::3] = 255  # the pixels that a third of the size looks at
    assert (preprocess(frame, dataclasses.replace(IN_GRAPH, height=1, width=4)) == 255).all()


@pytest.mark.parametrize("shape", [(10, 300, 3), (300, 10, 3)])
def test_stretches_and_never_letterboxes(shape: tuple[int, int, int]) -> None:
    assert (preprocess(np.full(shape, 200, np.uint8), IN_GRAPH) == 200).all()


def test_a_constant_frame_gives_a_constant_tensor() -> None:
    assert (preprocess(np.full((37, 53, 3), 131, np.uint8), IN_GRAPH) == 131).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 70, 3), (70, 1, 3)])
@pytest.mark.parametrize("name", list(SPECS))
def test_the_smallest_frames(shape: tuple[int, int, int], name: str) -> None:
    frame = _frame(3, *shape)
    np.testing.assert_allclose(
        preprocess(frame, SPECS[name]), _expected(frame, SPECS[name]), rtol=0, atol=_tolerance(SPECS[name])
    )


def test_a_frame_of_48_megapixels() -> None:
    spec = dataclasses.replace(RESNET, height=70, width=110)
    gray = _frame(4, 8000, 6000)
    tensor = preprocess(gray, spec)
    resized = reference.resize_bilinear(gray, 70, 110)
    for plane, channel in zip(tensor[0], (2, 1, 0), strict=True):
        expected = (resized - np.float32(spec.mean_bgr[channel])) / np.float32(spec.std_bgr[channel])
        np.testing.assert_allclose(plane, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("height", [1, 15, 16, 17, 32, 33])
def test_every_number_of_rows_is_filled(height: int) -> None:
    spec = dataclasses.replace(RESNET, height=height)
    frame = _frame(5, 20, 30, 3)
    np.testing.assert_allclose(preprocess(frame, spec), _expected(frame, spec), rtol=0, atol=1e-5)


def test_gray_frames_are_repeated() -> None:
    gray = _frame(6, 20, 30)
    expected = preprocess(np.repeat(gray[:, :, None], 3, axis=2), RESNET)
    assert (preprocess(gray, RESNET) == expected).all()
    assert (preprocess(gray[:, :, None], RESNET) == expected).all()


def test_alpha_is_ignored() -> None:
    frame = _frame(7, 20, 30, 4)
    assert (preprocess(frame, RESNET) == preprocess(np.ascontiguousarray(frame[:, :, :3]), RESNET)).all()


@pytest.mark.parametrize(
    "view",
    [
        np.s_[::-1],
        np.s_[:, ::-1],
        np.s_[:, :, ::-1],
        np.s_[::2, ::3],
        np.s_[3:11, 5:22],
    ],
)
def test_any_strides(view: tuple[slice, ...]) -> None:
    frame = _frame(8, 20, 30, 3)[view]
    assert (preprocess(frame, RESNET) == preprocess(frame.copy(), RESNET)).all()


def test_a_transposed_frame() -> None:
    frame = _frame(9, 3, 30, 20).transpose(2, 1, 0)
    assert not frame.flags.c_contiguous
    assert (preprocess(frame, RESNET) == preprocess(np.ascontiguousarray(frame), RESNET)).all()


def test_a_read_only_frame_is_read_and_nothing_more() -> None:
    frame = _frame(10, 20, 30, 3)
    frame.flags.writeable = False
    before = frame.copy()
    preprocess(frame, RESNET)
    assert (frame == before).all()


def test_the_tensor_is_contiguous_and_owned_by_the_caller() -> None:
    frame = _frame(11, 32, 48, 3)
    first = preprocess(frame, IN_GRAPH)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert first.flags.writeable
    kept = first.copy()
    preprocess(255 - frame, IN_GRAPH)
    assert (first == kept).all()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 array"),
        (np.zeros((4, 4, 3), np.uint16), "a frame of uint16"),
        (np.zeros((4, 4, 3), bool), "bool array"),
        (np.zeros((4, 4, 3), np.int8), "int8 array"),
        ([[0]], "found list"),
        (None, "found NoneType"),
        (b"jpeg", "found bytes"),
        (np.zeros((4, 4, 2), np.uint8), r"found \(4, 4, 2\)"),
        (np.zeros((3, 40, 40), np.uint8), r"found \(3, 40, 40\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"found \(1, 4, 4, 3\)"),
        (np.zeros(12, np.uint8), r"found \(12,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"found \(0, 4, 3\)"),
        (np.zeros((4, 0), np.uint8), r"found \(4, 0, 1\)"),
        (np.uint8(3), "found uint8"),
    ],
)
def test_anything_else_is_refused_with_what_was_found(frame: object, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        preprocess(frame, RESNET)  # type: ignore[arg-type]  # the point of the test


def test_as_bgr_copies_nothing_where_it_can() -> None:
    frame = _frame(12, 5, 6, 4)
    assert np.shares_memory(as_bgr(frame), frame)
    assert as_bgr(frame).shape == (5, 6, 3)
    gray = _frame(13, 5, 6)
    assert np.shares_memory(as_bgr(gray), gray)
    assert as_bgr(gray).shape == (5, 6, 3)
