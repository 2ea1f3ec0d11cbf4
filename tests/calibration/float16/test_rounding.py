"""Float16 as an engine computes it, in float32 graphs: bit for bit NumPy's float16, infinities included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from support.properties import examples
from support.pruning import FAMILIES, random_model
from support.quantised import float_network, image_of, observed_ranges, run
from yolact_calibration.errors import CalibrationError
from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.float16.rounding import rounded_tensors, simulate_float16
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq import quantise
from yolact_calibration.quantisation.qdq_placement import Dialect
from yolact_export.graph.export import ExportOptions, export_network
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session

Float = np.typing.NDArray[np.float32]
SHAPE = (1, 2, 6, 6)


def half(values: Any) -> Float:
    """What float16 holds of float32 values."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)


def network(nodes: list[onnx.NodeProto], constants: dict[str, Any], output: str, opset: int = 19) -> onnx.ModelProto:
    """A float32 graph from ``image``, of any shape, to one output."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    # The output gets its shape; an operator that nobody knows has none.
    return model if any(node.domain for node in nodes) else onnx.shape_inference.infer_shapes(model)


def compute(model: onnx.ModelProto, image: Float) -> dict[str, Float]:
    """All float tensors of a graph; nothing is fused, because everything is an output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {output.name for output in model.graph.output}
    integers = {n for node in model.graph.node if node.op_type == "QuantizeLinear" for n in node.output}
    for node in model.graph.node:
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in have | integers)
    session = session_of(copy)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"image": image}), strict=True))
    return {"image": image, **found}


def session_of(model: onnx.ModelProto, optimised: Path | None = None) -> Any:
    settings = SessionSettings(num_threads=1, fuses_qdq=False, optimised_model=optimised)
    return open_cpu_session(model.SerializeToString(), settings)


def only_node(node: onnx.NodeProto, model: onnx.ModelProto, values: dict[str, Float]) -> Float:
    """One node of a graph in float32, of what the graph gives it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    fed = [name for name in node.input if name and name not in constants]
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape)
            for name in dict.fromkeys(fed)
        ],
        [onnx.ValueInfoProto(name=node.output[0])],
        [constants[name] for name in node.input if name in constants],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    found: Float = session_of(alone).run(None, {name: values[name] for name in fed})[0]
    return found


def require_rounded(model: onnx.ModelProto, image: Float) -> int:
    """Every rounded tensor is what NumPy's float16 holds of the node's float32 result; returns how many there were."""
    simulated = simulate_float16(model)
    onnx.checker.check_model(simulated, full_check=True)
    values = compute(simulated, image)
    maker = {name: node for node in simulated.graph.node for name in node.output}
    rounded = rounded_tensors(simulated)
    for name in rounded:
        exact = maker[maker[name].input[0]].input[0]
        np.testing.assert_array_equal(values[name], half(values[exact]), err_msg=name, strict=True)
        if exact in maker and len(maker[exact].output) == 1:
            alone = only_node(maker[exact], simulated, values)
            # Sums in another order where the weights come out of a DequantizeLinear; all else to the bit.
            slack = 1e-5 * np.abs(alone).max() if "dequantized" in "".join(maker[exact].input) else 0.0
            np.testing.assert_allclose(values[exact], alone, rtol=0, atol=slack, err_msg=exact)
    # Nothing that is float16 in the graph holds anything else, but where the reader rounds, or computes in integers.
    typed = onnx.shape_inference.infer_shapes(model).graph.value_info
    later = {n.input[0] for n in model.graph.node if n.op_type in {"Relu", "Clip"}}
    integers = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for info in typed:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT16 and info.name not in later | integers:
            np.testing.assert_array_equal(values[info.name], half(values[info.name]), err_msg=info.name)
    return len(rounded)


CONV = helper.make_node("Conv", ["image", "w", "b"], ["y"], name="conv", kernel_shape=(3, 3), pads=(1, 1, 1, 1))
WEIGHTS = {"w": np.random.default_rng(1).normal(size=(2, 2, 3, 3)).astype(np.float32), "b": np.float32([0.1, -0.2])}


def after_conv(kind: str, *inputs: str, constants: dict[str, Any] | None = None, **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(kind, ["y", *inputs], ["out"], name="node", **attributes)
    return network([CONV, node], {**WEIGHTS, **(constants or {})}, "out")


OPERATORS = {
    "Add": lambda: after_conv("Add", "image"),
    "Sub": lambda: after_conv("Sub", "c", constants={"c": np.float32([[[[103.94]]]])}),
    "Mul": lambda: after_conv("Mul", "image"),
    "Relu": lambda: after_conv("Relu"),
    "Clip": lambda: after_conv("Clip", "low", "high", constants={"low": np.float32(0), "high": np.float32(6)}),
    "LeakyRelu": lambda: after_conv("LeakyRelu", alpha=0.1),
    "Sigmoid": lambda: after_conv("Sigmoid"),
    "Tanh": lambda: after_conv("Tanh"),
    "MaxPool": lambda: after_conv("MaxPool", kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
    "Transpose": lambda: after_conv("Transpose", perm=(0, 2, 3, 1)),
    "Reshape": lambda: after_conv("Reshape", "shape", constants={"shape": np.int64([1, -1])}),
    "Concat": lambda: after_conv("Concat", "image", axis=1),
    "Resize": lambda: after_conv(
        "Resize", "", "s", constants={"s": np.float32([1, 1, 2, 2])}, mode="linear", nearest_mode="floor"
    ),
    "Conv": lambda: after_conv("Conv", "v", constants={"v": np.float32(np.ones((2, 2, 1, 1)))}),
}


@pytest.mark.parametrize("kind", list(OPERATORS))
@pytest.mark.parametrize("scale", [1.0, 3e4, 1e-6], ids=["usual", "overflowing", "subnormal"])
def test_every_operator_rounds_as_numpy_does(kind: str, scale: float) -> None:
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32) * np.float32(scale)
    model = to_float16(OPERATORS[kind]()).model
    assert require_rounded(model, image) >= 1 + (kind in {"Add", "Mul", "LeakyRelu", "Sigmoid", "Resize"})
    if scale > 1 and kind not in {"Clip", "Sigmoid", "Tanh"}:
        assert np.isinf(compute(simulate_float16(model), image)["out"]).any()


@pytest.mark.parametrize("family", ["yolact_small", "yolact_lite0", "yolact_plus_resnet50", "yolact_darknet53"])
@pytest.mark.parametrize("quantised", [False, True])
def test_every_tensor_of_a_network_is_rounded(family: str, quantised: bool, tmp_path: Path) -> None:
    model = float_network(family)
    image = image_of(model)
    if quantised:
        names = [convolution.name for convolution in NetworkGraph(model).convolutions]
        model = quantise(model, observed_ranges(model), names, Dialect.TENSORRT)
    written = to_float16(model).model
    assert require_rounded(written, image) > 60
    # At the default level, with everything fused that can be: no pair of casts has gone.
    simulated = simulate_float16(written)
    session_of(simulated, tmp_path / "optimised.onnx")
    optimised = onnx.load(tmp_path / "optimised.onnx")
    casts = [sum(node.op_type == "Cast" for node in graph.node) for graph in (simulated.graph, optimised.graph)]
    assert casts[0] == casts[1] == 2 * len(rounded_tensors(simulated))
    assert any("nchwc" in node.domain for node in optimised.graph.node)


def test_deformable_convolutions_are_rounded() -> None:
    model = export_network(random_model(FAMILIES["yolact_plus_resnet50"], 3), ExportOptions())
    assert any(node.op_type == "DeformConv" for node in model.graph.node)
    assert require_rounded(to_float16(model).model, image_of(model)) > 100


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["Add", "Sub", "Mul", "Relu", "Clip", "Neighbour"]),
            st.floats(-300, 300, width=16),
        ),
        min_size=1,
        max_size=8,
    ),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-7, 1e-3, 1.0, 100.0, 6e4, 1e5]),
)
@examples(60)
def test_chains_are_numpys_own_float16_arithmetic(steps: list[tuple[str, float]], seed: int, scale: float) -> None:
    """Only the end of the chain is looked at, so that ONNX Runtime may do with the rest what it likes."""
    image = (np.random.default_rng(seed).normal(size=SHAPE) * scale).astype(np.float32)
    nodes, constants, name = [], {"low": np.float32(-6), "high": np.float32(6)}, "image"
    with np.errstate(all="ignore"):
        expected = image.astype(np.float16)
        for number, (kind, value) in enumerate(steps):
            constants[f"c{number}"] = np.float32(value)
            operand = np.float16(value)
            before = expected
            if kind == "Neighbour":
                inputs, expected = [name, name], before + before
            elif kind == "Relu":
                inputs, expected = [name], np.where(before < 0, np.float16(0), before)
            elif kind == "Clip":
                inputs, expected = [name, "low", "high"], np.clip(before, np.float16(-6), np.float16(6))
            else:
                inputs = [name, f"c{number}"]
                expected = {"Add": before + operand, "Sub": before - operand, "Mul": before * operand}[kind]
            op = "Add" if kind == "Neighbour" else kind
            nodes.append(helper.make_node(op, inputs, [f"t{number}"], name=f"n{number}"))
            name = f"t{number}"
    model = simulate_float16(to_float16(network(nodes, constants, name)).model)
    found = session_of(model).run(None, {"image": image})[0]
    same = (found == expected.astype(np.float32)) | (np.isnan(found) & np.isnan(expected))
    assert same.all()


def test_onnx_runtime_itself_hides_an_overflow() -> None:
    """The reason for all this: a float16 graph on a CPU, and what an engine would compute."""
    weight = {"w": np.full((2, 2, 1, 1), 300, np.float32), "v": np.full((2, 2, 1, 1), 1e-3, np.float32)}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["y"], name="up"),
        helper.make_node("Conv", ["y", "v"], ["out"], name="down"),
    ]
    model = to_float16(network(nodes, weight, "out")).model
    image = np.full(SHAPE, 200, np.float32)
    assert np.isfinite(run(model, image)["out"]).all()
    assert np.isinf(run(simulate_float16(model), image)["out"]).all()


def test_the_source_is_not_changed_and_inputs_and_outputs_are_float32() -> None:
    model = to_float16(float_network()).model
    before = model.SerializeToString(deterministic=True)
    found = simulate_float16(model)
    assert model.SerializeToString(deterministic=True) == before
    infos = (*found.graph.input, *found.graph.output, *found.graph.value_info)
    assert {info.type.tensor_type.elem_type for info in infos} == {TensorProto.FLOAT}
    assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in found.graph.initializer}
    assert found.metadata_props == model.metadata_props


def test_what_is_float32_stays_as_it_is() -> None:
    model = float_network()
    found = simulate_float16(model)
    assert list(found.graph.node) == list(model.graph.node)
    assert rounded_tensors(found) == ()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Erf", ["y"], ["out"], name="strange"), '"strange" is a Erf in float16'),
        (helper.make_node("Relu", ["y"], ["out"], name="own", domain="com.me"), '"own" is a Relu in float16'),
    ],
)
def test_an_operator_that_is_not_known_is_refused(node: onnx.NodeProto, message: str) -> None:
    model = to_float16(network([CONV, node], WEIGHTS, "out")).model
    with pytest.raises(CalibrationError, match=message):
        simulate_float16(model)
    # In float32 it is none of its business.
    simulate_float16(to_float16(network([CONV, node], WEIGHTS, "out"), single=[node.name]).model)


def test_a_constant_node_in_float16_is_refused() -> None:
    value = numpy_helper.from_array(np.ones(1, np.float16), "value")
    node = helper.make_node("Constant", [], ["c"], name="constant", value=value)
    with pytest.raises(CalibrationError, match="constant"):
        simulate_float16(network([node, CONV], WEIGHTS, "y"))


@pytest.mark.parametrize("kind", ["Conv", "QuantizeLinear", "Cast"])
def test_a_float16_input_is_read_rounded(kind: str) -> None:
    """Float32 is fed, and what an engine would be given is computed with."""
    nodes = {
        "Conv": [CONV],
        "QuantizeLinear": [
            helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="d"),
        ],
        "Cast": [helper.make_node("Cast", ["image"], ["y"], name="c", to=TensorProto.FLOAT)],
    }[kind]
    constants = {**WEIGHTS, "scale": np.float32(1e-3), "zero": np.int8(0)} if kind == "QuantizeLinear" else WEIGHTS
    single = network(nodes, constants, "y")
    model = to_float16(single, half_input=True).model if kind != "Cast" else single
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    found = simulate_float16(model)
    image = np.random.default_rng(3).normal(0, 0.05, SHAPE).astype(np.float32)
    names = [output.name for output in found.graph.output]
    assert (half(image) != image).any()
    for fed in (image, half(image)):
        (value,) = session_of(found).run(names, {"image": fed})
        (expected,) = session_of(simulate_float16(to_float16(single).model if kind != "Cast" else single)).run(
            names, {"image": half(image)}
        )
        assert np.array_equal(value, expected)
