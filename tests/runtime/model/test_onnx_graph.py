"""What is read of an ONNX model without the onnx package, against that package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from support.mask_iou_models import mask_iou_network_model
from support.properties import examples
from yolact_runtime.errors import BundleError
from yolact_runtime.model.model_file import ModelFile
from yolact_runtime.model.onnx_graph import FIELDS, Graph, read_graph

MODEL = mask_iou_network_model(3, (63, 63))


def graph_of(content: bytes) -> Graph:
    return read_graph(ModelFile(Path("model.onnx"), content))


def test_the_fields_are_those_of_onnx() -> None:
    for message, fields in FIELDS.items():
        known = getattr(onnx, message).DESCRIPTOR.fields_by_name
        assert {name: known[name].number for name in fields} == fields


def test_everything_is_what_the_onnx_package_reads() -> None:
    graph, theirs = graph_of(MODEL), onnx.load_model_from_string(MODEL).graph
    assert (graph.inputs, graph.outputs) == (("mask",), ("mask_iou",))
    assert [node.op_type for node in graph.nodes] == [node.op_type for node in theirs.node]
    for mine, node in zip(graph.nodes, theirs.node, strict=True):
        assert (mine.inputs, mine.outputs) == (tuple(node.input), tuple(node.output))
        numbers = {a.name: tuple(a.ints) if a.type == a.INTS else (a.i,) for a in node.attribute}
        assert mine.numbers == numbers
    assert list(graph.weights) == [weight.name for weight in theirs.initializer]
    for weight in theirs.initializer:
        np.testing.assert_array_equal(graph.weights[weight.name], numpy_helper.to_array(weight), strict=True)


def _as_floats(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        weight.float_data.extend(numpy_helper.to_array(weight).reshape(-1))
        weight.ClearField("raw_data")


def _weights_among_the_inputs(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(weight.name, 1, weight.dims))


def test_every_way_to_write_a_weight() -> None:
    expected = graph_of(MODEL)
    changes: list[Callable[[onnx.ModelProto], None]] = [_as_floats, _weights_among_the_inputs]
    for change in changes:
        graph = graph_of(mask_iou_network_model(3, (63, 63), change=change))
        assert (graph.inputs, graph.nodes) == (expected.inputs, expected.nodes)
        for name, array in expected.weights.items():
            np.testing.assert_array_equal(graph.weights[name], array, strict=True)


def test_negative_numbers_domains_and_other_dtypes() -> None:
    node = helper.make_node("Flatten", ["a", "", "c"], ["b"], axis=-1, name="f", mode="x", domain="com.other")
    half = numpy_helper.from_array(np.ones(2, np.float16), "half")
    graph = graph_of(helper.make_model(helper.make_graph([node], "g", [], [], [half])).SerializeToString())
    (found,) = graph.nodes
    assert (found.op_type, found.inputs, found.numbers["axis"]) == ("com.other.Flatten", ("a", "", "c"), (-1,))
    assert graph.weights == {}


def test_a_graph_in_two_parts_is_one() -> None:
    """As protobuf reads it: what ONNX Runtime computes and what the kernels compute is the same."""
    model = onnx.load_model_from_string(MODEL)
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(model)
    del first.graph.node[6:]
    second.graph.node.extend(model.graph.node[6:])
    assert graph_of(first.SerializeToString() + second.SerializeToString()).nodes == graph_of(MODEL).nodes


def _too_few(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 9


def _twice(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].name = model.graph.initializer[0].name


@pytest.mark.parametrize(
    ("change", "words"), [(_too_few, "288 bytes for the shape"), (_twice, "two weights are called")]
)
def test_weights_that_do_not_fit(change: Callable[[onnx.ModelProto], None], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        graph_of(mask_iou_network_model(3, (63, 63), change=change))


@pytest.mark.parametrize(
    "shape", [(1 << 62,) * 50_000, (0,) * 50_000, (1,) * 33, (-1,), (-1, -72), (0, -1), (0, 1 << 62), (0, 1 << 31)]
)
def test_shapes_that_no_weight_has(shape: tuple[int, ...]) -> None:
    """Whatever NumPy says of them; and a product of so many large numbers would take minutes."""

    def change(model: onnx.ModelProto) -> None:
        weight = model.graph.initializer[0]
        weight.name = "n" * 50_000
        weight.ClearField("dims")
        weight.dims.extend(shape)

    with pytest.raises(BundleError, match="an invalid shape") as raised:
        graph_of(mask_iou_network_model(3, (63, 63), change=change))
    assert len(str(raised.value)) < 400


@examples(150)
@given(st.integers(0, 3000), st.integers(0, 255), st.booleans())
def test_damage_is_an_error_or_another_graph(position: int, value: int, cut: bool) -> None:
    content = MODEL[:position] if cut else MODEL[:position] + bytes([value]) + MODEL[position + 1 :]
    try:
        graph = graph_of(content)
    except BundleError:
        return
    assert isinstance(graph, Graph)
