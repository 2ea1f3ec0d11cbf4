"""Graphs in float16: types, what stays in float32, and how near they stay to the float32 network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from support.precision_trials import swell
from support.pruning import FAMILIES, random_model
from support.quantised import float_network, image_of, observed_ranges, run, signal_to_noise_db
from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.float16.magnitude import magnitudes, tensors_to_observe
from yolact_calibration.float16.rounding import simulate_float16
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph, part_of
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect, quantisable_tensors
from yolact_export.graph.export import ExportOptions, export_network
from yolact_export.model.registry import find_config
from yolact_runtime.backends import create_backend
from yolact_runtime.model.manifest import METADATA_KEY, Manifest, NetworkDtypes

CONFIG = find_config("yolact_lite0")


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    infos = (*inferred.value_info, *inferred.input, *inferred.output)
    return {
        **{info.name: info.type.tensor_type.elem_type for info in infos},
        **{tensor.name: tensor.data_type for tensor in inferred.initializer},
    }


@pytest.mark.parametrize("family", list(FAMILIES))
def test_float16_stays_near_float32(family: str) -> None:
    model = float_network(family)
    found = to_float16(model)
    onnx.checker.check_model(found.model, full_check=True)
    image = image_of(model)
    expected, outputs = run(model, image), run(found.model, image)
    for name, value in expected.items():
        assert outputs[name].dtype == np.float32
        assert signal_to_noise_db(value, outputs[name]) > 40, name
    assert found.model.ByteSize() < 0.6 * model.ByteSize()


@pytest.mark.parametrize("quantised", [False, True])
def test_types_are_strict(quantised: bool) -> None:
    model = float_network("yolact_plus_resnet50")
    if quantised:
        names = [convolution.name for convolution in NetworkGraph(model).convolutions]
        model = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    found = to_float16(model).model
    types = types_of(found)
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in found.graph.node:
        if node.op_type in {"Cast", "Resize"}:
            continue
        assert len({types[name] for name in (*node.input, *node.output) if name and types[name] in floats}) <= 1
        if node.op_type == "Conv":
            assert types[node.input[0]] == TensorProto.FLOAT16
        if node.op_type in {"Tanh", "GridSample"}:
            assert types[node.input[0]] == TensorProto.FLOAT
    assert all(
        info.type.tensor_type.elem_type == TensorProto.FLOAT for info in (*found.graph.input, *found.graph.output)
    )
    assert not quantised or found.opset_import[0].version == 19


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("quantised", [False, True])
def test_float16_outputs_are_what_the_layers_write_and_lose_only_what_a_cast_would(
    family: str, quantised: bool
) -> None:
    model = float_network(family)
    if quantised:
        names = [convolution.name for convolution in NetworkGraph(model).convolutions]
        model = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    single, found = to_float16(model), to_float16(model, half_input=True, half_outputs=True)
    assert (single.dtypes, found.dtypes) == (NetworkDtypes(), NetworkDtypes("float16", "float16"))
    assert found.float32_outputs is None
    onnx.checker.check_model(found.model, full_check=True)
    types = types_of(found.model)
    maker = {name: node for node in found.model.graph.node for name in node.output}
    outputs = [output.name for output in found.model.graph.output]
    assert len(outputs) == 4
    for name in (*outputs, "image"):
        assert types[name] == TensorProto.FLOAT16, name
    assert "Cast" not in {maker[name].op_type for name in outputs}
    assert not [node for node in found.model.graph.node if node.op_type == "Cast" and node.input[0] == "image"]
    # Bit for bit: the images, boxes, logits and prototypes were rounded before, the coefficients are now.
    image = image_of(model)
    expected, rounded = (run(simulate_float16(half.model), image, simulate=True) for half in (single, found))
    for name in outputs:
        assert np.array_equal(rounded[name], expected[name].astype(np.float16).astype(np.float32)), name
        if name != "mask_coefficient":
            assert np.array_equal(rounded[name], expected[name]), name


def test_outputs_are_float32_where_the_layer_of_one_of_them_is() -> None:
    """Kernels read one dtype, and a cast behind the layer would be no gain. The tanh is what it was, then."""
    model = float_network()
    near = {**largest_of(model), "prediction_layers.0.conf_layer.P3": 40000.0}
    found, before = to_float16(model, near, half_input=True, half_outputs=True), to_float16(model, near)
    assert found.dtypes == NetworkDtypes("float16", "float32")
    assert found.float32_outputs is not None
    assert re.match(
        r"prediction_layers.0.conf_layer.concat: .*reach 4e\+04, beyond float16's limit", found.float32_outputs
    )
    assert found.kept_single == before.kept_single
    assert "prediction_layers.0.mask_layer.tanh" in found.kept_single
    outputs = {output.type.tensor_type.elem_type for output in found.model.graph.output}
    assert outputs == {TensorProto.FLOAT}


def test_the_input_is_float32_where_a_layer_reads_it_in_float32() -> None:
    model = float_network()
    reader = next(node.name for node in model.graph.node if "image" in node.input)
    found = to_float16(model, single=[reader], half_input=True, half_outputs=True)
    assert found.dtypes == NetworkDtypes("float32", "float16")
    assert types_of(found.model)["image"] == TensorProto.FLOAT


def test_quantised_values_do_not_change_with_the_type_of_the_rest() -> None:
    model = float_network()
    names = [convolution.name for convolution in NetworkGraph(model).convolutions]
    single = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    half = to_float16(single).model
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    scales = [tensor for tensor in single.graph.initializer if tensor.name.endswith(".scale")]
    assert len(scales) > len(names)
    for tensor in scales:
        assert (stored[f"{tensor.name}.half"].astype(np.float32) == numpy_helper.to_array(tensor)).all()
    image = image_of(model)
    expected, found = run(single, image, simulate=True), run(half, image, simulate=True)
    for name, value in expected.items():
        assert signal_to_noise_db(value, found[name]) > 15, name


def test_large_values_stay_in_float32_and_say_so() -> None:
    model = float_network()
    found = to_float16(model, largest={"proto_net.4": 70000.0, "proto_net.2": 100.0})
    assert "proto_net.2" not in found.kept_single
    assert "70000" in found.kept_single["proto_net.4"].replace("7e+04", "70000")
    assert types_of(found.model)["proto_net.4"] == TensorProto.FLOAT


def largest_of(model: onnx.ModelProto) -> dict[str, float]:
    return {name: max(-found.low, found.high) for name, found in observed_ranges(model).items()}


@pytest.mark.parametrize(
    ("convolution", "reader", "between"),
    [
        ("proto_net.0", "proto_net.2", ["proto_net.1"]),
        # What a calibration observes, and what only moves it.
        ("proto_net.4", "proto_net.8", ["proto_net.5", "proto_net.6"]),
    ],
)
@pytest.mark.parametrize("quantised", [False, True])
def test_who_reads_large_values_stays_in_float32_too(
    convolution: str, reader: str, between: list[str], quantised: bool
) -> None:
    """Found on a trained model: the large layer was in float32, and its reader took infinity from it."""
    model = swell(float_network(), convolution, reader, 3e4)
    source = model
    if quantised:
        names = [one.name for one in NetworkGraph(model).convolutions]
        source = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    found = to_float16(source, largest_of(model))
    assert {convolution, reader, *between} <= set(found.kept_single)
    assert "reads values up to" in found.kept_single[reader]
    assert not [name for name in found.kept_single if name.endswith(("quantize", "dequantize"))]
    types = types_of(found.model)
    assert types[convolution] == types[reader] == TensorProto.FLOAT
    image = image_of(model)
    simulated = run(simulate_float16(found.model), image, simulate=True)
    expected = run(source, image, simulate=True)
    for name, value in expected.items():
        assert signal_to_noise_db(value, simulated[name]) > (15 if quantised else 40), name


def test_an_int8_layer_in_float32_reads_its_dequantised_values_without_a_cast() -> None:
    """A cast between DequantizeLinear and convolution would make a float layer of it."""
    model = swell(float_network(), "proto_net.0", "proto_net.2", 3e4)
    names = [one.name for one in NetworkGraph(model).convolutions]
    found = to_float16(quantise(model, observed_ranges(model), names, Dialect.TENSORRT), largest_of(model)).model
    maker = {name: node for node in found.graph.node for name in node.output}
    convolutions = [node for node in found.graph.node if node.op_type == "Conv"]
    assert {types_of(found)[node.output[0]] for node in convolutions} == {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in convolutions:
        assert [maker[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2, node.name
    onnx.checker.check_model(found, full_check=True)


def test_large_answers_stay_in_float32_down_to_the_output() -> None:
    """Transpositions, reshapes and concatenations, of which no calibration observes anything."""
    model = float_network()
    found = to_float16(model, largest={**largest_of(model), "prediction_layers.0.conf_layer.P3": 1e5})
    types = types_of(found.model)
    maker = {name: node for node in found.model.graph.node for name in node.output}
    assert maker["class_logit"].op_type == "Concat"
    todo, seen = [maker["class_logit"]], set()
    while todo:
        node = todo.pop()
        seen.add(node.op_type)
        assert types[node.output[0]] == TensorProto.FLOAT
        if node.name != "prediction_layers.0.conf_layer.P3" and node.op_type != "Cast":
            todo += [maker[name] for name in node.input if name in maker]
    assert seen >= {"Concat", "Reshape", "Transpose", "Conv"}


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("deform_conv", ["grid-sample", "deform-conv"])
@pytest.mark.parametrize("normalise", [False, True])
def test_every_float_tensor_is_bounded_by_what_a_calibration_sees(
    family: str, deform_conv: str, normalise: bool
) -> None:
    if deform_conv == "deform-conv" and family != "yolact_plus_resnet50":
        return
    options = ExportOptions(deform_conv=deform_conv, normalise_in_graph=normalise)
    model = export_network(random_model(FAMILIES[family], 3), options)
    graph = NetworkGraph(model)
    observed = quantisable_tensors(graph)
    more = tensors_to_observe(model, observed)
    sampled = {node.output[0] for node in model.graph.node if node.op_type == "DeformConv"}
    assert bool(sampled) == (deform_conv == "deform-conv")
    # The image in front of the means that are subtracted from it is nothing that a plan would round.
    raw = {"image"} if model.graph.node[0].op_type == "Sub" else set()
    assert bool(raw) == (normalise and family != "yolact_darknet53")
    assert set(more) == sampled | raw
    image = image_of(model) * (60 if normalise else 1)
    names = tuple(name for name in (*observed, *more) if name != "image")
    values = {**run(model, image, names), "image": image}
    bounds = magnitudes(model, {name: float(np.abs(value).max()) for name, value in values.items()})
    made = tuple(name for node in model.graph.node for name in node.output)
    # Every tensor has a bound, and none is exceeded.
    for name, value in run(model, image, made).items():
        assert np.abs(value).max() <= bounds[name] * 1.000001, name


def test_weights_beyond_float16_stay_in_float32() -> None:
    model = float_network()
    for tensor in model.graph.initializer:
        if tensor.name == "proto_net.2.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0, 0, 0] = 1e6
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    found = to_float16(model)
    assert "beyond float16" in found.kept_single["proto_net.2"]
    image = image_of(model)
    assert signal_to_noise_db(run(model, image)["prototype"], run(found.model, image)["prototype"]) > 35


def test_weights_that_vanish_are_counted() -> None:
    model = float_network()
    for tensor in model.graph.initializer:
        if tensor.name == "proto_net.2.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0] = 1e-9
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    assert to_float16(model).num_vanished - to_float16(float_network()).num_vanished == values[0].size


def test_nodes_can_be_kept_by_name() -> None:
    found = to_float16(float_network(), single=["prediction_layers.0.bbox_layer.P3"])
    assert found.kept_single["prediction_layers.0.bbox_layer.P3"] == "requested"
    assert types_of(found.model)["prediction_layers.0.bbox_layer.P3"] == TensorProto.FLOAT


def test_onnx_runtime_runs_the_graph_as_it_is_written(tmp_path: Path) -> None:
    # Fused, this graph gives 9 dB: see yolact_runtime.backends.onnxruntime.
    model = float_network("yolact_lite0")
    names = [c.name for c in NetworkGraph(model).convolutions if c.group not in FINAL_GROUPS]
    half = to_float16(quantise(model, observed_ranges(model), names, Dialect.TENSORRT)).model
    manifest = Manifest("m", ("a",), CONFIG.input_spec(), CONFIG.prior_spec(), precision="int8")
    onnx.helper.set_model_props(half, {METADATA_KEY: manifest.to_json()})
    path = tmp_path / "model.int8.onnx"
    path.write_bytes(half.SerializeToString())
    image = image_of(model)
    expected, found = run(model, image), create_backend("onnxruntime-cpu", path).infer(image)
    for name, value in expected.items():
        assert signal_to_noise_db(value, found[name]) > 25, name


@pytest.mark.parametrize("quantised", [False, True])
def test_casts_belong_to_the_part_that_they_feed(quantised: bool) -> None:
    model = float_network("yolact_plus_resnet50")
    if quantised:
        names = [c.name for c in NetworkGraph(model).convolutions if c.group not in FINAL_GROUPS]
        model = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    single = [node.name for node in model.graph.node if part_of(node) in {"res3", "mask head"}]
    half = to_float16(model, single=single).model
    graph = NetworkGraph(half)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert casts
    for node in casts:
        near = [*graph.consumers.get(node.output[0], ()), graph.producer.get(node.input[0])]
        assert part_of(node) in {part_of(one) for one in near if one is not None}
    assert all(part_of(node) is not None for node in simulate_float16(half).graph.node)
