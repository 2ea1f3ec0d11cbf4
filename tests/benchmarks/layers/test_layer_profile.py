from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from support.precision_trials import MANIFEST
from support.quantised import float_network
from support.scenes import Thing, small_manifest, write_bundle
from yolact_benchmarks.layers.layer_profile import (
    CONVERSIONS,
    KernelTime,
    profile_document,
    profile_network,
    read_kernels,
)
from yolact_benchmarks.layers.network_operations import convolution_operations, kernel_operations
from yolact_calibration.float16.conversion import to_float16
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_runtime.model.model_file import ModelFile

PARTS = {"proto_net.0": "protonet", "fpn.lat_layers.0": "fpn lateral"}


def event(name: str, operator: str, us: int, index: int, kind: str = "float", **sizes: int) -> dict[str, Any]:
    shapes = [{kind: [1, 8, 10, 10]}, {kind: [16, 8, 3, 3]}]
    facts = {"op_name": operator, "node_index": index, "input_type_shape": shapes, **sizes}
    facts["output_type_shape"] = [{kind: [1, 16, 5, 5]}]
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": facts}


def profile() -> list[dict[str, Any]]:
    """A warm-up run that does not count, and three that do."""
    sizes = {"activation_size": 3200, "parameter_size": 4608, "output_size": 1600}
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "dur": 5}]
    for extra in (5000, 0, 100, -100):
        events += [
            event("proto_net.0_token_1", "QLinearConv", 6000 + extra, 0, "uint8", **sizes),
            event("fpn.lat_layers.0_nchwc", "Conv", 2000, 1, **sizes),
            event("ReorderOutput", "ReorderOutput", 1200, 2),
            event("ReorderOutput", "ReorderOutput", 800, 3),
        ]
    return events


def test_kernels_of_a_profile() -> None:
    kernels = read_kernels(profile(), 1, {"proto_net.0": 57600}, PARTS)
    assert [(kernel.block, kernel.ms) for kernel in kernels] == [
        ("protonet", 6.0),
        ("fpn lateral", 2.0),
        (CONVERSIONS, 1.2),
        (CONVERSIONS, 0.8),
    ]
    assert (kernels[0].precision, kernels[0].bytes) == ("uint8", 3200 + 4608 + 1600)
    assert kernels[0].operations == 57600
    assert (kernels[1].operations, kernels[2].operations) == (None, None)


def test_the_document_adds_up_and_suggests_at_most_three_things() -> None:
    document = profile_document(read_kernels(profile(), 1, {"proto_net.0": 57600}, PARTS))
    assert document["total_ms"] == 10
    assert {block["name"]: block["share"] for block in document["blocks"]} == {
        "protonet": 0.6,
        "fpn lateral": 0.2,
        CONVERSIONS: 0.2,
    }
    assert document["conversion_share"] == 0.2
    assert document["layers"][0]["name"] == "proto_net.0_token_1"
    protonet = document["blocks"][0]
    assert protonet["operations_per_byte"] == pytest.approx(57600 / 9408, abs=0.1)
    assert (protonet["bound_by"], protonet["precisions"]) == ("memory", ["uint8"])
    lateral = document["blocks"][1]
    assert (lateral["operations_per_byte"], lateral["bound_by"]) == (None, None), "not known, so not made up"
    first, second, third = document["suggestions"]
    assert first.startswith("20% of the time is spent on changes of layouts or types")
    assert second.startswith("20% of the time is spent on convolutions left in float")
    assert third.startswith("protonet takes 60%, more than any other part")


def test_operations_of_convolutions_and_of_what_follows_them(tmp_path: Path) -> None:
    model = float_network()
    onnx.save(model, tmp_path / "model.onnx")
    file = ModelFile.read(tmp_path / "model.onnx")
    operations, exact = kernel_operations(file), convolution_operations(file)
    for convolution in NetworkGraph(model).convolutions:
        assert operations[convolution.name] == 2 * convolution.macs
    followers = [node.name for node in model.graph.node if node.op_type == "Relu"]
    assert any(name in operations for name in followers)
    assert not any(name in exact for name in followers), "a layer of an engine names all of its nodes"
    assert exact.items() <= operations.items()
    assert operations["prototype"] == operations["proto_net.relu"], "kernels are called after tensors too"


@pytest.mark.parametrize(
    ("ms", "operations", "bound"),
    # 100 MB at 100 GB/s take a millisecond.
    [(1.5, 10**9, "memory"), (1.5, 10**12, "memory"), (4.0, 10**12, "arithmetic"), (4.0, 10**9, "latency")],
)
def test_on_a_gpu_its_memory_is_asked_first(ms: float, operations: int, bound: str) -> None:
    kernel = KernelTime("proto_net.0", "CaskConvolution", "float16", ms, 100_000_000, operations)
    document = profile_document([kernel], 100.0)
    assert document["blocks"][0]["bound_by"] == bound
    assert document["memory_gb_per_s"] == 100


def test_a_network_with_a_float16_input(tmp_path: Path) -> None:
    onnx.save(to_float16(float_network(), half_input=True, half_outputs=True).model, tmp_path / "model.onnx")
    kernels = profile_network(ModelFile.read(tmp_path / "model.onnx"), MANIFEST.input, num_threads=1)
    assert "box head" in {kernel.block for kernel in kernels}


def test_kernels_of_a_real_network_belong_to_its_parts(tmp_path: Path) -> None:
    model = float_network()
    parts = NetworkGraph(model).parts
    onnx.save(model, tmp_path / "new.onnx")
    for node in model.graph.node:
        node.ClearField("metadata_props")
    onnx.save(model, tmp_path / "old.onnx")
    for name in ("new", "old"):
        kernels = profile_network(ModelFile.read(tmp_path / f"{name}.onnx"), MANIFEST.input, num_threads=1)
        assert {kernel.block for kernel in kernels} - {CONVERSIONS} == set(parts.values())
        assert {"stem", "res2", "fpn upsample", "protonet", "class head"} <= set(parts.values())


def test_a_kernel_of_no_node_is_told_apart() -> None:
    kernels = read_kernels([event("Memcpy_1", "MemcpyToHost", 5, 0)], 0, {}, PARTS)
    assert [kernel.block for kernel in kernels] == ["other"]


def test_a_real_network(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "small.bundle", [Thing((0.1, 0.1, 0.5, 0.5))])
    kernels = profile_network(ModelFile.read(folder / "model.fp32.onnx"), small_manifest().input, num_threads=1)
    assert kernels
    document = profile_document(kernels)
    assert sum(block["share"] for block in document["blocks"]) == pytest.approx(1, abs=0.01)
    assert profile_document([])["suggestions"] == []
