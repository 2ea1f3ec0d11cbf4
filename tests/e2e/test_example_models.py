"""The committed models do what their records say, on scenes that they were not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.training_data import write_scenes
from yolact_benchmarks.commands import eval_cli
from yolact_export.checkpoint.checkpoint import load_checkpoint
from yolact_export.commands import cli as export_cli
from yolact_runtime.commands import run_cli

MODELS = Path(__file__).parents[2] / "examples" / "models"
# The seeds of the records; a part of them says enough here.
FIRST_SEED, NUM_SCENES = 10000, 40


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_scenes(tmp_path_factory.mktemp("scenes"), NUM_SCENES, size=256, seed=FIRST_SEED)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for name in ("shapes", "shapes.pruned"):
        found[name] = folder / f"{name}.bundle"
        assert export_cli.main([str(MODELS / f"{name}.pth"), "-o", str(found[name]), "--quiet"]) == 0
    return found


def evaluate(bundle: Path, scenes: tuple[Path, Path], output: Path) -> dict[str, Any]:
    annotations, images = map(str, scenes)
    words = ["--annotations", annotations, "--images", images, "--bootstrap", "0", "--json", str(output), "--quiet"]
    assert eval_cli.main([str(bundle), *words]) == 0
    document: dict[str, Any] = json.loads(output.read_bytes())
    return document


def record(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_bytes())
    return document


@pytest.mark.parametrize("name", ["shapes", "shapes.pruned"])
def test_an_exported_model_is_as_accurate_as_its_record_says(
    name: str, bundles: dict[str, Path], scenes: tuple[Path, Path], tmp_path: Path
) -> None:
    found = evaluate(bundles[name], scenes, tmp_path / "accuracy.json")
    kept = record(name)
    said = kept["validation"]["segm"]["AP"] if "validation" in kept else kept["scores"]["recovered"]["mask AP"]
    assert said >= 0.55
    # Forty scenes of the record's two hundred: their AP lies within a few points of the whole's.
    assert found["segm"]["AP"] == pytest.approx(said, abs=0.06)
    assert found["images"] == NUM_SCENES


def test_pruning_kept_its_promise() -> None:
    report, scores = (record("shapes.pruned")[key] for key in ("report", "scores"))
    dense_ms, pruned_ms = report["measured_ms"]
    assert pruned_ms <= 0.6 * dense_ms
    assert scores["recovered"]["mask AP"] >= scores["dense"]["mask AP"] - 0.01


def test_the_model_of_balloons_finds_those_of_the_demo(tmp_path: Path) -> None:
    bundle, output = tmp_path / "balloons.bundle", tmp_path / "found.json"
    assert export_cli.main([str(MODELS / "balloons.pth"), "-o", str(bundle), "--quiet"]) == 0
    photograph = MODELS.parent / "images" / "balloons.jpg"
    assert run_cli.main([str(bundle), str(photograph), "--score", "0.9", "--json", str(output), "--quiet"]) == 0
    found = json.loads(output.read_bytes())["images"][0]["instances"]
    # The three in front that nothing hides.
    assert [instance["class_name"] for instance in found] == ["balloon"] * 3
    kept = record("balloons")
    assert kept["validation"]["images"] == 12
    assert kept["validation"]["segm"]["AP"] >= 0.4


def test_the_balloons_need_no_options() -> None:
    path = MODELS / "balloons.pth"
    assert path.stat().st_size <= 16e6
    loaded = load_checkpoint(path)
    assert loaded.class_names == ("balloon",)
    assert not any("ASSUMED" in finding for finding in loaded.findings)


@pytest.mark.parametrize(("name", "limit_mb"), [("shapes", 4.0), ("shapes.pruned", 4.0)])
def test_files_are_small_and_say_themselves_how_they_are_fed(name: str, limit_mb: float) -> None:
    path = MODELS / f"{name}.pth"
    assert path.stat().st_size <= limit_mb * 1e6
    loaded = load_checkpoint(path)
    assert (loaded.config.input_height, loaded.config.input_width) == (320, 320)
    assert loaded.class_names == ("disc", "ring", "square", "triangle", "star", "cross")
    assert not any("ASSUMED" in finding for finding in loaded.findings)
