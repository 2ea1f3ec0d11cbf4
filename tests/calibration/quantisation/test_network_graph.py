"""What is read off an exported graph."""

from __future__ import annotations

import pytest

from support.pruning import FAMILIES
from support.quantised import float_network
from yolact_calibration.errors import CalibrationError
from yolact_calibration.quantisation.network_graph import FINAL_GROUPS, NetworkGraph, part_of, write_part
from yolact_export.graph.export import ExportOptions, export_network

HEAD_AND_NECK = {
    "fpn lateral": 3,
    "fpn prediction": 3,
    "fpn downsample": 2,
    "protonet": 5,
    "upfeature": 5,
    **dict.fromkeys(FINAL_GROUPS, 5),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_convolution_belongs_to_a_part_of_the_model(family: str) -> None:
    graph = NetworkGraph(float_network(family))
    sizes = {group: len(members) for group, members in graph.groups.items()}
    assert {group: sizes[group] for group in HEAD_AND_NECK} == HEAD_AND_NECK
    assert sum(sizes.values()) == sum(node.op_type == "Conv" for node in graph.nodes)
    assert sizes["stem"] == 1
    assert 4 <= len(sizes) - len(HEAD_AND_NECK) <= 8


def test_groups_of_the_published_resnet_50() -> None:
    graph = NetworkGraph(float_network("yolact_resnet50"))
    sizes = {group: len(members) for group, members in graph.groups.items()}
    assert [sizes[f"res{stage}"] for stage in (2, 3, 4, 5)] == [10, 13, 19, 10]
    assert len(graph.convolutions) == 86


def test_the_offsets_of_yolact_plus_are_a_part_of_their_own() -> None:
    sizes = {group: len(m) for group, m in NetworkGraph(float_network("yolact_plus_resnet50")).groups.items()}
    assert sizes["deformable offsets"] == 13
    assert [sizes[f"res{stage}"] for stage in (2, 3, 4, 5)] == [10, 13, 19, 10]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_network_of_an_earlier_release_has_the_same_parts(family: str) -> None:
    model = float_network(family)
    written = NetworkGraph(model).parts
    assert set(written) == {node.name for node in model.graph.node}
    for node in model.graph.node:
        assert part_of(node) == written[node.name]
        node.ClearField("metadata_props")
    assert NetworkGraph(model).parts == written
    # A tool that keeps only some of them.
    write_part(model.graph.node[0], "mine")
    assert NetworkGraph(model).parts == {**written, model.graph.node[0].name: "mine"}


def test_work_is_counted_as_the_specification_does() -> None:
    # 59.1 GMAC at 550 pixels, of which the protonet has 19.8: the specification's table.
    from yolact_export.model.registry import find_config
    from yolact_export.model.yolact import create_model

    model = export_network(create_model(find_config("yolact_resnet50")).eval())
    graph = NetworkGraph(model)
    work = {group: sum(c.macs for c in members) / 1e9 for group, members in graph.groups.items()}
    assert sum(work.values()) == pytest.approx(59.1, abs=0.05)
    assert work["protonet"] == pytest.approx(19.8, abs=0.05)


def test_depthwise_convolutions_are_told_apart() -> None:
    graph = NetworkGraph(float_network("yolact_lite0"))
    depthwise = [c.name for c in graph.convolutions if c.is_depthwise]
    assert depthwise
    assert all(name.endswith("depthwise_conv") for name in depthwise)


def test_a_dynamic_batch_counts_as_one() -> None:
    from support.pruning import SMALL, random_model

    model = export_network(random_model(SMALL), ExportOptions(dynamic_batch=True))
    assert NetworkGraph(model).shape("image") == (1, 3, 64, 64)


def test_a_graph_without_shapes_is_refused() -> None:
    model = float_network()
    model.graph.value_info[3].type.tensor_type.shape.dim[2].ClearField("dim_value")
    with pytest.raises(CalibrationError, match="no static shape"):
        NetworkGraph(model)
