"""What ``yolact-export`` does where a checkpoint does not say how it is fed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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


def test_an_assumption_makes_no_sense_for_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--engine", "--assume"]) == 2
    assert "--assume: only for a .pth checkpoint" in capsys.readouterr().err


def test_scales_are_numbers() -> None:
    assert parse_scales("24,48/60") == ((24.0,), (48.0, 60.0))
    assert parse_scales(None) is None
    with pytest.raises(UsageError, match='such as 24,48,96,192,384; found "a,b"'):
        parse_scales("a,b")
