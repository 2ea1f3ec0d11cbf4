"""Which mask-IoU networks the kernels compute, and what is said of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from support.mask_iou_models import mask_iou_network_model
from yolact_plugins import reference
from yolact_runtime.errors import BundleError
from yolact_runtime.model.mask_iou_network import MIN_SIDE, MaskIouNetwork, OtherNetworkError, read_mask_iou
from yolact_runtime.model.model_file import ModelFile

Change = Callable[[onnx.ModelProto], None]


def read(change: Change | None = None) -> MaskIouNetwork:
    return read_mask_iou(ModelFile(Path("mask_iou.fp32.onnx"), mask_iou_network_model(5, (70, 66), change=change)))


def test_the_smallest_mask() -> None:
    network = read()
    assert reference.mask_iou(np.ones((1, MIN_SIDE, MIN_SIDE), np.float32), network.layers).shape == (1, 5)
    with pytest.raises(ValueError, match="window shape"):
        reference.mask_iou(np.ones((1, MIN_SIDE - 1, MIN_SIDE), np.float32), network.layers)


def _padded(model: onnx.ModelProto) -> None:
    (pads,) = (a for a in model.graph.node[4].attribute if a.name == "pads")
    pads.ints[:] = [1, 1, 1, 1]


def _same_padding(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))


def _stride_left_out(model: onnx.ModelProto) -> None:
    kept = [a for a in model.graph.node[2].attribute if a.name != "strides"]
    del model.graph.node[2].attribute[:]
    model.graph.node[2].attribute.extend(kept)


def _average(model: onnx.ModelProto) -> None:
    model.graph.node[12].op_type = "GlobalAveragePool"


def _other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "com.example"


def _wider(model: onnx.ModelProto) -> None:
    weight = numpy_helper.from_array(np.zeros((9, 1, 3, 3), np.float32), "0.weight")
    model.graph.initializer[0].CopyFrom(weight)


def _half(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))


def _shortcut(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "0.relu"


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("max", 1, None))


def _other_axis(model: onnx.ModelProto) -> None:
    model.graph.node[13].attribute[0].i = 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_padded, r"a convolution to 32 channels has pads \(1, 1, 1, 1\)"),
        (_same_padding, "a convolution to 16 channels has auto_pad"),
        (_stride_left_out, r"a convolution to 16 channels has strides \(1, 1\)"),
        (_average, "its operations are Conv, Relu, .*GlobalAveragePool, Flatten; expected six times"),
        (_other_domain, r"com\.example\.Relu"),
        (_wider, r"should have the shapes \(8, 1, 3, 3\) and \(8,\) in float32, found \(9, 1, 3, 3\)"),
        (_half, "in float32, found None"),
        (_shortcut, r"Relu reads 0\.relu where 1\.conv is expected"),
        (_two_outputs, "it has other outputs"),
        (_other_axis, "it has other outputs"),
    ],
)
def test_another_architecture_is_told_apart(change: Change, words: str) -> None:
    with pytest.raises(OtherNetworkError, match=f"mask_iou.fp32.onnx is not the published mask-IoU network: .*{words}"):
        read(change)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_damage(value: float) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        bias = model.graph.initializer[3]
        array = numpy_helper.to_array(bias).copy()
        array[2] = value
        bias.CopyFrom(numpy_helper.from_array(array, bias.name))

    with pytest.raises(BundleError, match="contains weights that are NaN or infinite"):
        read(spoil)


def _many_operations(model: onnx.ModelProto) -> None:
    for _ in range(5000):
        model.graph.node.append(helper.make_node("Relu", ["mask_iou"], ["again"]))


def _long_names(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "n" * 100_000


def _many_numbers(model: onnx.ModelProto) -> None:
    (pads,) = (a for a in model.graph.node[4].attribute if a.name == "pads")
    pads.ints[:] = [1 << 40] * 20_000


def _long_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[2].attribute.append(helper.make_attribute("a" * 100_000, 1))


@pytest.mark.parametrize("change", [_many_operations, _long_names, _many_numbers, _long_attribute])
def test_a_message_is_no_longer_than_somebody_reads(change: Change) -> None:
    with pytest.raises(OtherNetworkError, match="is not the published mask-IoU network") as raised:
        read(change)
    assert len(str(raised.value)) < 700
