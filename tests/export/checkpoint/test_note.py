from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from yolact_export.checkpoint.checkpoint import CheckpointOptions, load_checkpoint
from yolact_export.checkpoint.file import read_checkpoint_file
from yolact_export.checkpoint.note import CheckpointNote, read_note, write_checkpoint
from yolact_export.errors import CheckpointError
from yolact_export.model.backbones.small_resnet import SmallResNetConfig
from yolact_export.model.config import Normalisation, YolactConfig
from yolact_export.model.registry import CONFIGS
from yolact_export.model.yolact import Yolact, create_model

CONFIG = YolactConfig(
    "my_robot",
    SmallResNetConfig(16, (1, 1, 1, 1)),
    num_classes=3,
    num_prototypes=8,
    fpn_channels=16,
    input_height=96,
    input_width=160,
    prior_scales_px=((10.5,), (20.0,), (40.0,), (80.0,), (120.0,)),
    square_priors=False,
    normalisation=Normalisation((1.5, 2.5, 3.5), (50.0, 51.0, 52.0), "BGR"),
)
NOTE = CheckpointNote(CONFIG, ("cat", "größer Hund"), {"start": "yolact_tiny, seed 0"})


@pytest.fixture(scope="module")
def model() -> Yolact:
    torch.manual_seed(0)
    return create_model(CONFIG)


@pytest.fixture
def path(model: Yolact, tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    write_checkpoint(path, model.state_dict(), NOTE)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the note in a file as somebody with a hex editor would."""
    content = torch.load(path, weights_only=True)
    document = content._metadata["yolact_deploy"]
    replaced = change(document)
    if replaced is not None:
        content._metadata["yolact_deploy"] = replaced
    torch.save(content, path)


def test_the_note_survives_a_restricted_load(path: Path) -> None:
    note = read_note(torch.load(path, weights_only=True), "x")
    assert note is not None
    assert (note.class_names, note.provenance) == (NOTE.class_names, NOTE.provenance)
    # The structure is read off the tensors; the rest is in the note.
    assert note.over(CONFIG) == CONFIG
    assert note.over(CONFIGS["yolact_base"]).prior_spec() != CONFIGS["yolact_base"].prior_spec()


def test_the_file_is_a_plain_state_dict_for_everybody_else(path: Path, model: Yolact) -> None:
    content = torch.load(path, weights_only=True)
    assert isinstance(content, OrderedDict)
    assert list(content) == list(model.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in content.values())
    other = create_model(CONFIG)
    assert str(other.load_state_dict(content, strict=True)) == "<All keys matched successfully>"
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_a_plain_module_loads_its_part(tmp_path: Path) -> None:
    layer = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    write_checkpoint(tmp_path / "x.pth", layer.state_dict(), NOTE)
    nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).load_state_dict(torch.load(tmp_path / "x.pth"), strict=True)


def test_views_and_gradients_do_not_reach_the_file(tmp_path: Path) -> None:
    large = torch.zeros(1000, 1000)
    tensors = {"view": large[:2, :3].t(), "trained": nn.Parameter(torch.ones(2)) * 2}
    write_checkpoint(tmp_path / "x.pth", tensors, NOTE)
    assert (tmp_path / "x.pth").stat().st_size < 10_000
    content = torch.load(tmp_path / "x.pth", weights_only=True)
    assert content["view"].shape == (3, 2)
    assert content["view"].is_contiguous()
    assert not content["trained"].requires_grad


def test_loading_needs_no_options(path: Path, model: Yolact) -> None:
    loaded = load_checkpoint(path)
    assert loaded.config == CONFIG
    assert loaded.class_names == NOTE.class_names
    assert not any(finding.startswith("ASSUMED") for finding in loaded.findings)
    assert any("from the note in the file (my_robot)" in finding for finding in loaded.findings)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.model.state_dict().items())


def test_a_published_file_name_does_not_overrule_the_note(path: Path) -> None:
    renamed = path.rename(path.with_name("yolact_base_54_800000.pth"))
    assert load_checkpoint(renamed).config == CONFIG


def test_options_overrule_the_note(path: Path) -> None:
    scales = ((8.0,), (16.0,), (32.0,), (64.0,), (96.0,))
    loaded = load_checkpoint(path, CheckpointOptions(input_size=(64, 128), class_names=("a", "b"), prior_scales=scales))
    assert (loaded.config.input_height, loaded.config.input_width) == (64, 128)
    assert loaded.config.prior_scales_px == scales
    assert loaded.class_names == ("a", "b")
    assert loaded.config.normalisation == CONFIG.normalisation


def test_a_configuration_overrules_the_note_and_says_so(path: Path) -> None:
    loaded = load_checkpoint(path, CheckpointOptions(config="yolact_small"))
    assert loaded.config.prior_scales_px == CONFIGS["yolact_small"].prior_scales_px
    assert loaded.config.normalisation == CONFIGS["yolact_small"].normalisation
    assert any('the note in the file says "my_robot"' in finding for finding in loaded.findings)


def test_a_note_that_names_other_classes_than_the_tensors_is_refused(path: Path) -> None:
    rewrite(path, lambda document: document["class_names"].append("bird"))
    with pytest.raises(CheckpointError, match="its note names 3 classes, its tensors have 2"):
        load_checkpoint(path)
    assert load_checkpoint(path, CheckpointOptions(class_names=("a", "b"))).class_names == ("a", "b")


def _change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("config"),
        lambda document: document.pop("provenance"),
        _change("input_height", "tall"),
        _change("input_height", 3),
        _change("input_width", float("inf")),
        _change("prior_scales_px", [[1.0], [2.0]]),
        _change("prior_scales_px", 5),
        _change("mean_bgr", [1.0, 2.0]),
        _change("class_names", []),
        _change("class_names", None),
        _change("provenance", ["a"]),
        _change("config", ["a"]),
    ],
)
def test_a_damaged_note_is_refused(change: Callable[[dict[str, Any]], Any], path: Path) -> None:
    rewrite(path, lambda document: change(document) and None)
    with pytest.raises(CheckpointError, match=r"model\.pth: its note is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("note", [{"version": 2}, {}, "text", 7])
def test_a_note_of_a_later_release_is_refused(note: Any, path: Path) -> None:
    rewrite(path, lambda _: note)
    with pytest.raises(CheckpointError, match=r"model\.pth: its note has the version .*, this release reads 1; use"):
        load_checkpoint(path)


def test_files_of_others_have_no_note(model: Yolact, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "bare.pth")
    torch.save(dict(model.state_dict()), tmp_path / "dict.pth")
    torch.save({"state_dict": model.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    for name in ("bare", "dict", "wrapped"):
        assert read_checkpoint_file(tmp_path / f"{name}.pth").note is None
        with pytest.raises(CheckpointError, match="--config yolact_small"):
            load_checkpoint(tmp_path / f"{name}.pth")
    assert read_note({"a": torch.zeros(1)}, "x") is None


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda state: {"state_dict": state},
    "training": lambda state: {"epoch": 3, "model": state, "optimizer": {"state": {}, "param_groups": []}},
    "nested": lambda state: {"checkpoint": {"best": {"model_state_dict": state}}},
    "list": lambda state: [{"epoch": 3}, state],
}


@pytest.mark.parametrize("wrapper", ["state_dict", "training"])
def test_the_note_is_found_where_our_checkpoint_was_saved_again(wrapper: str, path: Path, model: Yolact) -> None:
    torch.save(WRAPPERS[wrapper](torch.load(path, weights_only=True)), path)
    loaded = load_checkpoint(path)
    assert loaded.config == CONFIG
    assert loaded.class_names == NOTE.class_names
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.model.state_dict().items())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_note_is_read_in_any_wrapper(wrapper: str, path: Path) -> None:
    note = read_note(WRAPPERS[wrapper](torch.load(path, weights_only=True)), "x")
    assert note is not None
    assert note.over(CONFIG) == CONFIG


def test_a_note_that_a_copy_lost_is_not_replaced_by_a_guess(path: Path) -> None:
    torch.save({"state_dict": dict(torch.load(path, weights_only=True))}, path)
    with pytest.raises(CheckpointError, match="neither a note in the file nor its name"):
        load_checkpoint(path)


def test_notes_that_differ_are_refused(path: Path) -> None:
    first, second = (torch.load(path, weights_only=True) for _ in range(2))
    assert read_note([first, second], "x") is not None
    second._metadata["yolact_deploy"]["input_height"] = 128
    with pytest.raises(CheckpointError, match=r"x: 2 state dicts with notes that differ \(0, 1\)"):
        read_note([first, second], "x")


def test_what_was_assumed_of_the_original_is_said_of_what_was_made_of_it(model: Yolact, tmp_path: Path) -> None:
    note = dataclasses.replace(NOTE, provenance={"assumed": "ASSUMED: input 550 x 550"})
    write_checkpoint(tmp_path / "pruned.pth", model.state_dict(), note)
    assert "ASSUMED: input 550 x 550" in load_checkpoint(tmp_path / "pruned.pth").findings


def test_a_note_keeps_the_structure_of_the_tensors() -> None:
    base = dataclasses.replace(CONFIGS["yolact_small"], num_classes=9, num_prototypes=5)
    over = NOTE.over(base)
    assert (over.num_classes, over.num_prototypes, over.backbone) == (9, 5, base.backbone)
    assert (over.name, over.input_height, over.normalisation) == ("my_robot", 96, CONFIG.normalisation)


def test_writing_again_replaces_the_file_and_gives_the_same_bytes(path: Path, model: Yolact) -> None:
    before = path.read_bytes()
    write_checkpoint(path, model.state_dict(), NOTE)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
