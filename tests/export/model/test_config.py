import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.configs import OWN, PUBLISHED, YOLACT_EDGE
from support.properties import examples
from yolact_export.errors import ConfigError
from yolact_export.model import class_names
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.registry import CONFIGS, find_config
from yolact_export.model.yolact import Yolact
from yolact_runtime.cpu.priors import make_priors

# Section 19 of the specification: number of priors, and the sums of cx, cy, w, h.
PRIOR_SUMS = {
    "yolact_resnet50": (19248, 9624.0, 9624.0, 1301.4203, 1301.4203),
    "yolact_base": (19248, 9624.0, 9624.0, 1301.4203, 1301.4203),
    "yolact_darknet53": (19248, 9624.0, 9624.0, 1301.4203, 1301.4203),
    "yolact_im700": (30963, 15481.5, 15481.5, 2035.7965, 2035.7965),
    "yolact_im400": (10077, 5038.5, 5038.5, 676.4369, 676.4369),
    "yolact_resnet50_pascal": (19248, 9624.0, 9624.0, 1735.2271, 1735.2271),
    "yolact_plus_resnet50": (57744, 28872.0, 28872.0, 5006.9832, 5006.9832),
    "yolact_plus_base": (57744, 28872.0, 28872.0, 5006.9832, 5006.9832),
}
# Width and height of single priors.
PRIOR_SIDES = [
    ("yolact_base", 0, 0.04363636, 0.04363636),
    ("yolact_base", 1, 0.03085557, 0.03085557),
    ("yolact_base", 2, 0.06171114, 0.06171114),
    ("yolact_base", -1, 0.98737818, 0.98737818),
    ("yolact_resnet50_pascal", 1, 0.04114076, 0.08228152),
    ("yolact_resnet50_pascal", -1, 1.31650424, 0.65825212),
    ("yolact_plus_base", 1, 0.03085557, 0.06171114),
    ("yolact_plus_base", 3, 0.05497837, 0.05497837),
    ("yolact_plus_base", -1, 1.56736517, 0.78368258),
]


def priors_of(name):
    config = PUBLISHED[name]
    return make_priors(config.prior_spec(), config.input_height, config.input_width)


@pytest.mark.parametrize("name", PUBLISHED)
def test_priors_have_the_published_number_and_sums(name):
    priors = priors_of(name)
    count, *sums = PRIOR_SUMS[name]
    assert priors.shape == (count, 4)
    assert PUBLISHED[name].prior_spec().num_priors == count
    np.testing.assert_allclose(priors.sum(axis=0, dtype=np.float64), sums, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("name", "index", "width", "height"), PRIOR_SIDES)
def test_single_priors_have_the_published_sides(name, index, width, height):
    np.testing.assert_allclose(priors_of(name)[index, 2:], [width, height], rtol=0, atol=1e-8 + 6e-8 * width)


def test_prior_centres_go_along_rows_first():
    priors = priors_of("yolact_base")
    np.testing.assert_allclose(priors[0, :2], 0.00724638, rtol=0, atol=1e-8)
    np.testing.assert_allclose(priors[3, :2], [0.02173913, 0.00724638], rtol=0, atol=1e-8)


@examples(10)
@given(height=st.integers(32, 300), width=st.integers(32, 300), kind=st.sampled_from(["small", *YOLACT_EDGE, *OWN]))
def test_feature_sizes_are_those_the_network_makes(height, width, kind):
    base = CONFIGS["yolact_small" if kind == "small" else kind]
    backbone = SmallResNetConfig(8) if kind == "small" else base.backbone
    config = dataclasses.replace(base, input_height=height, input_width=width, backbone=backbone)
    with torch.device("meta"):
        model = Yolact(config).eval()
        levels = model.features(torch.empty(1, 3, height, width))
        output = model.predict(levels)
    assert tuple(tuple(level.shape[2:]) for level in levels) == config.feature_sizes
    assert tuple(output.prototype.shape[2:]) == config.prototype_size
    assert output.box_regression.shape[1] == config.prior_spec().num_priors


def test_scales_of_other_sizes_are_truncated_to_whole_pixels():
    assert PUBLISHED["yolact_im700"].prior_scales_px == ((30.0,), (61.0,), (122.0,), (244.0,), (488.0,))
    assert PUBLISHED["yolact_im400"].prior_scales_px == ((17.0,), (34.0,), (69.0,), (139.0,), (279.0,))


def test_only_the_coco_models_of_yolact_have_square_priors():
    square = {name for name, config in PUBLISHED.items() if config.square_priors}
    assert square == {"yolact_resnet50", "yolact_base", "yolact_im400", "yolact_im700", "yolact_darknet53"}


def test_darknet_is_only_scaled():
    spec = PUBLISHED["yolact_darknet53"].input_spec()
    assert spec.mean_bgr == (0.0, 0.0, 0.0)
    assert spec.std_bgr == (255.0, 255.0, 255.0)
    assert spec.channel_order == "RGB"


def test_graph_that_normalises_takes_raw_frames():
    spec = PUBLISHED["yolact_base"].input_spec(normalised_in_graph=True)
    assert (spec.mean_bgr, spec.std_bgr, spec.channel_order) == ((0.0,) * 3, (1.0,) * 3, "BGR")
    assert (spec.height, spec.width) == (550, 550)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"yolact_bass.*yolact_base"):
        find_config("yolact_bass")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 1}, "num_classes"),
        ({"input_height": 16}, "16 x 550"),
        ({"prior_scales_px": ((24.0,),)}, "5 levels"),
        ({"prior_scales_px": ((24.0,), (48.0,), (96.0,), (192.0,), ())}, "equally many"),
        ({"prior_scales_px": ((0.0,), (48.0,), (96.0,), (192.0,), (384.0,))}, "above 0"),
    ],
)
def test_senseless_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PUBLISHED["yolact_base"], **change)


def test_class_names_are_complete_and_distinct():
    assert len(set(class_names.COCO)) == 80
    assert len(set(class_names.PASCAL)) == 20
    assert class_names.COCO[62] == "tv"
    assert list(class_names.PASCAL) == sorted(class_names.PASCAL)
    assert class_names.numbered(2) == ("class_1", "class_2")
