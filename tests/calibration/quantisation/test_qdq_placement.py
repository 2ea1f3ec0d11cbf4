"""Where the rounding goes, by the rules that the two backends need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.pruning import FAMILIES
from support.quantised import float_network
from yolact_calibration.quantisation.network_graph import NetworkGraph
from yolact_calibration.quantisation.qdq_placement import Dialect, place, quantisable_tensors

FAMILY = st.sampled_from(list(FAMILIES))


def graph_of(family: str = "yolact_small") -> NetworkGraph:
    return NetworkGraph(float_network(family))


def all_names(graph: NetworkGraph) -> list[str]:
    return [convolution.name for convolution in graph.convolutions]


@examples(25)
@given(family=FAMILY, seed=st.integers(0, 10**6))
def test_tensorrt_rounds_what_int8_convolutions_read_and_skip_inputs_only(family: str, seed: int) -> None:
    import random

    graph = graph_of(family)
    names = all_names(graph)
    chosen = set(random.Random(seed).sample(names, len(names) // 2))
    placement = place(graph, chosen, Dialect.TENSORRT)
    nodes = {node.name: node for node in graph.nodes}
    for reader, tensor in placement.reads:
        node = nodes[reader]
        if node.op_type == "Conv":
            assert reader in chosen
            assert tensor == node.input[0]
        elif node.op_type == "Add":
            # Never what the INT8 convolution of this sum made: that would stop their fusion.
            other = next(name for name in node.input if name != tensor)
            assert graph.producer[other].name in chosen
        else:
            assert node.op_type == "Resize"
    assert {reader for reader, _ in placement.reads if nodes[reader].op_type == "Conv"} == chosen
    assert not placement.rounded_outputs


def test_tensorrt_rounds_the_skip_of_every_residual_sum() -> None:
    graph = graph_of("yolact_resnet50")
    reads = place(graph, all_names(graph), Dialect.TENSORRT).reads
    block = "backbone.layers.1"
    # With a downsampling convolution, its result; without, what the block read.
    assert (f"{block}.0.add", f"{block}.0.downsample.0") in reads
    assert (f"{block}.1.add", f"{block}.0.relu") in reads
    assert (f"{block}.1.add", f"{block}.1.conv3") not in reads


def test_dialects_have_the_names_that_documents_hold() -> None:
    assert {dialect.value: dialect for dialect in Dialect} == {"tensorrt": Dialect.TENSORRT, "cpu": Dialect.CPU}


def test_a_resize_before_a_rounding_is_rounded_once() -> None:
    graph = graph_of()
    placement = place(graph, all_names(graph), Dialect.TENSORRT)
    assert placement.tensors["fpn.resize.P3"] == "fpn.add.P4"
    assert placement.tensors["proto_net.6"] == "proto_net.5"
    assert ("fpn.resize.P3", "fpn.add.P4") in placement.reads


def test_the_shared_head_has_a_scale_for_every_level() -> None:
    graph = graph_of()
    tensors = place(graph, all_names(graph), Dialect.TENSORRT).tensors
    levels = [f"prediction_layers.0.upfeature.1.P{level}" for level in range(3, 8)]
    assert all(tensors[name] == name for name in levels)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_nothing_is_rounded_around_concatenations(dialect: Dialect) -> None:
    graph = graph_of()
    placement = place(graph, all_names(graph), dialect)
    around = {name for node in graph.nodes if node.op_type == "Concat" for name in (*node.input, *node.output)}
    assert not around & set(placement.tensors)


def test_the_cpu_rounds_sums_after_their_relu_and_both_their_inputs() -> None:
    graph = graph_of("yolact_resnet50")
    placement = place(graph, all_names(graph), Dialect.CPU)
    add = "backbone.layers.1.1.add"
    assert {tensor for reader, tensor in placement.reads if reader == add} == {
        "backbone.layers.1.1.conv3",
        "backbone.layers.1.0.relu",
    }
    assert add not in placement.tensors
    assert "backbone.layers.1.1.relu" in placement.tensors
    # Moving values needs no scale of its own.
    assert placement.tensors["backbone.maxpool"] == "backbone.relu"
    assert placement.rounded_outputs == {"prototype"}


@examples(25)
@given(family=FAMILY, seed=st.integers(0, 10**6))
def test_the_cpu_leaves_no_way_around_an_integer_kernel(family: str, seed: int) -> None:
    import random

    graph = graph_of(family)
    names = all_names(graph)
    chosen = set(random.Random(seed).sample(names, len(names) // 2))
    placement = place(graph, chosen, Dialect.CPU)
    made = {name for name in placement.tensors if name in graph.producer and graph.producer[name].name in chosen}
    assert made
    for tensor in made:
        assert {(reader.name, tensor) for reader in graph.consumers.get(tensor, ())} <= placement.reads


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_calibration_observes_what_any_plan_needs(family: str) -> None:
    import random

    graph = graph_of(family)
    observed = set(quantisable_tensors(graph))
    names = all_names(graph)
    for seed in range(6):
        chosen = random.Random(seed).sample(names, 1 + seed * (len(names) - 1) // 5)
        for dialect in Dialect:
            assert set(place(graph, chosen, dialect).tensors.values()) <= observed


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_calibration_observes_both_sides_of_every_convolution(family: str) -> None:
    graph = graph_of(family)
    observed = set(quantisable_tensors(graph))
    assert observed >= {
        name for node in graph.nodes if node.op_type == "Conv" for name in (node.input[0], *node.output)
    }


def test_the_cpu_resizes_what_is_rounded() -> None:
    graph = graph_of()
    placement = place(graph, all_names(graph), Dialect.CPU)
    for resize, tensor in (("fpn.resize.P4", "fpn.lat_layers.0"), ("proto_net.6", "proto_net.5")):
        assert placement.tensors[resize] == tensor
        assert (resize, tensor) in placement.reads


@pytest.mark.parametrize("dialect", list(Dialect))
def test_no_plan_rounds_nothing(dialect: Dialect) -> None:
    placement = place(graph_of(), [], dialect)
    assert not placement.tensors
    assert not placement.reads
