"""The layer list of TensorRT's log: what proves, without a GPU, in which type a convolution computes."""

from __future__ import annotations

import pytest

from support.engine_graphs import CONVOLUTIONS, small_model
from support.scenes import small_manifest
from yolact_export.engine.build import build_engine
from yolact_export.engine.layers import (
    EngineLayer,
    find_convolutions,
    fused_with,
    int8_convolutions,
    parse_layers,
)
from yolact_export.engine.onnx_outline import read_outline
from yolact_export.engine.options import EngineOptions
from yolact_export.graph.export import ExportOptions, export_network

# Of TensorRT-RTX 1.7.
RTX = (
    "Name: c1_U9_myl0_1, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,32,32,32], Strides: "
    "[32768,1,1024,32], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
    "Constants: [ { Name: w, Dimensions: [32,32,3,3], Datatype: Int8, Format: (NHWC) Channel major format }, "
    "{ Name: b, Dimensions: [1,32,1,1], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { "
    "Name: o, Dimensions: [1,32,32,32], Datatype: Float, Format: (NHWC) Channel major format }], TacticName: "
    "__myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: c1]\x1f[ONNX Layer: a0/DQ[0]]\x1f[ONNX Layer: c1, too]"
)
SIGNAL = (
    "Name: entry^bb^signal^2_myl0_0, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , "
    "StreamId: 0, EventId: 21, Metadata: "
)
# In the form of TensorRT 10, whose types are inside a description of the format.
FULL = (
    "Name: conv1 + relu1, LayerType: CaskConvolution, Inputs: [ { Name: image, Location: Device, Dimensions: "
    "[1,3,8,8], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }, { Name: skip, "
    "Location: Device, Dimensions: [1,3,8,8], Format/Datatype: Row major linear FP16 format }], Outputs: [ { "
    "Name: relu1, Location: Device, Dimensions: [1,64,8,8], Format/Datatype: Channel major FP16 format where "
    "channel % 8 == 0 }], ParameterType: Convolution, Kernel: [7,7], TacticName: sm80_xmma, TacticValue: 0x7, "
    "StreamId: 0, Metadata: [ONNX Layer: conv1][ONNX Layer: relu1]"
)


def test_a_line_of_tensorrt_rtx() -> None:
    (layer,) = parse_layers([RTX])
    assert layer == EngineLayer(
        "c1_U9_myl0_1",
        "correlation",
        inputs=("Int8",),
        outputs=("Float",),
        onnx_layers=("c1", "a0/DQ[0]", "c1, too"),
        constants=("Int8", "Float"),
    )


def test_a_line_of_tensorrt() -> None:
    (layer,) = parse_layers([f"Layers:\n{FULL}\n\nBindings:\nimage"])
    assert layer.inputs == ("Int8", "Half")
    assert layer.outputs == ("Half",)
    assert layer.onnx_layers == ("conv1", "relu1")
    assert layer.is_convolution
    assert int8_convolutions([layer], ["conv1"]) == ("conv1",)


def test_a_convolution_that_became_a_matrix_product() -> None:
    line = (
        "Name: __myl_FcAddRelu_myl0_32, LayerType: runtime_fusion, Inputs: [ { Name: x, Dimensions: [1,64,9,9], "
        "Strides: [5184,1,576,64], StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], "
        "Constants: [ { Name: w, Dimensions: [64,64], Strides: [64,1], StrideOrder: [1,0], Datatype: Half, Format: "
        "(Transposed) Transposed format }], Outputs: [ { Name: y, Dimensions: [1,64,9,9], Strides: [5184,1,576,64], "
        "StrideOrder: [3,0,2,1], Datatype: Half, Format: (Transposed) Transposed format }], TacticName: , StreamId: 0, "
        "Metadata: [ONNX Layer: conv1]\x1f[ONNX Layer: relu1]__gemm_from_conv1x1"
    )
    found = find_convolutions(parse_layers([line]), ["conv1"])
    assert found["conv1"].arithmetic == "Half"
    assert found["conv1"].fused == ("relu1",)


def test_lines_of_other_kinds_are_passed_over() -> None:
    (layer,) = parse_layers(["LayerType: ", "Name: x, LayerType: y", "Registered plugin", SIGNAL])
    assert (layer.kind, layer.inputs, layer.outputs, layer.onnx_layers) == ("signal", (), (), ())
    assert not layer.is_convolution


def test_int8_data_with_other_weights_is_not_int8() -> None:
    layer = EngineLayer("l", "correlation", ("Int8",), ("Float",), ("c",), ("Half",))
    assert int8_convolutions([layer], ["c"]) == ()
    assert find_convolutions([layer], ["c"])["c"].arithmetic == "Int8 x Half"


def test_a_layer_survives_json() -> None:
    import json
    from dataclasses import asdict

    (layer,) = parse_layers([RTX])
    assert EngineLayer.from_document(json.loads(json.dumps(asdict(layer)))) == layer


# --- real engines -----------------------------------------------------------------------------------------------------


def build(model: bytes, **options: object) -> tuple[EngineLayer, ...]:
    return build_engine(model, small_manifest().to_json(), EngineOptions("rtx", **options)).layers


def test_every_quantised_convolution_takes_int8() -> None:
    layers = build(small_model("int8"))
    assert int8_convolutions(layers, CONVOLUTIONS) == CONVOLUTIONS
    # The rest of such a convolution is a kernel of its own in TensorRT-RTX.
    assert fused_with(layers, CONVOLUTIONS, ["relu1", "relu2", "add"]) == dict.fromkeys(CONVOLUTIONS, ())


def test_half_precision_convolutions_are_fused_with_what_follows() -> None:
    layers = build(small_model("fp16"))
    found = find_convolutions(layers, CONVOLUTIONS)
    assert {name: convolution.arithmetic for name, convolution in found.items()} == dict.fromkeys(CONVOLUTIONS, "Half")
    fused = fused_with(layers, CONVOLUTIONS, ["relu1", "relu2", "add"])
    assert {name: set(nodes) for name, nodes in fused.items()} == {
        "conv1": {"relu1"},
        "conv2": {"add", "relu2"},
        "conv3": set(),
    }
    # The bias is inside too: nothing else computes a part of the convolution.
    assert all(sum(name in layer.onnx_layers for layer in layers) == 1 for name in CONVOLUTIONS)


def test_turing_computes_no_quantised_convolution_in_int8() -> None:
    layers = build(small_model("int8"), compute_capabilities=("7.5",))
    assert int8_convolutions(layers, CONVOLUTIONS) == ()
    assert {found.arithmetic for found in find_convolutions(layers, CONVOLUTIONS).values()} == {"Float"}


@pytest.mark.parametrize(("name", "count", "num_depthwise"), [("yolact_resnet50", 86, 0), ("yolact_lite0", 81, 16)])
def test_every_convolution_of_a_network_is_found(narrow_model, name, count, num_depthwise):
    model = export_network(narrow_model(name), ExportOptions())
    names = read_outline(model.SerializeToString()).named("Conv")
    convolutions = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    depthwise = {
        key for key, node in convolutions.items() if any(a.name == "group" and a.i > 1 for a in node.attribute)
    }
    assert (len(names), len(depthwise)) == (count, num_depthwise)
    layers = build(model.SerializeToString())
    found = find_convolutions(layers, names)
    # A release of TensorRT-RTX may make a generated kernel of a depthwise one; a kernel of no name is never made.
    assert set(names) - set(found) <= depthwise
    assert set(names) <= {name for layer in layers for name in layer.onnx_layers}
    assert {convolution.arithmetic for convolution in found.values()} == {"Float"}
