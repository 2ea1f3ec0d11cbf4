"""INT8 and float16 graphs in real engines: TensorRT-RTX builds them without a GPU and lists the type of every layer."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import onnx
import pytest

from support.goldens import load_golden, write_golden_checkpoint
from support.precision_trials import swell
from support.quantised import float_network, image_of, observed_ranges, run
from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect, quantisable_tensors
from yolact_calibration.quantisation.ranges import Range
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.engine.build import build_engine
from yolact_export.engine.layers import Convolution, find_convolutions
from yolact_export.engine.options import EngineOptions
from yolact_export.graph.export import ExportOptions, export_network
from yolact_export.model.registry import find_config
from yolact_runtime.model.manifest import Manifest, NetworkDtypes

pytestmark = pytest.mark.long
SHAPES = Path(__file__).parents[2] / "examples" / "models" / "shapes.pth"
BALLOONS = SHAPES.with_name("balloons.pth")
OPTIONS = EngineOptions(target="rtx", compute_capabilities=("8.6",))
CONFIG = find_config("yolact_resnet50")
# What an engine carries; the layers do not depend on it.
MANIFEST = Manifest("model", ("thing",), CONFIG.input_spec(), CONFIG.prior_spec())
Network = tuple[onnx.ModelProto, dict[str, Range], int]
MODELS = {"yolact_resnet50": 86, "yolact_plus_resnet50": 99, "shapes": 51}


@pytest.fixture(scope="module", params=list(MODELS))
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A float network with trained or golden weights, ranges, and the number of its convolutions."""
    name = request.param
    path = SHAPES if name == "shapes" else write_golden_checkpoint(load_golden(name), tmp_path_factory.mktemp(name))
    model = export_network(load_checkpoint(path), ExportOptions(deform_conv="grid-sample"))
    return model, ranges_of(model), MODELS[name]


def ranges_of(model: onnx.ModelProto) -> dict[str, Range]:
    image = image_of(model)
    names = tuple(name for name in quantisable_tensors(NetworkGraph(model)) if name != "image")
    values = {**run(model, image, names), "image": image}
    return {name: Range(min(float(v.min()), 0.0), max(float(v.max()), 0.0)) for name, v in values.items()}


def built(model: onnx.ModelProto) -> dict[str, Convolution]:
    engine = build_engine(model.SerializeToString(), MANIFEST.to_json(), OPTIONS)
    return find_convolutions(engine.layers, [c.name for c in NetworkGraph(model).nodes if c.op_type == "Conv"])


def test_every_convolution_really_computes_in_int8(network: Network) -> None:
    model, ranges, count = network
    names = [convolution.name for convolution in NetworkGraph(model).convolutions]
    assert len(names) == count
    found = built(to_float16(quantise(model, ranges, names, Dialect.TENSORRT)).model)
    assert {name: c.arithmetic for name, c in found.items()} == dict.fromkeys(names, "Int8")


def test_a_plan_with_float_heads_is_what_the_engine_computes(network: Network) -> None:
    model, ranges, _ = network
    groups = {c.name: c.group for c in NetworkGraph(model).convolutions}
    floats = (*FINAL_GROUPS, "deformable offsets")
    names = [name for name, group in groups.items() if group not in floats]
    found = built(to_float16(quantise(model, ranges, names, Dialect.TENSORRT)).model)
    assert {name: c.arithmetic for name, c in found.items()} == {
        name: "Half" if group in floats else "Int8" for name, group in groups.items()
    }


def test_a_convolution_in_float32_beside_float16_still_computes_in_int8() -> None:
    """Its values are beyond float16; a cast behind a DequantizeLinear would make it a float layer."""
    model = swell(float_network(), "proto_net.4", "proto_net.8", 3e4)
    ranges = observed_ranges(model)
    names = [convolution.name for convolution in NetworkGraph(model).convolutions]
    largest = {name: max(-found.low, found.high) for name, found in ranges.items()}
    half = to_float16(quantise(model, ranges, names, Dialect.TENSORRT), largest)
    assert {"proto_net.4", "proto_net.8"} <= set(half.kept_single)
    found = built(half.model)
    assert {name: convolution.arithmetic for name, convolution in found.items()} == dict.fromkeys(names, "Int8")


def test_float16_fuses_bias_relu_and_residual_sum(network: Network) -> None:
    model, _, count = network
    found = built(to_float16(model).model)
    assert len(found) == count
    assert all(convolution.arithmetic == "Half" for convolution in found.values())
    graph = NetworkGraph(model)
    for node in graph.nodes:
        reader = graph.only_consumer(node.output[0]) if node.op_type == "Conv" else None
        if reader is not None and reader.op_type == "Relu":
            assert reader.name in found[node.name].fused, node.name
    # Every residual sum and the ReLU behind it are computed by one of the two convolutions that it adds.
    blocks = [node for node in graph.nodes if node.op_type == "Add" and node.name.endswith(".add")]
    assert blocks
    for node in blocks:
        relu = graph.consumers[node.output[0]][0]
        assert relu.op_type == "Relu"
        makers = [graph.producer[name].name for name in node.input]
        assert any({node.name, relu.name} <= set(found[name].fused) for name in makers if name in found), node.name


@pytest.mark.parametrize("quantised", [False, True])
def test_an_engine_takes_and_gives_float16_without_a_layer_that_casts(quantised: bool) -> None:
    model = export_network(load_checkpoint(SHAPES), ExportOptions())
    if quantised:
        names = [convolution.name for convolution in NetworkGraph(model).convolutions]
        model = quantise(model, ranges_of(model), names, Dialect.TENSORRT)
    types, casts = [], []
    for half_io in (False, True):
        half = to_float16(model, half_input=half_io, half_outputs=half_io)
        assert half.dtypes == NetworkDtypes(*["float16" if half_io else "float32"] * 2)
        manifest = dataclasses.replace(MANIFEST, dtypes=half.dtypes)
        engine = build_engine(half.model.SerializeToString(), manifest.to_json(), OPTIONS)
        types.append({kind for layer in engine.layers for kind in (*layer.inputs, *layer.outputs)})
        casts.append({name for layer in engine.layers for name in layer.onnx_layers if name.endswith(".cast")})
        # What the engine says of itself is in its name.
        assert re.search(rb'"dtypes":{"input":"(\w+)","outputs":"(\w+)"}', engine.plan).groups() == (  # type: ignore[union-attr]
            half.dtypes.input.encode(),
            half.dtypes.outputs.encode(),
        )
    assert "prototype.cast" in casts[0]
    assert not casts[1]
    if not quantised:
        # INT8 layers of TensorRT-RTX hand their sums on in float32.
        assert "Float" in types[0]
        assert types[1] == {"Half"}


def test_depthwise_convolutions_in_groups_keep_the_plan_small() -> None:
    """The backbone of this model is depthwise: two thirds of its INT8 plan of 34 MB were zeros."""
    model = export_network(load_checkpoint(BALLOONS), ExportOptions())
    names = [convolution.name for convolution in NetworkGraph(model).convolutions]
    int8 = to_float16(quantise(model, ranges_of(model), names, Dialect.TENSORRT)).model.SerializeToString()
    engine = build_engine(int8, MANIFEST.to_json(), EngineOptions("rtx"))
    assert engine.facts["int8_depthwise"] == "16 in groups of 4"
    assert len(engine.plan) <= 12_000_000
    found = find_convolutions(engine.layers, names)
    assert {name: c.arithmetic for name, c in found.items()} == dict.fromkeys(names, "Int8")
