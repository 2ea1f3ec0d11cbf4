"""Mask-IoU networks of YOLACT++ as ONNX files, with random weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from yolact_runtime.model.mask_iou_network import WIDTHS
from yolact_runtime.model.model_file import ModelFile

__all__ = ["mask_iou_network_model", "write_mask_iou"]


def mask_iou_network_model(
    num_classes: int, size: tuple[int, int], seed: int = 0, change: Callable[[Any], None] | None = None
) -> bytes:
    """Make the published architecture in the exporter's form; a test compares the two.

    Args:
        num_classes: Number of classes, without the background.
        size: Rows and columns of a mask.
        seed: Seed of the weights.
        change: Function that modifies the ``ModelProto`` before it is written.
    """
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    shapes = [(outputs, inputs, 3, 3) for inputs, outputs in itertools.pairwise(WIDTHS)]
    nodes, weights, name = [], [], "mask"
    for i, shape in enumerate([*shapes, (num_classes, WIDTHS[-1], 1, 1)]):
        weight = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        # Above 0 at the end: what is cut off shows nothing.
        bias = rng.normal(2 if i == len(shapes) else 0.05, 0.1, shape[0]).astype(np.float32)
        weights += [numpy_helper.from_array(weight, f"{i}.weight"), numpy_helper.from_array(bias, f"{i}.bias")]
        stride = 2 if shape[2] == 3 else 1
        inputs = [name, f"{i}.weight", f"{i}.bias"]
        sides: dict[str, Any] = {"kernel_shape": shape[2:], "strides": [stride, stride], "pads": [0, 0, 0, 0]}
        nodes += [
            helper.make_node("Conv", inputs, [f"{i}.conv"], group=1, **sides),
            helper.make_node("Relu", [f"{i}.conv"], [f"{i}.relu"]),
        ]
        name = f"{i}.relu"
    nodes += [
        helper.make_node("GlobalMaxPool", [name], ["max"]),
        helper.make_node("Flatten", ["max"], ["mask_iou"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mask_iou",
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["instances", 1, *size])],
        [helper.make_tensor_value_info("mask_iou", TensorProto.FLOAT, ["instances", num_classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if change is not None:
        change(model)
    return model.SerializeToString()


def write_mask_iou(path: Path, num_classes: int, size: tuple[int, int], seed: int = 0) -> ModelFile:
    """Write such a file, and read it as a model file."""
    path.write_bytes(mask_iou_network_model(num_classes, size, seed))
    return ModelFile.read(path)
