"""Depthwise convolutions in INT8 get groups of several channels for TensorRT-RTX: other weights, the same numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from support.properties import examples
from support.scenes import small_manifest
from yolact_export.engine.build import build_engine
from yolact_export.engine.depthwise import group_depthwise, group_size
from yolact_export.engine.options import EngineOptions
from yolact_export.errors import EngineBuildError
from yolact_runtime.backends.onnxruntime_session import SessionSettings, open_cpu_session


def depthwise(channels: int, multiplier: int = 1, kind: str = "int8", readers: int = 1, **attributes: object) -> bytes:
    """A depthwise convolution, without INT8 where `kind` is a float type; several of them with the same weights.

    Scales are powers of 2 and numbers are small, so that no sum is rounded: the order of its terms does not show.
    """
    random = np.random.default_rng(channels)
    outputs = channels * multiplier
    weight = random.integers(-127, 128, (outputs, 1, 3, 3)).astype(np.int8)
    constants = {"bias": random.integers(-9, 10, outputs).astype(np.float32), "scale": np.float32(0.25)}
    nodes = []
    if kind == "int8":
        constants |= {
            "zero": np.int8(0),
            "weight": weight,
            "weight.scale": (2.0 ** random.integers(-3, 3, outputs)).astype(np.float32),
            "weight.zero": np.zeros(outputs, np.int8),
        }
        nodes += [
            helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["data"], name="dq"),
            helper.make_node("DequantizeLinear", ["weight", "weight.scale", "weight.zero"], ["w"], name="w", axis=0),
        ]
    else:
        constants["w"] = weight.astype(np.float32)
        nodes.append(helper.make_node("Identity", ["image"], ["data"], name="data"))
    for index in range(readers):
        names = {"name": f"conv{index}", "kernel_shape": [3, 3], "group": channels}
        nodes.append(helper.make_node("Conv", ["data", "w", "bias"], [f"output{index}"], **names, **attributes))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, 13, 11])
    found = [helper.make_tensor_value_info(f"output{index}", TensorProto.FLOAT, None) for index in range(readers)]
    initialisers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "depthwise", [image], found, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"kept": "as it is"})
    return bytes(onnx.shape_inference.infer_shapes(model, check_type=True).SerializeToString())


def run(model: bytes, level: Literal["none", "all"]) -> npt.NDArray[np.float32]:
    session = open_cpu_session(model, SessionSettings(fuses_qdq=False, optimisation=level))
    (image,) = session.get_inputs()
    (found,) = session.run(None, {image.name: np.random.default_rng(1).normal(0, 8, image.shape).astype(np.float32)})
    return np.asarray(found)


def groups(model: bytes) -> list[int]:
    nodes = [node for node in onnx.load_from_string(model).graph.node if node.op_type == "Conv"]
    return [next(attribute.i for attribute in node.attribute if attribute.name == "group") for node in nodes]


@pytest.mark.parametrize(
    "level",
    ["none", "all"],
    ids=["as written", "optimised"],
)
@pytest.mark.parametrize(
    ("channels", "size", "expected", "attributes"),
    [
        (32, 4, 8, {"pads": [1, 1, 1, 1]}),
        (32, 8, 4, {"pads": [1, 1, 1, 1]}),
        (12, 4, 3, {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
        (12, 8, 3, {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
        (6, 4, 3, {"strides": [1, 2]}),
        (8, 4, 2, {"multiplier": 2, "pads": [1, 1, 1, 1]}),
        (6, 4, 3, {"multiplier": 3, "strides": [2, 2]}),
    ],
)
def test_the_same_numbers(
    channels: int,
    size: int,
    expected: int,
    attributes: dict[str, object],
    level: Literal["none", "all"],
) -> None:
    model = depthwise(channels, **attributes)  # type: ignore[arg-type]
    rewritten, names = group_depthwise(model, size)
    assert names == ("conv0",)
    assert groups(rewritten) == [expected]
    onnx.checker.check_model(rewritten, full_check=True)
    assert onnx.load_from_string(rewritten).metadata_props == onnx.load_from_string(model).metadata_props
    before, after = run(model, level), run(rewritten, level)
    assert np.abs(before).max() > 100
    assert before.tobytes() == after.tobytes()


@pytest.mark.parametrize(
    "model",
    [
        depthwise(8, kind="float32"),
        depthwise(7),
        # Another reader would find other weights.
        depthwise(8, readers=2),
        b"",
    ],
    ids=["float", "an odd number of channels", "shared weights", "nothing"],
)
def test_what_stays_as_it_is(model: bytes) -> None:
    assert group_depthwise(model) == (model, ())


def test_groups_of_more_than_one_channel_stay_as_they_are() -> None:
    model, _ = group_depthwise(depthwise(8))
    assert group_depthwise(model) == (model, ())


def test_weights_that_are_not_held_as_bytes_stay_as_they_are() -> None:
    model = onnx.load_from_string(depthwise(8))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight")
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(helper.make_tensor("weight", TensorProto.INT8, values.shape, values.ravel()))
    content = model.SerializeToString()
    assert group_depthwise(content) == (content, ())


def changed(edit: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(depthwise(8))
    edit(model)
    return bytes(model.SerializeToString())


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def shifted(model: onnx.ModelProto) -> None:
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "weight.zero")
    zero.CopyFrom(numpy_helper.from_array(np.full(8, 3, np.int8), "weight.zero"))


def nested(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["w"], ["x"])], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["q"], ["y"], then_branch=inner, else_branch=inner))


@pytest.mark.parametrize(
    "edit",
    [
        shifted,
        nested,
        lambda model: node_of(model, "w").attribute.pop(),  # the scale is along axis 1
        lambda model: model.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [8, 1, 3, 3])),
        lambda model: model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.INT8, [8, 1, 3, 3])),
        lambda model: node_of(model, "conv0").output.pop(),
        lambda model: node_of(model, "w").input.pop(0),
        lambda model: node_of(model, "conv0").attribute[0].ClearField("i"),
    ],
    ids=["zero point", "subgraph", "axis", "an output", "an input", "no output", "no weight", "no groups"],
)
def test_what_the_export_does_not_write_stays_as_it_is(edit: Callable[[onnx.ModelProto], None]) -> None:
    model = changed(edit)
    assert group_depthwise(model) == (model, ())


def test_what_says_how_large_the_weights_are_goes() -> None:
    def known(model: onnx.ModelProto) -> None:
        model.graph.value_info.append(helper.make_tensor_value_info("weight", TensorProto.INT8, [8, 1, 3, 3]))

    rewritten, names = group_depthwise(changed(known))
    assert names == ("conv0",)
    onnx.checker.check_model(rewritten, full_check=True)


WHOLE = depthwise(8, pads=[1, 1, 1, 1])


@examples(400)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(WHOLE)))
def test_damaged_files_are_no_crash(changes: list[tuple[int, int]], end: int) -> None:
    content = bytearray(WHOLE)
    for position, byte in changes:
        content[position] = byte
    with contextlib.suppress(EngineBuildError):
        group_depthwise(bytes(content[:end]))


def test_turing_pads_to_eight_channels() -> None:
    assert [group_size(named) for named in ((), ("8.6", "8.9"), ("7.5",), ("7.5", "8.6"))] == [4, 4, 8, 8]


def test_an_rtx_engine_does_not_hold_the_zeros() -> None:
    manifest, model = small_manifest().to_json(), depthwise(1024, pads=[1, 1, 1, 1])
    grouped = build_engine(model, manifest, EngineOptions("rtx"))
    padded = build_engine(model, manifest, EngineOptions("rtx", group_depthwise=False))
    assert len(grouped.plan) < 0.5 * len(padded.plan)
    assert grouped.facts["int8_depthwise"] == "1 in groups of 4"
    assert "int8_depthwise" not in padded.facts
    # Both say what they were built from: the file of the bundle.
    assert grouped.facts["onnx_sha256"] == padded.facts["onnx_sha256"]
