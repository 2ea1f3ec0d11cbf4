import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from support.configs import PUBLISHED
from support.goldens import CONFIG_NAMES, load_golden
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.fpn import Fpn
from yolact_export.model.mask_iou import MaskIouNet
from yolact_export.model.prediction_head import PredictionHead
from yolact_export.model.protonet import Protonet
from yolact_export.model.registry import CONFIGS
from yolact_export.model.widths import make_skeleton
from yolact_export.model.yolact import create_model

# Table 10.1 of the specification: entries, parameters, parameters of the backbone, batch norms.
COUNTS = {
    "yolact_resnet50": (354, 31_164_943, 23_508_032, 53),
    "yolact_base": (660, 50_157_071, 42_500_160, 104),
    "yolact_im700": (660, 50_157_071, 42_500_160, 104),
    "yolact_im400": (660, 50_157_071, 42_500_160, 104),
    "yolact_darknet53": (348, 47_783_087, 40_584_928, 52),
    "yolact_resnet50_pascal": (354, 30_734_623, 23_508_032, 53),
    "yolact_plus_resnet50": (405, 33_766_460, 24_382_879, 53),
    "yolact_plus_base": (705, 52_571_142, 43_187_561, 104),
}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_have_the_published_counts(name):
    model = make_skeleton(PUBLISHED[name])
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert (len(model.state_dict()), count(model), count(model.backbone), norms) == COUNTS[name]


def test_parts_have_the_published_counts():
    model, plus = make_skeleton(PUBLISHED["yolact_base"]), make_skeleton(PUBLISHED["yolact_plus_base"])
    assert count(model.fpn) == 3_868_672
    assert count(make_skeleton(PUBLISHED["yolact_darknet53"]).fpn) == 3_409_920
    assert count(model.proto_net) == 2_368_544
    assert count(model.prediction_layers) == 1_399_135
    assert count(plus.prediction_layers) == 3_017_245
    assert count(model.semantic_seg_conv) == 20_560
    assert plus.mask_iou is not None
    assert count(plus.mask_iou) == 108_560


@pytest.mark.parametrize("name", CONFIG_NAMES)
def test_keys_and_shapes_are_those_of_the_original(name):
    state = make_skeleton(PUBLISHED[name]).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == load_golden(name).document["keys"]


def test_deformable_blocks_of_the_deep_model_come_every_third_block():
    keys = make_skeleton(PUBLISHED["yolact_plus_base"]).state_dict()
    found = [tuple(map(int, key.split(".")[2:4])) for key in keys if key.endswith("conv_offset_mask.weight")]
    assert found == [(1, 0), (1, 3), *((2, block) for block in range(0, 23, 3)), (3, 0)]


def test_mobilenet_keys_are_those_of_torchvision_regrouped():
    keys = make_skeleton(CONFIGS["yolact_edge_mobilenetv2"]).state_dict()
    expected = [
        "layers.0.0.weight",
        "layers.0.1.running_mean",
        "layers.1.0.conv.0.0.weight",
        "layers.1.0.conv.1.weight",
        "layers.1.0.conv.2.weight",
        "layers.2.0.conv.0.0.weight",
        "layers.2.1.conv.1.0.weight",
        "layers.2.1.conv.2.weight",
        "layers.2.1.conv.3.running_var",
        "layers.8.0.weight",
        "layers.8.1.weight",
    ]
    assert not [key for key in expected if f"backbone.{key}" not in keys]


def identity_pyramid(channels=1):
    """A pyramid whose convolutions pass their input on."""
    fpn = Fpn((channels,) * 3, channels)
    for module in fpn.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)
    return fpn.eval()


def test_pyramid_convolutions_are_stored_coarsest_first():
    fpn = identity_pyramid()
    for index, value in enumerate((100.0, 10.0, 1.0)):
        nn.init.constant_(fpn.lat_layers[index].bias, value)
    features = tuple(torch.zeros(1, 1, size, size) for size in (9, 5, 3))
    p3, p4, p5, *_ = fpn(features)
    assert (p5.mean(), p4.mean(), p3.mean()) == (100.0, 110.0, 111.0)
    nn.init.constant_(fpn.pred_layers[0].bias, 0.5)
    assert fpn(features)[2].mean() == 100.5


def test_coarse_levels_have_no_relu_and_read_p5_after_its_relu():
    fpn = identity_pyramid()
    features = tuple(torch.zeros(1, 1, size, size) for size in (9, 5, 3))
    nn.init.constant_(fpn.downsample_layers[0].bias, -2.0)
    nn.init.constant_(fpn.downsample_layers[1].bias, -3.0)
    nn.init.constant_(fpn.pred_layers[0].bias, -7.0)
    *_, p5, p6, p7 = fpn(features)
    assert p5.unique().tolist() == [0.0]
    assert p6.unique().tolist() == [-2.0]
    assert p7.unique().tolist() == [-5.0]


def test_pyramid_upsamples_to_odd_sizes_with_half_pixel_centres():
    fpn = identity_pyramid()
    c5 = torch.rand(1, 1, 18, 17)
    features = (torch.zeros(1, 1, 69, 68), torch.zeros(1, 1, 35, 34), c5)
    expected = functional.interpolate(c5, size=(35, 34), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fpn(features)[1], expected, rtol=0, atol=0)


def test_top_down_path_carries_values_from_before_the_output_convolution():
    fpn = identity_pyramid()
    nn.init.constant_(fpn.pred_layers[0].bias, 50.0)
    features = (torch.zeros(1, 1, 9, 9), torch.zeros(1, 1, 5, 5), torch.ones(1, 1, 3, 3))
    assert fpn(features)[1].unique().tolist() == [1.0]


def test_protonet_doubles_with_half_pixel_centres_and_ends_in_relu():
    net = Protonet(1, 2).eval()
    for module in net:
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.constant_(net[10].weight, 1.0)
    nn.init.constant_(net[10].bias, -0.5)
    p3 = torch.rand(1, 1, 4, 5)
    doubled = functional.interpolate(p3, size=(8, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(p3), (doubled - 0.5).clamp(min=0).expand(-1, 2, -1, -1), rtol=0, atol=1e-6)
    assert [index for index, module in enumerate(net) if list(module.parameters())] == [0, 2, 4, 8, 10]


def test_head_rows_go_over_rows_columns_and_priors_of_a_cell():
    head = PredictionHead(2, priors_per_cell=3, num_classes=5, num_prototypes=4).eval()
    level = torch.randn(2, 2, 3, 4)
    with torch.no_grad():
        box, logit, coefficient = head(level)
        feature = head.upfeature(level)
        expected = head.conf_layer(feature)
        linear = head.mask_layer(feature)
    assert box.shape == (2, 36, 4)
    for y, x, prior, channel in [(0, 0, 0, 0), (0, 1, 2, 3), (2, 3, 1, 4)]:
        row = (y * 4 + x) * 3 + prior
        assert logit[1, row, channel] == expected[1, prior * 5 + channel, y, x]
    assert coefficient[0, 5, 1] == linear[0, 2 * 4 + 1, 0, 1].tanh()


def test_mask_iou_halves_without_padding():
    net = MaskIouNet(3).eval()
    sides = []
    for module in net.maskiou_net:
        module.register_forward_hook(lambda _module, _inputs, output: sides.append(output.shape[-1]))
    with torch.no_grad():
        assert net(torch.rand(2, 1, 138, 138)).shape == (2, 3)
    assert sides[::2] == [68, 33, 16, 7, 3, 3]


def test_mask_iou_takes_the_maximum_after_a_relu():
    net = MaskIouNet(2).eval()
    last = net.maskiou_net[10]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([-1.0, 0.25])
    assert net(torch.rand(1, 1, 63, 63)).tolist() == [[0.0, 0.25]]
    nn.init.ones_(last.weight)
    with torch.no_grad():
        mask = torch.rand(1, 1, 138, 138)
        feature = net.maskiou_net(mask)
        torch.testing.assert_close(net(mask), feature.flatten(2).max(dim=2).values, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["yolact_plus_resnet50", "yolact_darknet53", "yolact_lite0", "yolact_small"])
def test_rectangular_inputs_run(narrow_model, name):
    model = narrow_model(name, 65, 130)
    with torch.no_grad():
        output = model(torch.rand(2, 3, 65, 130))
    num_priors = model.config.prior_spec().num_priors
    assert output.box_regression.shape == (2, num_priors, 4)
    assert output.class_logit.shape == (2, num_priors, model.config.num_classes)
    assert output.mask_coefficient.shape == (2, num_priors, 32)
    assert output.prototype.shape == (2, 32, *model.config.prototype_size)


def test_semantic_head_is_not_part_of_the_forward_pass(narrow_model):
    model = narrow_model("yolact_small")
    model.semantic_seg_conv.weight.data.fill_(float("nan"))
    with torch.no_grad():
        assert all(torch.isfinite(output).all() for output in model(torch.rand(1, 3, 64, 64)))
        levels = model.features(torch.rand(1, 3, 64, 64))
        assert model.semantic_logit(levels).shape == (1, 80, 8, 8)


def test_mobilenet_never_computes_the_classifier_head(narrow_model):
    model = narrow_model("yolact_edge_mobilenetv2")
    model.backbone.layers[8][0].weight.data.fill_(float("nan"))
    with torch.no_grad():
        assert all(torch.isfinite(output).all() for output in model(torch.rand(1, 3, 64, 64)))


@pytest.mark.parametrize("width", [16, 24])
def test_fresh_small_model_learns(width):
    torch.manual_seed(0)
    config = dataclasses.replace(
        CONFIGS["yolact_small"],
        backbone=SmallResNetConfig(width),
        fpn_channels=64,
        num_classes=2,
        input_height=64,
        input_width=64,
    )
    model = create_model(config).train()
    output = model(torch.rand(2, 3, 64, 64))
    sum(part.square().mean() for part in output).backward()
    unused = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {"semantic_seg_conv"}
    assert model.mask_iou is None


def test_fresh_deformable_block_starts_at_the_taps_of_a_plain_convolution():
    model = create_model(dataclasses.replace(PUBLISHED["yolact_plus_resnet50"], fpn_channels=16, num_classes=2))
    offsets = [value for key, value in model.named_parameters() if "conv_offset_mask" in key]
    assert len(offsets) == 26
    assert not any(value.any() for value in offsets)
