"""The kernels of the mask-IoU network against the reference, on the host."""

from __future__ import annotations

import functools
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens import fill
from support.kernel_host import kernels_of, needs_kernels, poisoned
from support.mask_iou_models import mask_iou_network_model, write_mask_iou
from support.properties import example_count, examples, some_of
from yolact_benchmarks.measure.scenes import make_mask_iou_network
from yolact_plugins import reference
from yolact_plugins.frame_status import FrameStatus
from yolact_runtime.backends.onnxruntime_session import open_cpu_session
from yolact_runtime.cuda.mask_iou import map_sizes, pack_network
from yolact_runtime.model.mask_iou_network import WIDTHS, MaskIouNetwork, read_mask_iou
from yolact_runtime.model.model_file import ModelFile

pytestmark = needs_kernels()

Float = npt.NDArray[np.float32]
CASES_IN_AN_EXAMPLE = 5 if example_count(60) > 2 else 1
KERNELS = "mask_iou"
GOLDEN = Path(fill.__file__).parent / "official" / "yolact_plus_resnet50.json.gz"


@functools.cache
def random_network(seed: int, num_classes: int = 3) -> MaskIouNetwork:
    """Biases of both signs, so that an empty mask predicts something."""
    return make_mask_iou_network(num_classes, seed)


@dataclass(frozen=True)
class Masks:
    """Probabilities of one frame's detections; what lies outside of the windows is never to be read."""

    probability: Float  # (n, Hp, Wp)
    window: npt.NDArray[np.int32]  # (n, 4) left, right, top, bottom
    class_id: npt.NDArray[np.int32]
    confidence: Float

    @property
    def cropped(self) -> Float:
        """What the network sees."""
        masks = np.zeros_like(self.probability)
        for mask, soft, (left, right, top, bottom) in zip(masks, self.probability, self.window, strict=True):
            mask[top:bottom, left:right] = soft[top:bottom, left:right]
        return masks


def make_masks(rng: np.random.Generator, n: int, height: int, width: int, num_classes: int = 3) -> Masks:
    """Windows of every kind: nothing, one pixel, everything, a band, and whatever is random."""
    window = np.zeros((n, 4), np.int32)
    for row in window:
        for axis, side in ((0, width), (2, height)):
            first, last = sorted(rng.integers(0, side + 1, 2))
            kind = rng.integers(6)
            if kind == 0:
                first, last = 0, side
            elif kind == 1:
                first = min(first, side - 1)
                last = first + 1
            elif kind == 2:
                first, last = (0, last) if rng.integers(2) else (first, side)
            row[axis : axis + 2] = first, last
    return Masks(
        rng.choice([0.0, 1.0, rng.random()], (n, height, width)).astype(np.float32)
        if rng.integers(2)
        else rng.random((n, height, width), np.float32),
        window,
        rng.integers(0, num_classes, n).astype(np.int32),
        rng.random(n, np.float32),
    )


def predict(
    masks: Masks, network: MaskIouNetwork, seed: int = 0, room: int = 1, blocks: int = 2
) -> tuple[Float, Float, int]:
    """``(n,)`` predicted IoUs and rescored confidences, and the status."""
    kernels, n = kernels_of(KERNELS), len(masks.window)
    rows, (height, width) = n + room, masks.probability.shape[1:]
    soft, window = poisoned((rows, height, width), np.float32), poisoned((rows, 8), np.int32)
    for to, soft_mask, (left, right, top, bottom) in zip(soft, masks.probability, masks.window, strict=False):
        to[top:bottom, left:right] = soft_mask[top:bottom, left:right]
    window[:n, :4] = masks.window
    class_id, confidence = poisoned(rows, np.int32), poisoned(rows, np.float32)
    class_id[:n], confidence[:n] = masks.class_id, masks.confidence
    count, status, packed = np.array([n], np.int32), np.zeros(1, np.uint32), pack_network(network)
    size, sizes = (np.int32(height), np.int32(width)), map_sizes(height, width)
    second, third, fourth = (poisoned((rows, *sizes[i], WIDTHS[i]), np.float32) for i in (2, 3, 4))
    predicted, rescored = poisoned(rows, np.float32), poisoned(rows, np.float32)
    shared = [window, count, *size, packed]
    kernels("mask_iou_layers_1_2", (blocks, rows), (128,), [soft, *shared, second], seed)
    kernels("mask_iou_layer_3", (blocks, rows), (256,), [second, *shared, third], seed)
    kernels("mask_iou_layer_4", (blocks, rows), (256,), [third, *shared, fourth], seed)
    arguments = [fourth, window, count, class_id, confidence, *size, np.int32(network.num_classes), packed]
    kernels("mask_iou_layers_5_6", (rows,), (256,), [*arguments, predicted, rescored, status], seed)
    for rest in (predicted[n:], rescored[n:], second[n:], third[n:], fourth[n:]):
        assert (rest.view(np.uint8) == 0xCD).all()
    return predicted[:n], rescored[:n], int(status[0])


def exact(masks: Float, network: MaskIouNetwork) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """``(n, C - 1)`` predictions in float64, and what float32 may differ from them.

    A sum of K products and its bias, in whatever order, is off by at most K + 12 roundings (12 for the sums of warps
    and of what zeros make) of the sum of their magnitudes, and passes on what its inputs are off; neither ReLU nor the
    maximum makes an error larger.
    """
    maps: npt.NDArray[Any] = masks[:, None].astype(np.float64)
    error = np.zeros_like(maps)
    for weight, bias in network.layers:
        side = weight.shape[-1]
        stride, terms = (2 if side == 3 else 1), weight[0].size + 12

        def convolve(
            values: npt.NDArray[Any], weights: npt.NDArray[Any], side: int = side, stride: int = stride
        ) -> npt.NDArray[Any]:
            seen = np.lib.stride_tricks.sliding_window_view(values, (side, side), (2, 3))[:, :, ::stride, ::stride]
            return np.moveaxis(np.tensordot(seen, weights.astype(np.float64), ((1, 4, 5), (1, 2, 3))), 3, 1)

        magnitude = np.abs(weight)
        passed = convolve(error, magnitude)
        largest = convolve(np.abs(maps) + error, magnitude) + np.abs(bias)[:, None, None]
        error = passed + terms * 2.0**-24 * largest
        maps = np.maximum(convolve(maps, weight) + bias.astype(np.float64)[:, None, None], 0)
    return maps.max(axis=(2, 3)), error.max(axis=(2, 3))


def check(masks: Masks, network: MaskIouNetwork, seed: int = 0, blocks: int = 2) -> None:
    predicted, rescored, status = predict(masks, network, seed, blocks=blocks)
    assert status == 0
    assert (rescored == masks.confidence * predicted).all()
    if not len(predicted):
        return
    chosen = np.arange(len(predicted)), masks.class_id
    wanted, error = (array[chosen] for array in exact(masks.cropped, network))
    assert (wanted > 0).all()
    assert (np.abs(predicted - wanted) <= error).all()
    # The bound is for the worst signs of all roundings. Far fewer meet, so that a wrong index does not hide in it.
    assert np.abs(predicted - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 0.1)


@examples(60)
@given(st.integers(0, 2**32 - 1))
def test_kernels_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(CASES_IN_AN_EXAMPLE):
        height, width = (int(side) for side in rng.integers(63, 82, 2))
        masks = make_masks(rng, int(rng.choice([0, 1, 3])), height, width)
        check(masks, random_network(int(rng.integers(4))), seed % 5, int(rng.integers(1, 4)))


@pytest.mark.parametrize(("height", "width"), [(138, 138), (63, 63), (100, 63), (64, 400)])
def test_sizes_of_prototypes(height: int, width: int) -> None:
    """One tile of each layer, and several."""
    masks = make_masks(np.random.default_rng(height), 3, height, width, 80)
    masks.window[0] = 0, width, 0, height
    for seed in some_of(5):
        check(masks, random_network(9, 80), seed, blocks=9)


def test_the_reference_is_what_onnx_runtime_computes(tmp_path: Path) -> None:
    """The network as it is exported, with weights of its own, and those weights read back."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    file = write_mask_iou(tmp_path / "mask_iou.fp32.onnx", 80, (138, 138))
    network = read_mask_iou(file)
    masks = make_masks(np.random.default_rng(3), 5, 138, 138, 80)
    session = open_cpu_session(file.content)
    (theirs,) = session.run(None, {"mask": masks.cropped[:, None]})
    wanted, error = exact(masks.cropped, network)
    assert (np.abs(theirs - wanted) <= error).all()
    np.testing.assert_allclose(reference.mask_iou(masks.cropped, network.layers), theirs, rtol=1e-4, atol=1e-6)
    predicted, _, _ = predict(masks, network)
    chosen = np.arange(5), masks.class_id
    assert (np.abs(predicted - theirs[chosen]) <= 2 * error[chosen]).all()
    np.testing.assert_allclose(predicted, theirs[chosen], rtol=1e-5, atol=1e-6)


def test_the_weights_of_the_golden_in_onnx_runtime() -> None:
    """Those that the original implementation ran with."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    golden = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    seeds = golden["residual_norm"], golden["num_classes"], golden["background_logit"]
    names = [f"maskiou_net.maskiou_net.{index}.{kind}" for index in range(0, 12, 2) for kind in ("weight", "bias")]
    arrays = [np.array(fill.tensor(name, tuple(golden["keys"][name]), *seeds)) for name in names]

    def put(model: Any) -> None:
        for weight, array in zip(model.graph.initializer, arrays, strict=True):
            weight.raw_data = array.tobytes()

    content = mask_iou_network_model(80, (138, 138), change=put)
    session = open_cpu_session(content)
    masks = make_masks(np.random.default_rng(7), 40, 138, 138, 80)
    (theirs,) = session.run(None, {"mask": masks.cropped[:, None]})
    chosen = np.arange(40), masks.class_id
    assert (theirs[chosen] > 0).sum() > 5
    network = read_mask_iou(ModelFile(Path("mask_iou.fp32.onnx"), content))
    _, error = exact(masks.cropped, network)
    predicted, _, _ = predict(masks, network, blocks=9)
    assert (np.abs(predicted - theirs[chosen]) <= 2 * error[chosen]).all()
    np.testing.assert_allclose(predicted, theirs[chosen], rtol=1e-5, atol=1e-6)


def test_an_empty_mask_predicts_what_the_network_makes_of_zeros() -> None:
    network = random_network(1)
    masks = make_masks(np.random.default_rng(1), 3, 66, 70)
    masks.window[:] = [[0, 0, 0, 0], [5, 5, 3, 9], [69, 70, 65, 66]]  # the last pixel is one that no stride reaches
    predicted, _, _ = predict(masks, network)
    zeros = reference.mask_iou(np.zeros((1, 66, 70), np.float32), network.layers)[0]
    np.testing.assert_allclose(predicted, zeros[masks.class_id], rtol=1e-5)
    assert (zeros > 0).any()


def test_a_pixel_alone_changes_what_it_reaches() -> None:
    """Every pixel of a mask by itself, beside the other pixels of its row and column."""
    network = random_network(2)
    rng = np.random.default_rng(2)
    masks = make_masks(rng, 40, 63, 63)
    for row in masks.window:
        x, y = rng.integers(0, 63, 2)
        row[:] = x, x + 1, y, y + 1
    check(masks, network, seed=1)


def test_as_many_detections_as_there_are() -> None:
    rng = np.random.default_rng(4)
    masks = make_masks(rng, 256, 63, 63)
    for row in masks.window[::2]:
        x, y = rng.integers(0, 50, 2)
        row[:] = x, x + 12, y, y + 12
    check(masks, random_network(0), seed=2)


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    masks = make_masks(np.random.default_rng(5), 6, 80, 75)
    first, *others = [
        predict(masks, random_network(3), seed, blocks=blocks) for seed, blocks in ((0, 1), (1, 2), (2, 3), (3, 50))
    ]
    for other in others:
        assert (other[0] == first[0]).all()
        assert (other[1] == first[1]).all()


@pytest.mark.parametrize("layer", range(6))
def test_predictions_that_are_not_finite_are_reported(layer: int) -> None:
    """Weights that overflow in each layer: infinity, and in the layers after it also the difference of two."""
    network = random_network(3)
    broken = [(weight.copy(), bias.copy()) for weight, bias in network.layers]
    broken[layer][0][:] = np.float32(3e38)
    masks = make_masks(np.random.default_rng(6), 2, 63, 63)
    masks.window[:] = 0, 63, 0, 63
    masks.probability[:] = 1
    assert predict(masks, network)[2] == 0
    with np.errstate(over="ignore", invalid="ignore"):
        assert predict(masks, MaskIouNetwork(tuple(broken)))[2] == FrameStatus.MASK_IOU_NOT_FINITE


def test_weights_at_the_end_of_float32_are_packed_without_a_warning() -> None:
    """What the layers make of them, and of nothing, is beyond float32; the status says so when a mask is scored."""
    layers = tuple((np.full_like(weight, 3e38), bias) for weight, bias in random_network(3).layers)
    assert np.isinf(pack_network(MaskIouNetwork(layers))[-3:]).all()
