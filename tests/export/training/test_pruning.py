"""``yolact-export --prune``: from a checkpoint and images to a pruned checkpoint and its bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support.pruning import SMALL, MacTimer, random_model
from support.training_data import write_scenes
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.checkpoint.note import CheckpointNote, write_checkpoint
from yolact_export.commands import cli
from yolact_export.training import pruned_latency, pruning
from yolact_runtime.media.images import read_image
from yolact_runtime.model.bundle import open_bundle
from yolact_runtime.segmenter import Segmenter

CLASSES = ("disc", "ring", "square", "triangle", "star", "cross")


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[Path, Path]:
    return write_scenes(tmp_path / "scenes", 20)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mine.pth"
    write_checkpoint(path, random_model(SMALL).state_dict(), CheckpointNote(SMALL, CLASSES))
    return path


@pytest.fixture
def network_times(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Shares of the dense network's time that pruned networks take, one after the other; layers need no clock."""
    shares = [0.5]

    def times(models: dict[str, Path], *_: object, **__: object) -> dict[str, float]:
        assert set(models) == {"dense", "pruned"}
        return {"dense": 10.0, "pruned": 10.0 * (shares.pop(0) if len(shares) > 1 else shares[0])}

    monkeypatch.setattr(pruning, "OnnxRuntimeTimer", lambda threads: MacTimer())
    monkeypatch.setattr(pruned_latency, "time_networks_ms", times)
    return shares


def export(checkpoint: Path, images: Path, bundle: Path, *more: object) -> int:
    # With no step of recovery these options are refused.
    recovery = () if more[:2] == ("--recover-steps", 0) else ("--workers", 0, "--recover-batch", 2)
    words = [checkpoint, "--prune", 0.4, "--calib", images, "-o", bundle, *recovery, *more]
    return cli.main([str(word) for word in words])


def record_of(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(bundle.with_name(f"{bundle.stem}.pruned.json").read_bytes())
    return document


def test_the_pruned_model_is_smaller_loads_like_any_other_and_is_what_the_bundle_holds(
    checkpoint: Path, scenes: tuple[Path, Path], tmp_path: Path, network_times: list[float], capsys: Any
) -> None:
    bundle = tmp_path / "mine.bundle"
    annotations, images = scenes
    assert (
        export(checkpoint, images, bundle, "--recover-steps", 3, "--annotations", annotations, "--images", images) == 0
    )
    dense, pruned = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "mine.pruned.pth")
    count = [sum(p.numel() for p in loaded.model.parameters()) for loaded in (dense, pruned)]
    assert count[1] < 0.9 * count[0]
    assert (pruned.class_names, pruned.config.input_height) == (CLASSES, 64)
    record = record_of(bundle)
    assert set(record["scores"]) == {"dense", "pruned", "recovered"}
    assert set(record["scores"]["dense"]) == {"box AP", "mask AP", "mask AP50"}
    assert record["report"]["measured_ms"] == [10.0, 5.0]
    assert record["report"]["gflops"][1] < record["report"]["gflops"][0]
    assert len(record["curve"]["terms"]["distill_mask"]) == 3
    assert json.loads((bundle / "report.json").read_bytes())["pruning"] == record
    assert open_bundle(bundle).manifest.provenance["checkpoint"] == "mine.pruned.pth"
    with Segmenter.open(bundle) as segmenter:
        segmenter(read_image(next(images.iterdir())))
    said = capsys.readouterr().err
    assert "network (50%)" in said
    assert "mine.pruned.pth" in said


def test_without_labels_agreement_with_the_dense_model_is_reported(
    checkpoint: Path, scenes: tuple[Path, Path], tmp_path: Path, network_times: list[float]
) -> None:
    bundle = tmp_path / "mine.bundle"
    assert export(checkpoint, scenes[1], bundle, "--recover-steps", 0) == 0
    record = record_of(bundle)
    assert record["scores"]["dense"]["mask agreement"] == 1.0
    assert record["scores"]["pruned"]["mask agreement"] < 1.0
    assert record["curve"] is None
    assert not (tmp_path / "mine.pruned.html").exists()


def test_labels_join_the_recovery(
    checkpoint: Path, scenes: tuple[Path, Path], tmp_path: Path, network_times: list[float]
) -> None:
    bundle = tmp_path / "mine.bundle"
    assert export(checkpoint, scenes[1], bundle, "--recover-steps", 2, "--recover-annotations", scenes[0]) == 0
    assert {"distill_mask", "mask", "box", "class", "semantic"} <= set(record_of(bundle)["curve"]["terms"])


def test_more_is_pruned_when_the_network_is_slower_than_its_layers_promised(
    checkpoint: Path, scenes: tuple[Path, Path], tmp_path: Path, network_times: list[float], capsys: Any
) -> None:
    network_times[:] = [0.75, 0.58]
    bundle = tmp_path / "mine.bundle"
    assert export(checkpoint, scenes[1], bundle, "--recover-steps", 0) == 0
    assert "takes 75.0% of the dense one's time, 60% was requested: pruning more" in capsys.readouterr().err
    report = record_of(bundle)["report"]
    assert report["measured_ms"] == [10.0, 5.8]
    before, after = report["estimated_ms"]
    assert after / before < 0.5


def test_an_interrupted_recovery_takes_the_same_decisions_and_continues(
    checkpoint: Path,
    scenes: tuple[Path, Path],
    tmp_path: Path,
    network_times: list[float],
    monkeypatch: Any,
    capsys: Any,
) -> None:
    network_times[:] = [0.75, 0.58]
    straight = tmp_path / "straight.bundle"
    assert export(checkpoint, scenes[1], straight, "--recover-steps", 4) == 0
    network_times[:] = [0.75, 0.58]
    bundle = tmp_path / "mine.bundle"
    original = pruning.Training._train_step

    def interrupted(self: Any, batch: Any) -> dict[str, float]:
        if batch.step == 2:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(pruning.Training, "_train_step", interrupted)
    assert export(checkpoint, scenes[1], bundle, "--recover-steps", 4) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not bundle.exists()
    monkeypatch.undo()
    monkeypatch.setattr(pruning, "OnnxRuntimeTimer", lambda threads: MacTimer())
    # Measured again, the network would seem fast enough at once, and other widths would be chosen.
    monkeypatch.setattr(pruned_latency, "time_networks_ms", lambda *_, **__: {"dense": 10.0, "pruned": 1.0})
    assert export(checkpoint, scenes[1], bundle, "--recover-steps", 4) == 0
    assert "continuing the recovery after step 2" in capsys.readouterr().err
    assert record_of(bundle)["curve"] == record_of(straight)["curve"]
    tensors = [torch.load(tmp_path / f"{name}.pruned.pth", weights_only=True) for name in ("mine", "straight")]
    assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[1])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--prune", "0.4"], "--prune needs --calib"),
        (["--prune", "1.5", "--calib", "x"], "between 0 and 1"),
        (["--prune", "0.4", "--calib", "x", "--seed", str(2**63)], "--seed is 0 or more and below 2^63"),
        (["--calib", "x"], "--calib has no effect without --prune"),
        (["--prune", "0.4", "--calib", "x", "--annotations", "a.json"], "--annotations needs --images"),
        (["--prune", "0.4", "--calib", "x", "y", "--recover-annotations", "a.json"], "one --calib folder"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_any_work(
    checkpoint: Path, words: list[str], reason: str, capsys: Any
) -> None:
    assert cli.main([str(checkpoint), *words]) == 2
    assert reason in capsys.readouterr().err


def test_too_few_images_are_refused_and_nothing_is_written(checkpoint: Path, tmp_path: Path, capsys: Any) -> None:
    images = write_scenes(tmp_path / "few", 3)[1]
    before = sorted(tmp_path.rglob("*"))
    assert export(checkpoint, images, tmp_path / "mine.bundle") == 1
    assert "3 images found, but at least 16 are needed" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
