"""Quantised graphs: what is stored, what ONNX Runtime makes of it, and how near it stays to the float network."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import numpy_helper

from support.pruning import FAMILIES
from support.quantised import float_network, image_of, observed_ranges, run, signal_to_noise_db
from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph, part_of
from yolact_calibration.quantisation.qdq import Parts, quantise, rounding_of, weight_scale
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_calibration.quantisation.ranges import Range
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session

DIALECTS = list(Dialect)


def all_names(model: onnx.ModelProto) -> list[str]:
    return [convolution.name for convolution in NetworkGraph(model).convolutions]


def body_names(model: onnx.ModelProto) -> list[str]:
    return [c.name for c in NetworkGraph(model).convolutions if c.group not in FINAL_GROUPS]


def weight_names(model: onnx.ModelProto) -> set[str]:
    return {node.input[1] for node in model.graph.node if node.op_type == "Conv"}


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def optimised(model: onnx.ModelProto) -> Counter[str]:
    """Operators that are left when ONNX Runtime has fused what it can."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        open_cpu_session(model.SerializeToString(), SessionSettings(optimised_model=path))
        return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_int8_stays_near_the_float_network(family: str, dialect: Dialect) -> None:
    model = float_network(family)
    found = quantise(model, observed_ranges(model), body_names(model), dialect)
    onnx.checker.check_model(found, full_check=True)
    image = image_of(model)
    expected, outputs = run(model, image), run(found, image, simulate=True)
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        # Random weights lose more than trained ones; depth does the rest. A wrong scale anywhere gives less than 5.
        assert signal_to_noise_db(value, outputs[name]) > 12, name


@pytest.mark.parametrize("family", list(FAMILIES))
def test_onnx_runtime_computes_every_planned_convolution_with_integers(family: str) -> None:
    model = float_network(family)
    names = all_names(model)
    operators = optimised(quantise(model, observed_ranges(model), names, Dialect.CPU))
    assert operators["QLinearConv"] == len(names)
    assert operators["Conv"] == 0
    kept = [name for name in names if name not in body_names(model)]
    operators = optimised(quantise(model, observed_ranges(model), body_names(model), Dialect.CPU))
    assert operators["QLinearConv"] == len(names) - len(kept)
    assert operators["Conv"] == len(kept)


def test_the_integer_kernels_agree_with_the_simulation() -> None:
    model = float_network()
    found = quantise(model, observed_ranges(model), all_names(model), Dialect.CPU)
    image = image_of(model)
    fast, simulated = run(found, image), run(found, image, simulate=True)
    for name, value in simulated.items():
        assert signal_to_noise_db(value, fast[name]) > 25, name


def test_tensorrt_graphs_are_symmetric_and_leave_biases_alone() -> None:
    model = float_network()
    found = quantise(model, observed_ranges(model), all_names(model), Dialect.TENSORRT)
    stored = constants(found)
    zeros = [value for name, value in stored.items() if name.endswith(".zero_point")]
    assert zeros
    assert all(value.dtype == np.int8 and not value.any() for value in zeros)
    convolutions = [node for node in found.graph.node if node.op_type == "Conv"]
    makers = {output: node for node in found.graph.node for output in node.output}
    for node in convolutions:
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        weight = makers[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert [attribute.i for attribute in weight.attribute if attribute.name == "axis"] == [0]
        assert stored[weight.input[0]].dtype == np.int8
        assert stored[node.input[2]].dtype == np.float32


def test_tensorrt_rounds_nothing_between_a_convolution_and_its_relu() -> None:
    model = float_network()
    graph = NetworkGraph(model)
    found = quantise(model, observed_ranges(model), all_names(model), Dialect.TENSORRT)
    rounded = {node.input[0] for node in found.graph.node if node.op_type == "QuantizeLinear"}
    before_relu = {node.input[0] for node in graph.nodes if node.op_type == "Relu"}
    main_inputs = {node.input[0] for node in graph.nodes if node.op_type == "Add"}
    assert len(before_relu) > 20
    assert not rounded & before_relu
    assert not rounded & main_inputs


def test_tensorrt_scales_are_float16_numbers_and_clip_nothing() -> None:
    model = float_network()
    ranges = observed_ranges(model)
    stored = constants(quantise(model, ranges, all_names(model), Dialect.TENSORRT))
    weights = constants(model)
    assert {name.removesuffix(".scale") for name in stored if name.endswith("weight.scale")} == weight_names(model)
    for name, value in stored.items():
        if name.endswith(".scale"):
            assert (value.astype(np.float16).astype(np.float32) == value).all(), name
            assert (value > 0).all()
        if name.endswith("weight.scale"):
            whole = np.abs(weights[name.removesuffix(".scale")]).reshape(len(value), -1).max(axis=1)
            assert (whole <= 127 * value * (1 + 1e-6)).all()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_stored_weights_are_within_half_a_step(dialect: Dialect) -> None:
    model = float_network()
    stored = constants(quantise(model, observed_ranges(model), all_names(model), dialect))
    weights = constants(model)
    for name in weight_names(model):
        scale = stored[f"{name}.scale"].reshape(-1, 1, 1, 1)
        difference = np.abs(stored[f"{name}.quantized"] * scale - weights[name])
        assert (difference <= scale * 0.5001).all(), name


def test_the_shared_head_stores_its_weights_once() -> None:
    model = float_network()
    for dialect in DIALECTS:
        stored = constants(quantise(model, observed_ranges(model), all_names(model), dialect))
        heads = [name for name in stored if "bbox_layer" in name and name.endswith("weight.quantized")]
        assert heads == ["prediction_layers.0.bbox_layer.weight.quantized"]


def test_a_bias_that_does_not_fit_coarsens_its_weights() -> None:
    model = float_network()
    ranges = observed_ranges(model)
    name = "backbone.layers.1.0.conv1"
    for tensor in model.graph.initializer:
        if tensor.name == f"{name}.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0] *= 1e-9
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        elif tensor.name == f"{name}.bias":
            values = numpy_helper.to_array(tensor).copy()
            values[0] = 3.0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    stored = constants(quantise(model, ranges, [name], Dialect.CPU))
    whole, scale = stored[f"{name}.bias.quantized"], stored[f"{name}.bias.scale"]
    assert np.abs(whole.astype(np.int64)).max() < 2**31 - 1
    np.testing.assert_allclose(whole[0] * np.float64(scale[0]), 3.0, rtol=1e-5)
    # Half of what int32 holds is left for the sum.
    np.testing.assert_allclose(whole[0], 2**30, rtol=1e-6)


@example(low=-1.4757333485626957e-41, high=0.0)  # a scale of few digits, below float32's normal numbers
@given(low=st.floats(-1e4, 0), high=st.floats(0, 1e4))
def test_zero_is_exact_and_the_range_survives(low: float, high: float) -> None:
    for dialect in DIALECTS:
        rounding = rounding_of("x", Range(low, high), dialect)
        least, most = (-128, 127) if dialect is Dialect.TENSORRT else (0, 255)
        assert least <= rounding.zero_point <= most
        step = float(rounding.scale)
        assert step > 0
        # Up to half a step, which the zero point takes for itself.
        assert (least - rounding.zero_point) * step <= low * (1 - 1e-6) + 0.51 * step
        assert (most - rounding.zero_point) * step >= high * (1 - 1e-6) - 0.51 * step


def test_scales_and_zero_points_by_hand() -> None:
    tiny = 2.0**-126
    by_hand = {
        Dialect.TENSORRT: [
            ((0.0, 63.5), 0.5, 0),  # a float16 number as it is
            ((-63.5, 1.0), 0.5, 0),
            ((0.0, 127 * (1 + 2.0**-12)), 1 + 2.0**-10, 0),  # the next one above
            ((0.0, 127 * 65504.0), 65504.0, 0),
            ((0.0, 1e-9), 2.0**-24, 0),
            ((0.0, 0.0), 2.0**-10, 0),
        ],
        Dialect.CPU: [
            ((-1.0, 4.0), 5 / 255, 51),
            ((0.0, 255.0), 1.0, 0),
            ((-255.0, 0.0), 1.0, 255),
            ((0.0, 255 * tiny), tiny, 0),
            ((-100 * tiny, 154 * tiny), 2.0**-10, 0),  # below the normal numbers
            ((0.0, 0.0), 2.0**-10, 0),
        ],
    }
    for dialect, cases in by_hand.items():
        for (low, high), scale, zero_point in cases:
            found = rounding_of("x", Range(low, high), dialect)
            assert (found.scale, found.zero_point) == (np.float32(scale), zero_point), (dialect, low, high)
    with pytest.raises(CalibrationError, match="beyond every INT8 scale in float16"):
        rounding_of("x", Range(-127 * 65505.0, 0.0), Dialect.TENSORRT)


def test_parts_have_the_names_that_documents_hold() -> None:
    assert {part.value for part in Parts} == {"weights", "activations", "both"}


def test_what_is_not_rounded_is_copied() -> None:
    model = float_network()
    found = quantise(model, observed_ranges(model), all_names(model), Dialect.TENSORRT)
    assert (found.graph.name, found.ir_version, found.producer_name) == (
        model.graph.name,
        model.ir_version,
        model.producer_name,
    )
    made = {name for node in found.graph.node for name in node.output}
    assert [info.name for info in found.graph.value_info] == [
        info.name for info in model.graph.value_info if info.name in made
    ]
    read = {name for node in found.graph.node for name in node.input}
    assert set(constants(found)) == read - made - {item.name for item in model.graph.input} - {""}


def test_a_value_far_out_is_named() -> None:
    with pytest.raises(CalibrationError, match=r'"backbone\.relu" reaches 1e\+08.*in float'):
        rounding_of("backbone.relu", Range(0.0, 1e8), Dialect.TENSORRT)


def test_scales_of_dead_channels_and_of_tiny_ones() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[1] = 1e-9
    weight[2] = 1.0
    for dialect in DIALECTS:
        scale = weight_scale(weight, dialect)
        assert scale[0] == 2.0**-10
        assert (scale > 0).all()
        assert scale[2] == pytest.approx(1 / 127, rel=1e-3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_parts_alone(dialect: Dialect) -> None:
    model = float_network()
    ranges, names, image = observed_ranges(model), all_names(model), image_of(model)
    weights = quantise(model, ranges, names, dialect, Parts.WEIGHTS)
    activations = quantise(model, ranges, names, dialect, Parts.ACTIVATIONS)
    assert not any(node.op_type == "QuantizeLinear" for node in weights.graph.node)
    assert not any(tensor.data_type == onnx.TensorProto.INT32 for tensor in weights.graph.initializer)
    assert all(value.dtype != np.int8 or value.ndim < 2 for value in constants(activations).values())
    expected = run(model, image)["class_logit"]
    both = run(quantise(model, ranges, names, dialect), image, simulate=True)["class_logit"]
    for part in (weights, activations):
        found = run(part, image, simulate=True)["class_logit"]
        assert signal_to_noise_db(expected, found) > signal_to_noise_db(expected, both) - 1
        assert np.abs(found - expected).max() > 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_same_plan_gives_the_same_bytes_and_leaves_the_model_alone(dialect: Dialect) -> None:
    model = float_network()
    before = model.SerializeToString(deterministic=True)
    ranges, names = observed_ranges(model), all_names(model)
    first = quantise(model, ranges, names, dialect).SerializeToString(deterministic=True)
    assert first == quantise(model, dict(reversed(ranges.items())), names[::-1], dialect).SerializeToString(
        deterministic=True
    )
    assert model.SerializeToString(deterministic=True) == before
    assert len(first) < 0.45 * len(before)


def test_an_empty_plan_changes_nothing() -> None:
    model = float_network()
    found = quantise(model, {}, [], Dialect.CPU)
    assert [node.SerializeToString() for node in found.graph.node] == [
        node.SerializeToString() for node in model.graph.node
    ]


def test_unknown_convolutions_and_missing_ranges_are_named() -> None:
    model = float_network()
    with pytest.raises(CalibrationError, match=r"no convolution backbone\.conv7"):
        quantise(model, {}, ["backbone.conv7"], Dialect.CPU)
    with pytest.raises(CalibrationError, match=r"there is no range for .*image"):
        quantise(model, {}, ["backbone.conv1"], Dialect.CPU)


def test_metadata_travels() -> None:
    model = float_network()
    onnx.helper.set_model_props(model, {"yolact_manifest": "{}"})
    found = quantise(model, observed_ranges(model), all_names(model), Dialect.CPU)
    assert [(item.key, item.value) for item in found.metadata_props] == [("yolact_manifest", "{}")]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", ["yolact_lite0", "yolact_plus_resnet50"])
def test_what_is_added_belongs_to_the_part_that_it_feeds(family: str, dialect: Dialect) -> None:
    model = float_network(family)
    before = NetworkGraph(model).parts
    found = quantise(model, observed_ranges(model), body_names(model), dialect)
    parts = {node.name: part_of(node) for node in found.graph.node}
    assert None not in parts.values()
    assert {name: parts[name] for name in before} == before
    readers = NetworkGraph(found).consumers
    for node in found.graph.node:
        if node.op_type == "DequantizeLinear":
            fed = {parts[reader.name] for reader in readers.get(node.output[0], ())}
            assert not fed or parts[node.name] in fed
            maker = next((one for one in found.graph.node if one.output[0] == node.input[0]), node)
            assert parts[maker.name] == parts[node.name]


def test_what_is_made_of_a_network_of_an_earlier_release_has_parts() -> None:
    model = float_network()
    before = NetworkGraph(model).parts
    for node in model.graph.node:
        node.ClearField("metadata_props")
    found = quantise(model, observed_ranges(model), body_names(model), Dialect.CPU)
    parts = {node.name: part_of(node) for node in found.graph.node}
    assert None not in parts.values()
    assert {name: parts[name] for name in before} == before
