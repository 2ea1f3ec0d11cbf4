"""`yolact_export`'s functions and its command make the same bundles, and the functions write nothing to a terminal."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import yolact_export
from support.engine_graphs import write_engine_bundle
from support.precision_trials import make_frames, write_small_bundle
from support.signing import make_keys
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.precision import network_maker
from yolact_export.commands import cli
from yolact_export.engine import bundle as engine_bundle
from yolact_export.engine.build import BuiltEngine
from yolact_export.facade import packages
from yolact_export.precision import document as document_module
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle_signature import verify_bundle

Narrow = Callable[[str], dict[str, torch.Tensor]]
Save = Callable[..., Path]
# What a clock or a file's compression changes from one run to the next.
VOLATILE = {"seconds", "latency_ms", "made", "bundle"}


@pytest.fixture(scope="module", autouse=True)
def _quick_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network_maker, "Judge", functools.partial(Judge, settings=BootstrapSettings(num_resamples=20)))
        quick = functools.partial(document_module.time_networks_ms, seconds=0.0)
        patch.setattr(document_module, "time_networks_ms", quick)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, frame in make_frames(8, 1):
        write_image(folder / name, frame)
    return folder


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


def stable(found: Any) -> Any:
    """A document without what differs from run to run."""
    if isinstance(found, dict):
        return {key: stable(value) for key, value in found.items() if key not in VOLATILE}
    return [stable(value) for value in found] if isinstance(found, list | tuple) else found


def networks(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir() if path.suffix in {".onnx", ".json"}} | {
        "report.json": b""
    }


def test_the_function_and_the_command_export_the_same_bundle(
    narrow_state: Narrow, save: Save, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    options = yolact_export.CheckpointOptions(input_size=96)
    result = yolact_export.export(checkpoint, str(tmp_path / "a.bundle"), checkpoint_options=options)
    assert capfd.readouterr() == ("", "")
    assert result.passed
    assert result.verification.passed
    assert result.seconds > 0
    report = tmp_path / "report.json"
    assert run(checkpoint, "-o", tmp_path / "b.bundle", "--input-size", "96", "--json", report, "-q") == 0
    assert networks(result.bundle) == networks(tmp_path / "b.bundle")
    assert stable(json.loads(json.dumps(result.document()))) == stable(json.loads(report.read_text()))
    assert set(json.loads(report.read_text())) == set(result.document())


def test_the_default_bundle_is_named_after_the_checkpoint(
    narrow_state: Narrow, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "mine.pth")
    monkeypatch.chdir(tmp_path)
    options = yolact_export.CheckpointOptions(config="yolact_resnet50", input_size=96)
    assert yolact_export.export(str(checkpoint), checkpoint_options=options).bundle == Path("mine.bundle")
    with pytest.raises(yolact_export.CheckpointError, match=r"nowhere\.pth: No such file"):
        yolact_export.export("nowhere.pth")
    with pytest.raises(yolact_export.UsageError, match="precision and pruning need images"):
        yolact_export.export(checkpoint, precision=yolact_export.PrecisionOptions(int8=True))


def test_the_function_and_the_command_add_the_same_networks(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = write_small_bundle(tmp_path / "first.bundle")
    second, report = tmp_path / "second.bundle", tmp_path / "report.json"
    shutil.copytree(first, second)
    chosen = yolact_export.PrecisionOptions(
        int8=True,
        float16=True,
        max_drop=float("inf"),
        num_guard_images=1,
        num_sensitivity=0,
        cache=tmp_path / "cache",
    )
    reporter = yolact_export.LogReporter(logging.getLogger("progress"))
    with caplog.at_level(logging.INFO, "progress"):
        result = yolact_export.add_networks(first, photos, chosen, num_threads=1, reporter=reporter)
    assert "calibrating on 8 images (mse ranges)" in caplog.text
    words = ("--int8", "--fp16", "--calib", photos, "--threads", "1", "--guard-images", "1", "--no-guard")
    words = (*words, "--sensitivity-images", "0")
    assert run(second, *words, "--calibration-cache", tmp_path / "cache", "--json", report, "-q") == 0
    assert result.passed
    assert set(result.manifest.artefacts) >= {"model.fp16.onnx", "model.int8.onnx", "model.int8-cpu.onnx"}
    ours, theirs = networks(first), networks(second)
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= {"model.int8-cpu.onnx", "manifest.json"}
    assert stable(json.loads(report.read_text())).keys() == stable(result.document()).keys()


def test_a_key_signs_what_a_function_writes_and_is_needed_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("YOLACT_SIGNING_KEY", "YOLACT_REQUIRE_SIGNATURE"):
        monkeypatch.delenv(name, raising=False)
    plan = BuiltEngine(b"plan", (), {"target": "rtx"}, ())
    monkeypatch.setattr(engine_bundle, "build_in_process", lambda *_: plan)
    monkeypatch.setattr(engine_bundle, "try_engine", lambda *_: None)
    bundle, keys = write_engine_bundle(tmp_path / "my.bundle", ("fp32", "fp16")), make_keys(tmp_path, "vendor")
    options, signing = yolact_export.EngineOptions("rtx", compute_capabilities=("8.6",)), yolact_export.SigningOptions
    result = yolact_export.build_engine(bundle, options, precisions=["fp16"], signing=signing(keys.private))
    assert [engine.path.name for engine in result.engines] == ["model.fp16.rtx.plan"]
    assert result.document()["engines"][0]["precision"] == "fp16"
    verify_bundle(bundle, keys.public)
    with pytest.raises(yolact_export.SignatureError, match="is signed, and the change would invalidate its signature"):
        yolact_export.build_engine(bundle, options)
    with pytest.raises(yolact_export.UsageError, match='engines cannot be built with precision "int4"'):
        yolact_export.build_engine(bundle, options, precisions=["int4"], signing=signing(keys.private))


def test_a_missing_package_is_named_before_any_work(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save({}, "any.pth")
    monkeypatch.setattr(packages, "_is_installed", lambda name: name != "torch_pruning")
    with pytest.raises(yolact_export.MissingDependencyError, match=r"torch_pruning.*\[train\]"):
        yolact_export.export(checkpoint, images="photos", pruning=yolact_export.PruningOptions())


def test_options_are_checked_where_they_are_made() -> None:
    wrong: list[tuple[type, dict[str, Any]]] = [
        (yolact_export.PrecisionOptions, {}),
        (yolact_export.PrecisionOptions, {"int8": True, "target": "tpu"}),
        (yolact_export.PrecisionOptions, {"int8": True, "method": "guess"}),
        (yolact_export.PruningOptions, {"removed_latency": 1.0}),
        (yolact_export.PruningOptions, {"recover_rate": 0}),
        (yolact_export.PruningOptions, {"importance": "luck"}),
    ]
    for kind, fields in wrong:
        with pytest.raises(yolact_export.UsageError, match=next(reversed(fields), "int8 or float16")):
            kind(**fields)
    assert dataclasses.replace(yolact_export.PruningOptions(), removed_latency=0.3).removed_latency == 0.3


def test_images_and_labels_without_an_effect_are_refused(photos: Path, tmp_path: Path) -> None:
    (checkpoint := tmp_path / "any.pth").write_bytes(b"")
    labels = yolact_export.Labels(photos / "labels.json", photos)
    with pytest.raises(yolact_export.UsageError, match="images have no effect without precision or pruning"):
        yolact_export.export(checkpoint, tmp_path / "a.bundle", images=photos)
    with pytest.raises(yolact_export.UsageError, match="labels have no effect without precision or pruning"):
        yolact_export.export(checkpoint, tmp_path / "a.bundle", labels=labels)


def test_one_precision_is_a_name_and_not_its_letters(tmp_path: Path) -> None:
    bundle = write_engine_bundle(tmp_path / "a.bundle", ("fp32",))
    with pytest.raises(yolact_export.BundleError, match="no network of precision fp16"):
        yolact_export.build_engine(bundle, yolact_export.EngineOptions("rtx"), precisions="fp16")
