import dataclasses

import pytest
import torch

from support.pruning import FAMILIES, SMALL, random_image, random_model
from yolact_calibration.pruning.layer_shape import LayerShape, trace_layers
from yolact_export.model.registry import CONFIGS
from yolact_export.model.widths import make_skeleton

DENSE = LayerShape(16, 32, (3, 3), (2, 2), 1, (64, 48), (32, 24))
DEPTHWISE = LayerShape(32, 32, (5, 5), (1, 1), 32, (10, 10), (10, 10))


def test_multiplications_by_hand():
    assert DENSE.macs == 32 * 16 * 9 * 32 * 24
    assert DEPTHWISE.macs == 32 * 25 * 100


def test_other_widths():
    assert DENSE.with_channels(8, 24) == dataclasses.replace(DENSE, in_channels=8, out_channels=24)
    assert DEPTHWISE.with_channels(8, 8) == dataclasses.replace(DEPTHWISE, in_channels=8, out_channels=8, groups=8)


@pytest.mark.parametrize(
    "change",
    [
        {"in_channels": 17},
        {"out_channels": 33},
        {"kernel_size": (3, 1)},
        {"stride": (1, 2)},
        {"groups": 16},
        {"in_size": (48, 64)},
        {"out_size": (24, 32)},
        {"deformable": True},
    ],
)
def test_keys_tell_shapes_apart(change):
    assert dataclasses.replace(DENSE, **change).key != DENSE.key


def test_keys_are_for_people():
    assert DENSE.key == "conv 16>32 kernel 3x3 stride 2x2 groups 1 map 64x48>32x24"


# Section 2 of the specification: billions of multiplications of the published models, counted on the original.
@pytest.mark.parametrize(
    ("name", "gmacs"), [("yolact_resnet50", 59.1), ("yolact_darknet53", 77.4), ("yolact_plus_resnet50", 70.7)]
)
def test_multiplications_are_those_of_the_published_models(name, gmacs):
    config = CONFIGS[name]
    image = torch.zeros(1, 3, config.input_height, config.input_width, device="meta")
    calls = trace_layers(make_skeleton(config), image)
    assert sum(call.shape.macs for call in calls) / 1e9 == pytest.approx(gmacs, abs=0.06)


def test_the_head_is_called_for_each_level():
    calls = trace_layers(random_model(SMALL), random_image(SMALL))
    sizes = [call.shape.out_size for call in calls if call.name == "prediction_layers.0.upfeature.0"]
    assert sizes == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    assert {call.block for call in calls} == {"backbone", "fpn", "proto_net", "prediction_layers"}


def test_deformable_layers_and_their_offsets_are_two_layers():
    calls = {
        call.name: call.shape
        for call in trace_layers(random_model(FAMILIES["yolact_plus_resnet50"]), torch.zeros(1, 3, 64, 64))
    }
    layer = calls["backbone.layers.1.0.conv2"]
    assert layer.deformable
    assert (layer.stride, layer.in_size, layer.out_size) == ((2, 2), (16, 16), (8, 8))
    offsets = calls["backbone.layers.1.0.conv2.conv_offset_mask"]
    assert not offsets.deformable
    assert offsets.out_channels == 27


def test_tracing_leaves_no_hooks():
    model = random_model(SMALL)
    trace_layers(model, random_image(SMALL))
    assert not any(module._forward_hooks for module in model.modules())
