import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.errors import ShapeError
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.registry import CONFIGS
from yolact_export.model.widths import check_flow, fit_widths, make_skeleton

SMALL = dataclasses.replace(
    CONFIGS["yolact_small"], backbone=SmallResNetConfig(16), fpn_channels=64, input_height=64, input_width=64
)


def shapes_of(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def prune(shapes, name, width):
    """Narrow the output of a convolution inside a block, with its batch norm and the layer that reads it."""
    pruned = dict(shapes)
    block, conv = name.rsplit(".", 1)
    index = int(conv.removeprefix("conv"))
    pruned[f"{name}.weight"] = (width, *shapes[f"{name}.weight"][1:])
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        pruned[f"{block}.bn{index}.{leaf}"] = (width,)
    after = f"{block}.conv{index + 1}.weight"
    pruned[after] = (shapes[after][0], width, *shapes[after][2:])
    return pruned


def test_standard_widths_change_nothing():
    model = make_skeleton(SMALL)
    assert fit_widths(model, shapes_of(model)) == []


@examples(15)
@given(stage=st.integers(0, 3), block=st.integers(0, 1), width=st.integers(1, 300))
def test_any_inner_width_fits(stage, block, width):
    model = make_skeleton(SMALL)
    shapes = prune(shapes_of(model), f"backbone.layers.{stage}.{block}.conv1", width)
    fit_widths(model, shapes)
    assert shapes_of(model) == shapes
    check_flow(model)


def test_depthwise_convolutions_keep_one_group_per_channel():
    model = make_skeleton(dataclasses.replace(CONFIGS["yolact_lite0"], input_height=64, input_width=64))
    shapes = shapes_of(model)
    block = "backbone.blocks.3"
    for key in ("expand_conv", "depthwise_conv", "bn0", "bn1"):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            if (name := f"{block}.{key}.{leaf}") in shapes:
                shapes[name] = (50, *shapes[name][1:])
    shapes[f"{block}.project_conv.weight"] = (40, 50, 1, 1)
    changed = fit_widths(model, shapes)
    assert f"{block}.depthwise_conv" in changed
    assert model.backbone.blocks[3].depthwise_conv.groups == 50
    assert shapes_of(model) == shapes
    check_flow(model)


def test_deformable_convolutions_fit():
    config = dataclasses.replace(CONFIGS["yolact_plus_resnet50"], input_height=64, input_width=64)
    model = make_skeleton(config)
    shapes = prune(shapes_of(model), "backbone.layers.1.2.conv1", 99)
    shapes["backbone.layers.1.2.conv2.conv_offset_mask.weight"] = (27, 99, 3, 3)
    fit_widths(model, shapes)
    assert shapes_of(model) == shapes
    check_flow(model)


def test_layers_that_do_not_fit_together_are_named():
    model = make_skeleton(SMALL)
    shapes = shapes_of(model)
    shapes["backbone.layers.1.0.conv1.weight"] = (24, 16, 3, 3)
    fit_widths(model, shapes)
    with pytest.raises(ShapeError, match=r"backbone\.layers\.1\.0\.bn1 expects 32 channels, but receives 24"):
        check_flow(model)


def test_sums_of_different_widths_are_refused():
    model = make_skeleton(SMALL)
    shapes = shapes_of(model)
    shapes["backbone.layers.1.1.conv2.weight"] = (30, 32, 3, 3)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"backbone.layers.1.1.bn2.{leaf}"] = (30,)
    fit_widths(model, shapes)
    with pytest.raises(ShapeError, match="do not fit together"):
        check_flow(model)


def test_other_kernels_are_left_for_the_comparison_of_shapes():
    model = make_skeleton(SMALL)
    shapes = {**shapes_of(model), "backbone.conv1.weight": (16, 3, 7, 7)}
    assert fit_widths(model, shapes) == []
    assert model.backbone.conv1.weight.shape == (16, 3, 3, 3)


def test_checking_leaves_no_hooks_behind():
    model = make_skeleton(SMALL)
    check_flow(model)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.device == torch.device("meta") for parameter in model.parameters())
