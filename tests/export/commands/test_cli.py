"""``yolact-export`` as its users type it, on models that run in milliseconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from yolact_export import pipeline
from yolact_export.commands.cli import main
from yolact_export.errors import VerificationError
from yolact_export.verify import DetectionAgreement, Verification
from yolact_runtime import Segmenter
from yolact_runtime.commands import run_cli
from yolact_runtime.model.bundle import open_bundle
from yolact_runtime.model.manifest import METADATA_KEY, Manifest

Narrow = Callable[[str], dict[str, torch.Tensor]]
Save = Callable[..., Path]


def export(*words: str | Path) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize(
    "name", ["yolact_resnet50", "yolact_plus_resnet50", "yolact_darknet53", "yolact_edge_mobilenetv2"]
)
def test_a_checkpoint_becomes_a_bundle_that_runs(
    name: str, narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state(name), f"{name}_54_800000.pth")
    bundle = tmp_path / "out" / "model.bundle"
    report = tmp_path / "report.json"
    assert export(checkpoint, "-o", bundle, "--no-engine", "--input-size", "288x256", "--json", report) == 0
    talk = capsys.readouterr()
    assert talk.out == ""
    assert f"next:  yolact-run {bundle} IMAGE -o out" in talk.err
    expected = {"golden.npz", "manifest.json", "model.fp32.onnx", "report.json"} | (
        {"mask_iou.fp32.onnx"} if "plus" in name else set()
    )
    assert {path.name for path in bundle.iterdir()} == expected
    opened = open_bundle(bundle)
    assert (opened.manifest.input.height, opened.manifest.input.width) == (256, 288)
    assert opened.manifest.provenance["config"] == name
    embedded = Manifest.from_json(opened.network.metadata()[METADATA_KEY], "model")
    assert embedded.artefacts == {}
    assert embedded.priors == opened.manifest.priors
    assert json.loads(report.read_text())["verification"]["passed"] is True
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    assert run_cli.main([str(bundle), str(image), "--json", "-", "--score", "0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"][0]["height"] == 90


def test_a_single_onnx_file_runs_without_its_bundle(
    narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96", "-q") == 0
    alone = tmp_path / "alone.onnx"
    (tmp_path / "b" / "model.fp32.onnx").rename(alone)
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.zeros((9, 12, 3), np.uint8))
    assert run_cli.main([str(alone), str(image), "--json", "-", "-q"]) == 0


@pytest.mark.parametrize(
    "options",
    [["--normalise-in-graph"], ["--dynamic-batch"], ["--deform-conv", "grid-sample"]],
    ids=["normalised", "dynamic", "grid sample"],
)
def test_graph_options_give_the_same_instances(
    options: list[str], narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state("yolact_plus_resnet50"), "yolact_plus_resnet50.pth")
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    documents = []
    for words in ([], options):
        assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "256", "-q", *words) == 0
        assert run_cli.main([str(tmp_path / "b"), str(image), "--json", "-", "-q", "--score", "0.06"]) == 0
        documents.append(json.loads(capsys.readouterr().out)["images"][0]["instances"])
    plain, other = documents
    assert len(plain) > 3
    assert [i["class_id"] for i in plain] == [i["class_id"] for i in other]
    np.testing.assert_allclose([i["xyxy"] for i in plain], [i["xyxy"] for i in other], atol=0.05)
    np.testing.assert_allclose([i["confidence"] for i in plain], [i["confidence"] for i in other], atol=1e-4)


def test_two_exports_are_equal_byte_for_byte(narrow_state: Narrow, save: Save, tmp_path: Path) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    for name in ("a", "b"):
        assert export(checkpoint, "-o", tmp_path / name, "--input-size", "96", "-q") == 0
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert {"manifest.json", "model.fp32.onnx", "report.json"} <= set(first)
    assert [name for name in first | second if first.get(name) != second.get(name)] == []


@pytest.mark.parametrize("text", ["thing\nother\n", '["thing", "other"]'])
def test_class_names_come_from_a_file(text: str, narrow_state: Narrow, save: Save, tmp_path: Path) -> None:
    state = narrow_state("yolact_resnet50")
    for key in [key for key in state if "conf_layer" in key]:
        state[key] = state[key][: 3 * 3]  # three priors per cell, two classes and the background
    for key in [key for key in state if "semantic_seg_conv" in key]:
        state[key] = state[key][:2]
    checkpoint = save(state, "mine_3_700.pth")
    names = tmp_path / "names.txt"
    names.write_text(text)
    words = ("--config", "yolact_resnet50", "--class-names", names, "--input-size", "96")
    assert export(checkpoint, "-o", tmp_path / "b", *words, "-q") == 0
    assert open_bundle(tmp_path / "b").manifest.class_names == ("thing", "other")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--int8"], 2, "need --calib"),
        (["--fp16"], 2, "need --calib"),
        (["--max-drop", "1"], 2, "add one of them"),
        (["--engine", "--no-engine"], 2, "exclude each other"),
        (["--input-size", "big"], 2, "550 or 960x544"),
        (["--prior-scales", "a,b"], 2, "24,48,96,192,384"),
        (["--class-names", "nowhere.txt"], 2, "cannot read nowhere.txt"),
        (["--config", "yolact_bass"], 2, "yolact_base"),
        (["--deform-conv", "deform-conv"], 2, "--deform-conv has no effect: the model has no deformable convolutions"),
        (["--deform-conv", "grid-sample", "--prune", "0.3", "--calib", "."], 2, "--deform-conv has no effect"),
        (["--config", "yolact_darknet53"], 1, "DarkNet"),
        (["--prior-scales", "24,48"], 2, "for each of P3 to P7"),
        (["--prior-scales", "nan,48,96,192,384"], 2, "pixels above 0"),
        (["--input-size", "0"], 2, "--input-size is 32 pixels or more"),
        (["--input-size", "960x5"], 2, "found 5"),
        (["--prune", "0.3", "--calib", ".", "--workers", "-1"], 2, "--workers must be 0 or more"),
        (["--prune", "0.3", "--calib", ".", "--round-to", "0"], 2, "--round-to must be 1 or more"),
        (["--prune", "0.3", "--calib", ".", "--recover-steps", "-1"], 2, "--recover-steps must be 0 or more"),
        (["--prune", "0.3", "--calib", ".", "--recover-rate", "nan"], 2, "--recover-rate must be above 0"),
        (["--prune", "0.3", "--calib", ".", "--threads", "0"], 2, "--threads must be 1 or more"),
    ],
)
def test_wrong_words_are_answered_and_nothing_is_written(
    words: list[str],
    status: int,
    message: str,
    narrow_state: Narrow,
    save: Save,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    assert export(checkpoint, "-o", tmp_path / "b", *words) == status
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.name]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "web page"),
        (b"\x80\x02}q\x00.", "not a PyTorch checkpoint"),
        (b"PK\x03\x04 cut short", "truncated"),
    ],
    ids=["empty", "web page", "empty dict", "truncated"],
)
def test_bad_files_are_explained_and_nothing_is_written(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "yolact_base_54_800000.pth"
    checkpoint.write_bytes(content)
    assert export(checkpoint, "-o", tmp_path / "b") == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "no.pth") == 1
    assert "no.pth" in capsys.readouterr().err


def test_a_failed_verification_writes_nothing_and_keeps_the_earlier_bundle(
    narrow_state: Narrow,
    save: Save,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96", "-q") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    original = pipeline.export_network

    def damaged(*arguments: Any) -> onnx.ModelProto:
        model = original(*arguments)
        weight = next(w for w in model.graph.initializer if w.name.startswith("fpn") and w.name.endswith("weight"))
        values = onnx.numpy_helper.to_array(weight).copy()
        values.flat[7] += 0.5
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return model

    monkeypatch.setattr(pipeline, "export_network", damaged)
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96") == 1
    assert "FAILED" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == before


def test_an_interrupt_is_130_and_keeps_the_earlier_bundle(
    narrow_state: Narrow, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")

    def interrupt(*_: object) -> Mapping[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_verify", interrupt)
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96", "-q") == 130
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_require_is_what_fails_an_export() -> None:
    with pytest.raises(VerificationError):
        Verification((), DetectionAgreement(expected=10, found=10, matched=9)).require()


def test_running_out_of_memory_is_6_and_one_line(
    narrow_state: Narrow,
    save: Save,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")

    def exhausted(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(pipeline, "_expect", exhausted)
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96", "-q") == 6
    assert "out of memory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_files_whose_names_are_no_utf8(narrow_state: Narrow, save: Save, tmp_path: Path) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    named = checkpoint.rename(Path(os.fsdecode(bytes(tmp_path) + b"/mod\xe8le.pth")))
    bundle = Path(os.fsdecode(bytes(tmp_path) + b"/b\xff"))
    words = ("--config", "yolact_resnet50", "--input-size", "96", "-q")
    assert export(named, "-o", bundle, *words, "--json", tmp_path / "export.json") == 0
    manifest = open_bundle(bundle).manifest
    assert (manifest.name, manifest.provenance["checkpoint"]) == ("mod\\udce8le", "mod\\udce8le.pth")
    with Segmenter.open(bundle) as segmenter:
        segmenter.self_test()
    document = json.loads((tmp_path / "export.json").read_bytes())
    assert document["bundle"] == str(bundle)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.bundle", "--engine"], "no bundle at nowhere.bundle: --engine builds the engines of a folder"),
        (["nowhere", "--engine", "--target", "rtx"], "no bundle at nowhere"),
        (["nowhere.pth"], "nowhere.pth: No such file or directory; name a .pth checkpoint, or the folder of a bundle"),
        (["nowhere.pth", "--engine"], "nowhere.pth: No such file or directory"),
    ],
)
def test_a_path_that_is_not_there_is_called_that_whatever_is_installed(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("yolact_export.facade.packages._is_installed", lambda _: False)
    assert export(*words) == 1
    assert f"error: {message}" in capsys.readouterr().err


def test_a_bundle_is_not_written_into_a_bundle(
    narrow_state: Narrow, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save(narrow_state("yolact_resnet50"), "yolact_resnet50.pth")
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96", "-q") == 0
    before = sorted((tmp_path / "b").rglob("*"))
    for inner in ("inner", "deep/inner"):
        assert export(checkpoint, "-o", tmp_path / "b" / inner, "--input-size", "96", "-q") == 1
        assert f"inner is inside the bundle {tmp_path / 'b'}, which" in capsys.readouterr().err
    assert sorted((tmp_path / "b").rglob("*")) == before
    # Somebody else's manifest.json makes no bundle of a folder.
    (tmp_path / "manifest.json").write_text("{}")
    assert export(checkpoint, "-o", tmp_path / "b", "--input-size", "96", "-q") == 0


def test_one_stray_option_has_and_two_have_no_effect(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save({}, "any.pth")
    assert export(checkpoint, "--calib", "photos") == 2
    assert "--calib has no effect without --prune, --int8 or --fp16" in capsys.readouterr().err
    assert export(checkpoint, "--calib", "photos", "--threads", "1") == 2
    assert "--calib, --threads have no effect without" in capsys.readouterr().err
