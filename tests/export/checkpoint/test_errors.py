"""Files and options that must be refused, with a message that says what was found and what to do."""

import os
import re

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.keys import list_some
from yolact_export.errors import CheckpointError, ConfigError


def refuse(path, *parts, options=None):
    """Loading fails, every part is in the message, and nothing is written."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else None
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, options)
    message = str(caught.value)
    for part in (str(path), *parts):
        assert re.search(part, message), (part, message)
    if before is not None:
        assert sorted(path.parent.iterdir()) == before
    return message


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_missing_file(tmp_path):
    refuse(tmp_path / "none.pth", "No such file")


def test_folder(tmp_path):
    refuse(tmp_path, "a folder without a .pth file; give the checkpoint itself")


def test_empty_file(tmp_path):
    path = tmp_path / "model.pth"
    path.touch()
    refuse(path, "empty")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_truncated_file(narrow_state, save, zipped, kept):
    path = save(narrow_state("yolact_small"), zipped=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    refuse(path, "truncated", "copy it again")


@pytest.mark.parametrize("content", [b"hello, world" * 100, bytes(range(256)) * 9, b"PK\x03\x04" + bytes(500)])
def test_other_bytes(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    refuse(path, "not a PyTorch checkpoint")


def test_downloaded_web_page(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"<!DOCTYPE html><html>sign in</html>")
    refuse(path, "web page")


def test_git_lfs_pointer(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n")
    refuse(path, "git lfs pull")


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_never_run(save, tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = save({"state_dict": {}, "extra": Payload()}, zipped=zipped)
    refuse(path, "refused", r"torch\.save\(model\.state_dict\(\), path\)")
    assert not (tmp_path / "executed").exists()


def test_old_torch_is_refused(monkeypatch, narrow_state, save):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(CheckpointError, match=r"torch 2\.9\.1\+cpu.*2\.10 or newer.*CVE"):
        load_checkpoint(save(narrow_state("yolact_small")))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([torch.zeros(1)], "contains a list"),
        (torch.zeros(3), "contains a Tensor"),
        ({}, "the dict is empty"),
        ({"epoch": 3, "weights": {"a": torch.zeros(1)}}, r"not a YOLACT checkpoint.*1 entries \(a\)"),
        ({"state_dict": {"step": 4}}, "step"),
    ],
)
def test_no_state_dict(save, content, part):
    refuse(save(content), part)


@pytest.mark.parametrize(
    ("keys", "origin"),
    [
        (["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], "torchvision ResNet"),
        (["_conv_stem.weight", "_blocks.0._depthwise_conv.weight"], "EfficientNet classifier"),
        (["backbone.layer1.0.conv1.weight", "neck.lateral_convs.0.conv.weight", "bbox_head.x"], "mmdetection"),
        (["backbone.conv1.weight", "prediction_layers.0.coef_layer.0.weight"], "Yolact_minimal"),
        (["backbone.body.conv1.weight", "roi_heads.box_head.fc6.weight"], "Mask R-CNN"),
        (["encoder.weight"], "encoder.weight"),
    ],
)
def test_models_of_other_projects_are_named(save, keys, origin):
    refuse(save({key: torch.zeros(1) for key in keys}), "not a YOLACT checkpoint", origin, "dbolya/yolact")


def test_missing_and_unknown_keys_are_listed(narrow_state, save):
    state = narrow_state("yolact_resnet50")
    for key in [key for key in state if key.startswith("backbone.layers.1.2.")]:
        del state[key]
    state["ema.decay"] = torch.zeros(1)
    refuse(
        save(state, "yolact_resnet50_54_800000.pth"),
        r"18 missing \(backbone\.layers\.1\.2\.bn1\.bias",
        "and 8 more",
        r"1 unknown \(ema\.decay\)",
        "354 entries",
    )


def test_wrong_shapes_are_listed(narrow_state, save):
    state = narrow_state("yolact_resnet50")
    state["fpn.pred_layers.0.weight"] = torch.zeros(16, 16, 1, 1)
    state["backbone.layers.0.0.bn1.bias"] = torch.zeros(9)
    refuse(
        save(state, "yolact_resnet50.pth"),
        "2 tensors have the wrong shape",
        r"fpn\.pred_layers\.0\.weight \(16, 16, 1, 1\) instead of \(16, 16, 3, 3\)",
        r"bn1\.bias \(9,\) instead of \(4,\)",
    )


def test_widths_that_do_not_fit_together(narrow_state, save):
    state = narrow_state("yolact_resnet50")
    key = "backbone.layers.3.0.conv1.weight"
    state[key] = state[key][:, :-1].clone()
    refuse(save(state, "yolact_resnet50.pth"), r"backbone\.layers\.3\.0\.conv1 expects 63 channels, but receives 64")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(narrow_state, save, value):
    state = narrow_state("yolact_small")
    state["proto_net.2.weight"][0, 0, 0, 0] = value
    refuse(save(state), r"1 tensors contain NaN or infinity: proto_net\.2\.weight")


def test_negative_variance(narrow_state, save):
    state = narrow_state("yolact_small")
    state["backbone.bn1.running_var"][3] = -0.5
    refuse(save(state), r"variances are negative: backbone\.bn1\.running_var")


@pytest.mark.parametrize(
    ("state_of", "named", "parts"),
    [
        ("yolact_base", "yolact_resnet50", ("means ResNet-50", "of a ResNet-101")),
        ("yolact_resnet50", "yolact_darknet53", ("means DarkNet-53", "of a ResNet-50")),
        ("yolact_plus_base", "yolact_base", ("9 priors per cell in the tensors", "3 in yolact_base", "--prior-scales")),
    ],
)
def test_name_that_contradicts_the_tensors(narrow_state, save, state_of, named, parts):
    state = narrow_state(state_of)
    refuse(save(state, f"{named}_54_800000.pth"), *parts)
    refuse(save(state, "best.pth"), *parts, options=CheckpointOptions(config=named))


def test_unknown_config(narrow_state, save):
    with pytest.raises(ConfigError, match="yolact_bose"):
        load_checkpoint(save(narrow_state("yolact_small")), CheckpointOptions(config="yolact_bose"))


def test_prior_scales_of_another_number(narrow_state, save):
    options = CheckpointOptions(prior_scales=((1.0, 2.0),) * 5)
    refuse(save(narrow_state("yolact_small")), "3 priors per cell in the tensors, 6 in --prior-scales", options=options)


def test_wrong_number_of_class_names(narrow_state, save):
    options = CheckpointOptions(class_names=["a", "b"])
    refuse(save(narrow_state("yolact_small")), "80 classes without the background", "gives 2", options=options)


def test_unknown_backbone(narrow_state, save):
    state = {k: v for k, v in narrow_state("yolact_small").items() if not k.startswith("backbone.")}
    refuse(save(dict(state)), "the file has no backbone")
    state["backbone.features.0.weight"] = torch.zeros(1)
    refuse(save(state), "none of ResNet, DarkNet-53", r"backbone\.features\.0")


def test_head_whose_counts_contradict_each_other(narrow_state, save):
    state = narrow_state("yolact_small")
    state["prediction_layers.0.bbox_layer.weight"] = torch.zeros(10, 6, 3, 3)
    refuse(save(state), "10 box, 243 class and 96 coefficient channels")


def test_prototypes_that_do_not_match_the_head(narrow_state, save):
    state = narrow_state("yolact_small")
    state["proto_net.10.weight"] = torch.zeros(16, 6, 1, 1)
    refuse(save(state), "32 coefficients per prior and the prototype network 16")


def test_semantic_head_that_does_not_match(narrow_state, save):
    state = narrow_state("yolact_small")
    state["semantic_seg_conv.weight"] = torch.zeros(81, 6, 1, 1)
    refuse(save(state), "semantic_seg_conv 81 without it")


@pytest.mark.parametrize(
    "value", [torch.zeros(16, 16, 3, 3, dtype=torch.int8), torch.zeros(16, 16, 3, 3, dtype=torch.complex64)]
)
def test_values_that_are_not_floating_point(narrow_state, save, value):
    state = narrow_state("yolact_resnet50")
    state["fpn.pred_layers.0.weight"] = value
    refuse(save(state, "yolact_resnet50.pth"), r"not dense floating-point values: fpn\.pred_layers\.0\.weight")


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 155), shape=st.sampled_from([None, (), (0,), (7,), (3, 5), (2, 3, 1, 1), (1,) * 5]))
def test_damage_to_any_one_tensor_is_a_checkpoint_error(small_state, save, position, shape):
    state = dict(small_state)
    key = sorted(state)[position]
    if shape is None:
        del state[key]
    else:
        state[key] = torch.zeros(shape)
    path = save(state)
    if key.endswith("num_batches_tracked") and shape in {None, ()}:
        load_checkpoint(path)
    else:
        refuse(path)


@pytest.fixture(scope="module")
def small_state(narrow_state):
    return narrow_state("yolact_small")


def test_long_lists_are_shortened():
    assert list_some(["b", "a"]) == "a, b"
    assert list_some([str(i) for i in range(9)], 3) == "0, 1, 2 and 6 more"


@pytest.mark.parametrize("content", [b"hello this is text", b"\x80\x05\x95\x00", b"\x80\x04K\x01."])
def test_torchs_unsafe_advice_is_not_passed_on(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "not a PyTorch checkpoint" in message
    assert "weights_only" not in message
    assert "101" not in message
    assert len(message.splitlines()) == 1
