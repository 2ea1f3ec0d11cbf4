"""What ``yolact-export`` does where a checkpoint does not say how it is fed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support.engine_graphs import write_engine_bundle
from yolact_export.commands.checkpoint_cli import parse_scales
from yolact_export.commands.cli import main
from yolact_export.errors import UsageError
from yolact_runtime.model.bundle import open_bundle

Narrow = Callable[[str], dict[str, torch.Tensor]]
Save = Callable[..., Path]


def test_nothing_is_assumed_and_the_commands_of_the_message_work(
    narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state("yolact_small"), "my best.pth")
    bundle = tmp_path / "b"
    assert main([str(checkpoint), "-o", str(bundle), "-q"]) == 1
    told = capsys.readouterr().err
    assert not bundle.exists()
    command = next(line for line in told.splitlines() if "--config yolact_small" in line).partition("  (")[0]
    program, *words = shlex.split(command)
    assert program == "yolact-export"
    assert main([*words, "--input-size", "96", "-o", str(bundle), "-q"]) == 0
    assert open_bundle(bundle).manifest.provenance["config"] == "yolact_small"
    assert "ASSUMED" not in capsys.readouterr().err


def test_what_is_assumed_when_asked_is_said_even_when_quiet(
    narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state("yolact_small"), "best.pth")
    assert main([str(checkpoint), "-o", str(tmp_path / "b"), "--assume", "--input-size", "96", "-q"]) == 0
    told = capsys.readouterr().err
    assert "ASSUMED: prior scales 24,48,96,192,384 px" in told
    assert "(--assume)" in told


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.pkl").touch()
    assert main([str(tmp_path)]) == 2
    assert "the folder of an unpacked checkpoint" in capsys.readouterr().err


def test_the_weights_are_chosen_and_recorded(
    narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = narrow_state("yolact_small")
    teacher = {key: value * 1.5 if value.is_floating_point() else value for key, value in student.items()}
    checkpoint = save({"student": student, "teacher": teacher})
    assert main([str(checkpoint), "-o", str(tmp_path / "b"), "--input-size", "96", "-q"]) == 1
    told = capsys.readouterr().err
    assert f"yolact-export {checkpoint} --weights teacher" in told
    words = [str(checkpoint), "-o", str(tmp_path / "b"), "--input-size", "96", "-q", "--weights", "teacher"]
    assert main(words) == 0
    assert open_bundle(tmp_path / "b").manifest.provenance["checkpoint_weights"] == "teacher"


@pytest.mark.parametrize(("factor", "part"), [(1e6, r"upfeature\.0 computes values up to"), (1e38, "NaN and")])
def test_an_exploded_network_is_called_that(
    factor: float, part: str, narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = narrow_state("yolact_small")
    state["prediction_layers.0.upfeature.0.weight"] *= factor
    assert main([str(save(state)), "-o", str(tmp_path / "b"), "--input-size", "96", "-q"]) == 1
    told = capsys.readouterr().err
    assert "the values in the checkpoint's network have exploded" in told
    assert re.search(part, told)
    assert "Please report" not in told
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("factor", [1e4, 1e5, 1e6])
@pytest.mark.parametrize(
    "key", ["fpn.lat_layers.0.weight", "fpn.pred_layers.1.weight", "prediction_layers.0.mask_layer.weight"]
)
def test_wherever_a_network_explodes_the_exporter_is_not_blamed(
    key: str, factor: float, narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = narrow_state("yolact_small")
    state[key] *= factor
    status = main([str(save(state)), "-o", str(tmp_path / "b"), "--input-size", "96", "-q"])
    told = capsys.readouterr().err
    # What can be reproduced all the same is exported.
    assert status == 0 or "have exploded" in told
    assert "Please report" not in told


@pytest.mark.parametrize("words", [["--assume"], ["--weights", "ema"]])
def test_what_only_a_checkpoint_needs_is_refused_for_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    assert main([str(bundle), "--engine", *words]) == 2
    assert f"{words[0]} has no effect on a bundle: its manifest states" in capsys.readouterr().err


def test_scales_are_numbers() -> None:
    assert parse_scales("24,48,96,192,384") == ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,))
    assert parse_scales("1/2,3/4,5/6,7/8,9/10.5") == ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.5))
    assert parse_scales(None) is None
    with pytest.raises(UsageError, match='such as 24,48,96,192,384; found "a,b"'):
        parse_scales("a,b")
    for text in ("0,48,96,192,384", "nan,48,96,192,384", "24,48,96,192,-1", "24,48,96,192,inf"):
        with pytest.raises(UsageError, match="are pixels above 0"):
            parse_scales(text)
    for text in ("24", "24,48,96,192", "24/30,48,96,192,384"):
        with pytest.raises(UsageError, match="one level for each of P3 to P7"):
            parse_scales(text)


@pytest.mark.parametrize(
    "words",
    [
        ["--prior-scales", scales]
        for scales in ("inf,1,1,1,1", "nan,1,1,1,1", "1e300,1,1,1,1", "0,1,1,1,1", "1e-9,1,1,1,1", "/".join("1" * 65))
    ]
    + [["--input-size", size] for size in ("0", "99999999", "9" * 5000, "16384x16384", "nan", "-3")],
    ids=lambda words: f"{words[0]} {words[1][:12]}",
)
def test_what_no_manifest_can_say_fails_at_once_with_the_options_name(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the checkpoint, which is none, is looked at."""
    (tmp_path / "c.pth").write_bytes(b"")
    assert main([str(tmp_path / "c.pth"), *words]) == 2
    assert words[0] in capsys.readouterr().err
