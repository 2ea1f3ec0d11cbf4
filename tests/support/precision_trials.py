"""A small network with everything that a precision export needs: frames, a manifest, and its outputs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from support.pruning import SMALL
from support.quantised import float_network
from yolact_calibration.quantisation.histogram import Histogram
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.observer import observe
from yolact_calibration.quantisation.qdq_placement import quantisable_tensors
from yolact_calibration.quantisation.trial import Trial
from yolact_export.bundle_writer import write_manifest
from yolact_export.graph.file import write_model
from yolact_runtime.model.manifest import METADATA_KEY, Manifest

__all__ = [
    "MANIFEST",
    "add_to_bias",
    "histograms",
    "histograms_of",
    "make_frames",
    "multiply_weight",
    "rely_on_fine_coefficients",
    "swell",
    "trial_on",
    "write_small_bundle",
]

Frames = list[tuple[str, npt.NDArray[np.uint8]]]
MANIFEST = Manifest("small", tuple("abcdef"), SMALL.input_spec(), SMALL.prior_spec())
"""Of :func:`support.quantised.float_network`."""


def write_small_bundle(folder: Path) -> Path:
    """Write a bundle of :func:`support.quantised.float_network`, as an export leaves it; create `folder`."""
    folder.mkdir(parents=True)
    model = float_network()
    helper.set_model_props(model, {METADATA_KEY: MANIFEST.to_json()})
    write_model(model, folder / "model.fp32.onnx")
    write_manifest(folder, MANIFEST, {"model.fp32.onnx": "network"})
    report = {"findings": ["made up"], "verification": {"passed": True}, "pruning": {"removed": 0.4}}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def make_frames(count: int, seed: int = 0) -> Frames:
    """Make blocks of random colours, 96 x 96 pixels, in which the random network finds a hundred objects."""
    random = np.random.default_rng(seed)
    blocks = [random.integers(0, 255, (8, 8, 3), np.uint8) for _ in range(count)]
    return [(f"{number}.png", block.repeat(12, 0).repeat(12, 1)) for number, block in enumerate(blocks)]


def trial_on(count: int, seed: int = 0) -> Trial:
    return Trial(MANIFEST, make_frames(count, seed), num_threads=1)


@functools.cache
def _histograms() -> Mapping[str, Histogram]:
    return histograms_of(float_network())


def histograms() -> dict[str, Histogram]:
    """Return the histograms of all quantisable tensors over the frames of seed 1; they must not be changed."""
    return dict(_histograms())


def histograms_of(model: onnx.ModelProto) -> dict[str, Histogram]:
    return observe(model, quantisable_tensors(NetworkGraph(model)), make_frames(3, 1), MANIFEST.input)


def swell(model: onnx.ModelProto, convolution: str, reader: str, factor: float) -> onnx.ModelProto:
    """Scale the values that a convolution writes, and let the convolution that reads them undo it, in place.

    The results in float32 do not change; between the two, float16 may overflow.
    """
    nodes = {node.name: node for node in model.graph.node}
    changes = {
        **dict.fromkeys(nodes[convolution].input[1:3], factor),
        nodes[reader].input[1]: 1 / factor,
    }
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            values = numpy_helper.to_array(tensor) * np.float32(changes[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def rely_on_fine_coefficients(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let two prototypes be large constants that cancel with constant coefficients, in place.

    The sum is near 0 with coefficients in float32. With coefficients in float16 it is -14.3, far outside of every mask,
    while every other tensor, including the argument of the tanh, is exact in float16.
    """
    argument, prototype = (1.69140625, -1.7880859375), (29632.0, 29280.0)
    num_prototypes = next(tensor for tensor in model.graph.initializer if tensor.name == "proto_net.10.bias").dims[0]
    for tensor in model.graph.initializer:
        layer, _, part = tensor.name.rpartition(".")
        if layer not in {"proto_net.10", "prediction_layers.0.mask_layer"}:
            continue
        values = numpy_helper.to_array(tensor).copy()
        for place, value in enumerate(prototype if layer == "proto_net.10" else argument):
            # Coefficients of all priors of a cell lie behind one another.
            values[place::num_prototypes] = value if part == "bias" else 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def add_to_bias(model: onnx.ModelProto, convolution: str, value: float) -> onnx.ModelProto:
    """Add a number to all outputs of a convolution, at every level that it reads, in place."""
    for tensor in model.graph.initializer:
        if tensor.name == f"{convolution}.bias":
            values = numpy_helper.to_array(tensor) + np.float32(value)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def multiply_weight(model: onnx.ModelProto, convolution: str, factor: float) -> str:
    """Multiply one weight of a convolution in place and return the tensor's name."""
    node = next(node for node in model.graph.node if node.name == convolution)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values.flat[values.size // 2] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return str(tensor.name)
