"""Small ONNX graphs in the three precisions that TensorRT supports, and bundles of them.

They are quantised by TensorRT's rules: symmetric int8, weights per output channel, no quantised bias, an Add quantised
on its skip input only.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.scenes import small_manifest
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256
from yolact_runtime.model.manifest import METADATA_KEY, Artefact, Manifest, NetworkDtypes

CONVOLUTIONS = ("conv1", "conv2", "conv3")


class _Graph:
    """Collector of nodes and constants in one precision."""

    def __init__(self, precision: str, activation: type[np.integer] = np.int8) -> None:
        self.precision = precision
        self.activation = activation
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def quantised(self, tensor: str) -> str:
        if not self.precision.startswith("int8"):
            return tensor
        scale = self.constant(f"{tensor}.scale", np.float32(0.05))
        zero = self.constant(f"{tensor}.zero", self.activation(0))
        quantised = self.node("QuantizeLinear", [tensor, scale, zero], f"{tensor}.quantize")
        return self.node("DequantizeLinear", [quantised, scale, zero], f"{tensor}.dequantize")

    def conv(self, tensor: str, name: str, inputs: int, outputs: int, kernel: int) -> str:
        weight = (self.random.normal(size=(outputs, inputs, kernel, kernel)) * 0.1).astype(np.float32)
        dtype = np.float16 if self.precision == "fp16" else np.float32
        bias = self.constant(f"{name}.bias", self.random.normal(size=outputs).astype(dtype))
        if self.precision.startswith("int8"):
            scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
            stored = np.rint(weight / scale[:, None, None, None]).clip(-128, 127).astype(np.int8)
            parts = [
                self.constant(f"{name}.weight.int8", stored),
                self.constant(f"{name}.weight.scale", scale),
                self.constant(f"{name}.weight.zero", np.zeros(outputs, np.int8)),
            ]
            weights = self.node("DequantizeLinear", parts, f"{name}.weight.dequantize", axis=0)
        else:
            weights = self.constant(f"{name}.weight", weight.astype(dtype))
        return self.node("Conv", [tensor, weights, bias], name, pads=[kernel // 2] * 4)


def small_graph(
    precision: str,
    manifest: Manifest | None = None,
    activation: type[np.integer] = np.int8,
    batch: int | str = 1,
    side: int = 32,
) -> onnx.ModelProto:
    """Make the graph ``relu(conv2(relu(conv1(image))) + skip)`` with a 1x1 ``conv3``; 32 channels.

    Args:
        precision: Precision ``"fp32"``, ``"fp16"`` or ``"int8"``; the inputs and outputs are float32.
        manifest: Manifest for the metadata, with this precision; None takes :func:`small_manifest`.
        activation: Dtype of quantised activations.
        batch: Batch size, or a name for a dynamic one.
        side: Side of the image, pixels.
    """
    graph, channels = _Graph(precision, activation), 32
    tensor = graph.node("Cast", ["image"], "image.half", to=TensorProto.FLOAT16) if precision == "fp16" else "image"
    tensor = graph.node("Relu", [graph.conv(graph.quantised(tensor), "conv1", channels, channels, 3)], "relu1")
    skip = graph.quantised(tensor)
    tensor = graph.node("Add", [graph.conv(skip, "conv2", channels, channels, 3), skip], "add")
    tensor = graph.conv(graph.quantised(graph.node("Relu", [tensor], "relu2")), "conv3", channels, 8, 1)
    operator, more = ("Cast", {"to": TensorProto.FLOAT}) if precision == "fp16" else ("Identity", {})
    graph.nodes.append(helper.make_node(operator, [tensor], ["output"], name="output", **more))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, channels, side, side])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 8, side, side])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "small", [image], [output], graph.constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    embedded = dataclasses.replace(manifest or small_manifest(), precision=precision, artefacts={})
    helper.set_model_props(model, {METADATA_KEY: embedded.to_json()})
    onnx.checker.check_model(model)
    return model


def small_model(precision: str, **options: object) -> bytes:
    """Serialise :func:`small_graph`."""
    content: bytes = small_graph(precision, **options).SerializeToString()  # type: ignore[arg-type]
    return content


def write_engine_bundle(folder: Path, precisions: tuple[str, ...] = ("fp32", "fp16", "int8")) -> Path:
    """Write a bundle whose networks are small graphs of these precisions."""
    folder.mkdir(parents=True)
    artefacts = {}
    for precision in precisions:
        path = folder / f"model.{precision}.onnx"
        path.write_bytes(small_model(precision))
        dtypes = NetworkDtypes()
        artefacts[path.name] = Artefact("network", precision, file_sha256(path), path.stat().st_size, dtypes=dtypes)
    manifest = dataclasses.replace(small_manifest(), artefacts=artefacts)
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return folder
