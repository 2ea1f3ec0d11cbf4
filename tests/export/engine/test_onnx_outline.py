"""The reader that spares the robot the onnx package sees what the onnx package sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from support.engine_graphs import CONVOLUTIONS, small_graph, small_model
from support.properties import examples
from yolact_export.engine.build import check_model
from yolact_export.engine.onnx_outline import read_outline
from yolact_export.engine.options import EngineOptions
from yolact_export.errors import EngineBuildError
from yolact_export.graph.export import ExportOptions, export_network
from yolact_runtime.model.protobuf import BYTES, encode_field


@pytest.mark.parametrize("name", ["yolact_resnet50", "yolact_plus_resnet50"])
def test_the_outline_has_the_nodes_of_an_exported_network(narrow_model, name):
    exported = export_network(narrow_model(name), ExportOptions())
    outline = read_outline(exported.SerializeToString())
    assert [(node.name, node.operator) for node in outline.nodes] == [(n.name, n.op_type) for n in exported.graph.node]
    assert outline.external == ()
    assert len(outline.named("DeformConv")) == (13 if "plus" in name else 0)


def _external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    moved = onnx.TensorProto()
    moved.CopyFrom(tensor)
    moved.ClearField("raw_data")
    moved.data_location = TensorProto.EXTERNAL
    moved.external_data.add(key="location", value="weights.bin")
    return moved


def _only(node: onnx.NodeProto) -> bytes:
    return helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString()


WEIGHT = _external(numpy_helper.from_array(np.zeros(4, np.float32), "w"))
INNER = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="inner")], "inner", [], [], [WEIGHT])
SPARSE = onnx.SparseTensorProto(values=WEIGHT, indices=numpy_helper.from_array(np.zeros(4, np.int64)), dims=[9])


@pytest.mark.parametrize(
    "model",
    [
        _only(helper.make_node("Constant", [], ["c"], value=WEIGHT)),
        _only(helper.make_node("Constant", [], ["c"], sparse_value=SPARSE)),
        _only(helper.make_node("If", ["b"], ["c"], then_branch=INNER, else_branch=INNER)),
        helper.make_model(INNER).SerializeToString(),
        helper.make_model(
            helper.make_graph([helper.make_node("F", [], ["c"], domain="d")], "g", [], []),
            functions=[
                helper.make_function("d", "F", [], ["c"], [helper.make_node("Constant", [], ["c"], value=WEIGHT)], [])
            ],
        ).SerializeToString(),
    ],
    ids=["attribute", "sparse attribute", "subgraph", "initializer", "function"],
)
def test_external_data_is_found_wherever_it_hides(model: bytes) -> None:
    outline = read_outline(model)
    assert set(outline.external) == {"w"}
    with pytest.raises(EngineBuildError, match="in other files, w first, which are not read"):
        check_model(outline, EngineOptions("rtx"))


def test_external_data_of_a_saved_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_graph("fp32"), path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    names = read_outline(path.read_bytes()).external
    assert {f"{name}.weight" for name in CONVOLUTIONS} <= set(names)


def test_deformable_convolutions_are_refused_for_rtx_only(narrow_model):
    for form, refused in (("deform-conv", True), ("grid-sample", False)):
        exported = export_network(narrow_model("yolact_plus_resnet50"), ExportOptions(deform_conv=form))
        outline = read_outline(exported.SerializeToString())
        check_model(outline, EngineOptions("tensorrt"))
        if refused:
            with pytest.raises(EngineBuildError, match=r"TensorRT-RTX has no DeformConv.*--deform-conv grid-sample"):
                check_model(outline, EngineOptions("rtx"))
        else:
            check_model(outline, EngineOptions("rtx"))


@pytest.mark.parametrize("content", [b"", b"x", b"\x08\x08", b"\xff" * 40, small_model("fp32")[:-100]])
def test_what_is_no_model(content: bytes) -> None:
    with pytest.raises(EngineBuildError, match="not an ONNX model"):
        read_outline(content)


SMALL = small_model("int8", side=8)


@examples(100)
@given(st.integers(0, 2**31), st.binary(min_size=1, max_size=8))
def test_damage_is_read_or_refused(place: int, damage: bytes) -> None:
    content = bytearray(SMALL)
    place %= len(content)
    content[place : place + len(damage)] = damage
    try:
        read_outline(bytes(content))
    except EngineBuildError:
        return


def test_graphs_may_be_nested_deeper_than_python_s_stack() -> None:
    """Written field by field: protobuf itself refuses to write it."""
    graph = encode_field(1, BYTES, memoryview(encode_field(3, BYTES, memoryview(b"innermost"))))
    for _ in range(3000):
        attribute = encode_field(6, BYTES, memoryview(graph))
        graph = encode_field(1, BYTES, memoryview(encode_field(5, BYTES, memoryview(attribute))))
    outline = read_outline(encode_field(7, BYTES, memoryview(graph)))
    assert len(outline.nodes) == 3001
    assert outline.nodes[-1].name == "innermost"
