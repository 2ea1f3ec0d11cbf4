import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from support.pruning import FAMILIES, SMALL, random_model
from yolact_calibration.errors import MissingDependencyError, PruningError
from yolact_calibration.pruning.channel_groups import WidthGrid, find_channel_groups

PROMISED = {
    "prediction_layers.0.bbox_layer",
    "prediction_layers.0.conf_layer",
    "prediction_layers.0.mask_layer",
    "proto_net.10",
    "semantic_seg_conv",
}


@given(
    width=st.integers(1, 2048),
    round_to=st.sampled_from([1, 4, 8, 16]),
    share=st.floats(0.01, 1.0),
    max_widths=st.integers(2, 12),
)
def test_widths_are_few_multiples_above_the_least_share(width, round_to, share, max_widths):
    widths = WidthGrid(round_to, share, max_widths).of(width)
    assert widths[-1] == width
    assert list(widths) == sorted(set(widths))
    assert len(widths) <= max_widths
    assert all(narrow % round_to == 0 and narrow >= max(share * width - 1e-6, round_to) for narrow in widths[:-1])


def test_widths_by_hand():
    assert WidthGrid(8).of(64) == (16, 24, 32, 40, 48, 56, 64)
    assert WidthGrid(16).of(40) == (16, 32, 40)
    assert WidthGrid(8).of(8) == (8,)
    assert WidthGrid(8, max_widths=4).of(256) == (64, 128, 192, 256)


@pytest.mark.parametrize("options", [{"round_to": 0}, {"min_share": 0.0}, {"min_share": 1.5}, {"max_widths": 1}])
def test_senseless_grids_are_refused(options):
    with pytest.raises(PruningError, match="round_to must be at least 1"):
        WidthGrid(**options)


def test_the_pyramid_is_two_groups():
    groups = {group.name: group for group in find_channel_groups(random_model(SMALL))}
    laterals = groups["fpn.lat_layers.0"]
    assert laterals.producers == ("fpn.lat_layers.0", "fpn.lat_layers.1", "fpn.lat_layers.2")
    assert laterals.consumers == ("fpn.pred_layers.0", "fpn.pred_layers.1", "fpn.pred_layers.2")
    levels = groups["fpn.pred_layers.0"]
    assert levels.producers == (
        *laterals.consumers,
        "fpn.downsample_layers.0",
        "fpn.downsample_layers.1",
    )
    assert set(levels.consumers) == {
        "fpn.downsample_layers.0",
        "fpn.downsample_layers.1",
        "proto_net.0",
        "prediction_layers.0.upfeature.0",
        "semantic_seg_conv",
    }


def test_a_residual_stage_is_one_group():
    groups = {group.name: group for group in find_channel_groups(random_model(SMALL))}
    stage = groups["backbone.layers.2.0.conv2"]
    assert stage.width == 64
    assert set(stage.producers) == {
        "backbone.layers.2.0.conv2",
        "backbone.layers.2.0.downsample.0",
        "backbone.layers.2.1.conv2",
    }
    assert set(stage.consumers) == {
        "backbone.layers.2.1.conv1",
        "backbone.layers.3.0.conv1",
        "backbone.layers.3.0.downsample.0",
        "fpn.lat_layers.1",
    }
    assert len(stage.norms) == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_that_inference_computes_is_in_a_group_or_promised(name):
    model = random_model(FAMILIES[name])
    groups = find_channel_groups(model, WidthGrid(4, 0.1))
    writers = [layer for group in groups for layer in group.producers]
    assert len(writers) == len(set(writers))
    assert not PROMISED & set(writers)
    ran = set()
    handles = [
        module.register_forward_hook(lambda module, *_: ran.add(module))
        for module in model.modules()
        if isinstance(module, nn.Conv2d) or hasattr(module, "conv_offset_mask")
    ]
    levels = model.features(torch.zeros(1, 3, 64, 64))
    model.predict(levels)
    model.semantic_logit(levels)
    for handle in handles:
        handle.remove()
    names = {layer for layer, module in model.named_modules() if module in ran}
    names = {layer for layer in names if not layer.endswith("conv_offset_mask")}
    depthwise = {layer for group in groups for layer in group.depthwise}
    assert set(writers) | PROMISED | depthwise == names
    first = {layer for layer in names if getattr(model.get_submodule(layer), "in_channels", 0) == 3}
    assert {layer for group in groups for layer in group.consumers if "offset" not in layer} == (
        (names - depthwise) - first
    )


def test_offsets_read_what_their_convolution_reads():
    groups = find_channel_groups(random_model(FAMILIES["yolact_plus_resnet50"]))
    inner = next(group for group in groups if group.name == "backbone.layers.1.0.conv1")
    assert inner.consumers == ("backbone.layers.1.0.conv2", "backbone.layers.1.0.conv2.conv_offset_mask")


def test_depthwise_layers_pass_their_channels_on():
    groups = find_channel_groups(random_model(FAMILIES["yolact_lite0"]))
    hidden = next(group for group in groups if group.name == "backbone.blocks.5.expand_conv")
    assert hidden.producers == ("backbone.blocks.5.expand_conv",)
    assert hidden.depthwise == ("backbone.blocks.5.depthwise_conv",)
    assert hidden.consumers == ("backbone.blocks.5.project_conv",)
    assert len(hidden.norms) == 2


def test_only_the_parts_that_were_asked_for():
    groups = find_channel_groups(random_model(SMALL), blocks=("proto_net",))
    assert [group.name for group in groups] == ["proto_net.0", "proto_net.2", "proto_net.4", "proto_net.8"]


def test_tracing_leaves_the_model_as_it_was():
    model = random_model(SMALL).requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        find_channel_groups(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_unknown_parts_are_named():
    with pytest.raises(PruningError, match=r"\['neck'\]; choose from backbone, fpn"):
        find_channel_groups(random_model(SMALL), blocks=("neck", "fpn"))


def test_nothing_to_remove_is_said():
    with pytest.raises(PruningError, match="no layer in them is wider than 512"):
        find_channel_groups(random_model(SMALL), WidthGrid(512))


def test_other_models_are_refused():
    with pytest.raises(
        PruningError, match="cannot trace the channels of this model through its layers: AttributeError"
    ):
        find_channel_groups(nn.Conv2d(3, 64, 3))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingDependencyError, match="torch-pruning"):
        find_channel_groups(random_model(SMALL))
