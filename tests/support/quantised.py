"""Small float networks with ranges, for the tests of quantisation."""

from __future__ import annotations

import functools

import numpy as np
import onnx

from support.pruning import FAMILIES, random_model
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq_placement import quantisable_tensors
from yolact_calibration.quantisation.ranges import Range
from yolact_export.graph.export import ExportOptions, export_network
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session

__all__ = ["float_network", "observed_ranges", "run", "signal_to_noise_db"]

Float = np.typing.NDArray[np.float32]


@functools.cache
def _network_bytes(family: str) -> bytes:
    # TensorRT-RTX has no DeformConv, and its parser sees these graphs too.
    options = ExportOptions(deform_conv="grid-sample")
    return export_network(random_model(FAMILIES[family], 3), options).SerializeToString()


def float_network(family: str = "yolact_small") -> onnx.ModelProto:
    """Return a network of a backbone family at 64 x 64 pixels, as a copy that the caller owns."""
    return onnx.load_model_from_string(_network_bytes(family))


def image_of(model: onnx.ModelProto, seed: int = 0) -> Float:
    """Make normalised noise with some structure, as an input of a model."""
    shape = NetworkGraph(model).shape("image")
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(*shape[:2], 8, 8)).repeat(shape[2] // 8 + 1, 2).repeat(shape[3] // 8 + 1, 3)
    coarse = coarse[:, :, : shape[2], : shape[3]]
    return (coarse + 0.3 * rng.normal(size=shape)).astype(np.float32)


def run(
    model: onnx.ModelProto, image: Float, names: tuple[str, ...] | None = None, simulate: bool = False
) -> dict[str, Float]:
    """Run a model in ONNX Runtime and return its outputs, or other tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {output.name for output in model.graph.output}
    for name in names or ():
        if name not in have:
            copy.graph.output.add().name = name
    session = open_cpu_session(copy.SerializeToString(), SessionSettings(num_threads=1, fuses_qdq=not simulate))
    wanted = names or tuple(output.name for output in model.graph.output)
    return dict(zip(wanted, session.run(list(wanted), {"image": image}), strict=True))


def observed_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    """Return the minimum and maximum of every tensor on one image, extended to include 0."""
    image = image_of(model)
    names = tuple(name for name in quantisable_tensors(NetworkGraph(model)) if name != "image")
    values = {**run(model, image, names), "image": image}
    return {name: Range(min(float(v.min()), 0.0), max(float(v.max()), 0.0)) for name, v in values.items()}


def signal_to_noise_db(expected: Float, found: Float) -> float:
    """Return the power of the signal over that of the difference, in decibels."""
    noise = np.square(expected.astype(np.float64) - found).mean()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).mean() / max(noise, 1e-30)))
