"""A small network with all special cases for the observation of activations, and frames for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from yolact_runtime.media.images import write_image
from yolact_runtime.model.manifest import InputSpec

__all__ = ["SPEC", "TENSORS", "make_frames", "small_network", "write_frames"]

SPEC = InputSpec(24, 32, (103.9, 116.8, 123.7), (57.4, 57.1, 58.4))
TENSORS = ("image", "conv1", "relu1", "conv2", "sum", "relu2", "late")


def small_network(seed: int = 0, gain: float = 1.0) -> onnx.ModelProto:
    """Make two convolutions with ReLUs, a skip connection, and a late layer that reads an early map."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(size=(8, 3, 3, 3)) * 0.3 * gain,
        "w2": rng.normal(size=(8, 8, 3, 3)) * 0.2,
        "w3": rng.normal(size=(4, 8, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["conv1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("Conv", ["relu1", "w2"], ["conv2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["conv2", "relu1"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["relu2"]),
        helper.make_node("Mul", ["relu2", "relu1"], ["product"]),
        helper.make_node("Conv", ["product", "w3"], ["late"]),
        helper.make_node("Sigmoid", ["late"], ["unneeded"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SPEC.height, SPEC.width])],
        [helper.make_tensor_value_info("unneeded", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_frames(count: int, seed: int = 0, size: tuple[int, int] = (30, 40)) -> list[npt.NDArray[np.uint8]]:
    """Make frames of noise, BGR, no two alike."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def write_frames(folder: Path, count: int, seed: int = 0) -> Path:
    """Write frames as PNG files and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(make_frames(count, seed)):
        write_image(folder / f"{number:03}.png", frame)
    return folder
