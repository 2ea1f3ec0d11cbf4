"""``yolact-export BUNDLE``: what it refuses, and networks that are added, on a network that runs in milliseconds."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from support.engine_graphs import write_engine_bundle
from support.precision_trials import make_frames, write_small_bundle
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge
from yolact_calibration.precision import network_maker
from yolact_export.commands import cli
from yolact_export.golden import write_golden
from yolact_export.precision import document as document_module
from yolact_runtime.media.images import write_image
from yolact_runtime.model.bundle import open_bundle, read_manifest
from yolact_runtime.model.bundle_signature import sign_bundle, verify_bundle


@pytest.fixture(scope="module", autouse=True)
def _quick_figures() -> Iterator[None]:
    """Latencies and intervals are of no interest here."""
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


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "small.bundle")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def export(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


def words_for(bundle: Path, photos: Path, cache: Path, *words: str | Path) -> list[str]:
    quick = ("--threads", "1", "--calibration-cache", cache, "--guard-images", "1", "--no-guard")
    return [str(word) for word in (bundle, "--calib", photos, *quick, *words)]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--engine", "--calib", "photos"],
            "--calib has no effect without --int8 or --fp16; add one of",
        ),
        (["--engine", "--max-drop", "0"], "--max-drop has no effect without --int8 or --fp16; add one of them"),
        (["--engine", "-o", "other"], "-o has no effect on a bundle: it is changed in place; leave it out"),
        (["--int8", "--calib", "c", "--output", "other"], "--output has no effect on a bundle: it is changed in"),
        (["--int8", "--calib", "c", "--config", "x"], "--config has no effect on a bundle: its manifest states"),
        (
            ["--int8", "--input-size", "64", "--class-names", "f"],
            "--input-size, --class-names have no effect on",
        ),
        (["--fp16", "--dynamic-batch"], "--dynamic-batch has no effect on a bundle: its graph was"),
        (["--fp16", "--deform-conv", "grid-sample"], "--deform-conv has no effect on a bundle"),
        (["--int8", "--prune", "0.4"], "--prune has no effect on a bundle: only a .pth checkpoint can be pruned"),
        (["--int8", "--no-engine"], "--no-engine has no effect on a bundle: its engines are only built with"),
        (
            ["--int8", "--calib", "c", "--workspace", "2G"],
            "--workspace has no effect where no engine is built; add",
        ),
        (["--int8"], "--int8 and --fp16 need --calib"),
        (["--fp16", "--calib", "c", "--int8-all"], "--int8-all has no effect without --int8; add --int8"),
        (
            ["--int8", "--calib", "c", "--engine", "--target", "cpu"],
            "--engine has no effect with --target cpu: ONNX Runtime",
        ),
    ],
)
def test_what_a_bundle_cannot_be_given_is_refused_with_the_reason(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_engine_bundle(tmp_path / "b", ("fp32",))
    before = files(bundle)
    assert export(bundle, *words) == 2
    assert message in capsys.readouterr().err
    assert files(bundle) == before


def test_without_anything_to_do_it_says_what_can_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = write_engine_bundle(tmp_path / "my b", ("fp32", "int8"))
    assert export(bundle) == 2
    talk = capsys.readouterr().err
    assert f"{bundle} is a bundle (fp32, int8)" in talk
    assert f"yolact-export '{bundle}' --int8 --fp16 --calib DIR" in talk
    assert f"yolact-export '{bundle}' --engine" in talk
    (tmp_path / "folder").mkdir()
    assert export(tmp_path / "folder") == 2
    assert "is neither a bundle nor a PyTorch checkpoint, but a folder" in capsys.readouterr().err


def test_a_lone_onnx_file_is_told_from_its_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(bundle / "model.fp32.onnx", "--int8", "--calib", "c") == 2
    assert "is an ONNX file, which yolact-run runs; networks and engines are added to its bundle" in (
        capsys.readouterr().err
    )


def test_a_damaged_network_is_status_1_before_any_work(
    bundle: Path, photos: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes() + b"?")
    assert export(*words_for(bundle, photos, cache, "--int8")) == 1
    talk = capsys.readouterr().err
    assert "is not the file that the manifest describes" in talk
    assert "calibrating" not in talk


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_later_network_leaves_the_earlier_ones_in_bundle_and_report(bundle: Path, photos: Path, cache: Path) -> None:
    assert export(*words_for(bundle, photos, cache, "--int8", "--int8-all", "--target", "cpu")) == 0
    before = files(bundle)["model.int8-cpu.onnx"]
    assert export(*words_for(bundle, photos, cache, "--fp16")) == 0
    assert files(bundle)["model.int8-cpu.onnx"] == before
    page = files(bundle)["report.html"].decode()
    assert "Networks made earlier" in page
    assert "agreement AP on 1 images" in page
    found = json.loads(files(bundle)["report.json"])
    assert [row["precision"] for row in found["precision"]["variants"]] == ["fp32", "fp16"]
    assert [row["precision"] for row in found["precision"]["earlier"]] == ["int8-cpu"]
    assert "search" in found["earlier_precisions"][0]


def test_a_rejected_network_is_status_3_and_the_others_stand(
    bundle: Path, photos: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(*words_for(bundle, photos, cache, "--fp16")) == 0
    half = files(bundle)["model.fp16.onnx"]
    words = [word for word in words_for(bundle, photos, cache, "--int8", "--int8-all") if word != "--no-guard"]
    assert export(*words, "--target", "cpu", "--max-drop", "0.001") == 3
    assert "error: int8-cpu loses" in capsys.readouterr().err
    assert files(bundle)["model.fp16.onnx"] == half
    assert "model.int8-cpu.onnx.rejected" in files(bundle)
    assert set(read_manifest(bundle).artefacts) == {"golden.npz", "model.fp32.onnx", "model.fp16.onnx"}


def rename_a_class(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    renamed = dataclasses.replace(manifest, class_names=("person", *manifest.class_names[1:]))
    (bundle / "manifest.json").write_text(renamed.to_json())


def change_the_mean(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    changed = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, mean_bgr=(0.0, 0.0, 0.0)))
    (bundle / "manifest.json").write_text(changed.to_json())


@pytest.mark.parametrize(
    ("change", "has_golden", "message"),
    [
        (rename_a_class, True, 'calls class 0 "person", the model was exported with "a"'),
        (change_the_mean, True, "input.mean_bgr is (0.0, 0.0, 0.0) in the manifest"),
        (change_the_mean, False, "input.mean_bgr is (0.0, 0.0, 0.0) in the manifest"),
    ],
)
def test_a_manifest_that_is_not_the_networks_is_not_passed_on(
    bundle: Path,
    photos: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    has_golden: bool,
    message: str,
) -> None:
    if has_golden:
        write_golden(bundle, read_manifest(bundle))
    change(bundle)
    before = files(bundle)
    assert export(*words_for(bundle, photos, cache, "--fp16", "-q")) == 8
    assert message in capsys.readouterr().err
    assert files(bundle) == before


@pytest.mark.parametrize("work", [["--fp16"], ["--engine", "--target", "rtx"]])
def test_what_was_changed_since_it_was_signed_is_not_signed_again(
    bundle: Path, photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], work: list[str]
) -> None:
    key = tmp_path / "sign.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    sign_bundle(bundle, key)
    rename_a_class(bundle)
    before = files(bundle)
    words = words_for(bundle, photos, cache) if "--fp16" in work else [str(bundle)]
    assert export(*words, *work, "--sign", key, "-q") == 1
    assert "its signature does not fit" in capsys.readouterr().err
    assert files(bundle) == before


def test_a_signature_is_removed_with_a_word_or_made_anew(
    bundle: Path, photos: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "sign.pem", tmp_path / "verify.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    words = words_for(bundle, photos, cache, "--fp16")
    assert export(*words, "--verify-key", public) == 1
    assert "is not signed" in capsys.readouterr().err
    assert "model.fp16.onnx" not in files(bundle)
    assert export(*words, "--sign", private) == 0
    verify_bundle(bundle, public)
    capsys.readouterr()
    before = files(bundle)
    assert export(*words, "--verify-key", public) == 1
    assert "the change would invalidate its signature; nothing is changed" in capsys.readouterr().err
    assert files(bundle) == before
    assert export(*words, "--verify-key", public, "--drop-signature") == 0
    assert f"{bundle} is not signed now: sign it with yolact-export {bundle} --sign KEY" in capsys.readouterr().err
    assert not {"manifest.json.sig", "signature.json"} & set(files(bundle))


def test_an_engine_is_built_of_what_was_added(bundle: Path, photos: Path, cache: Path) -> None:
    words = words_for(bundle, photos, cache, "--fp16", "--target", "rtx", "--compute-capability", "8.6")
    assert export(*words, "--engine") == 0
    listed = read_manifest(bundle).artefacts
    assert {"model.fp32.rtx.plan", "model.fp16.rtx.plan"} <= set(listed)
    first = listed["model.fp16.rtx.plan"]
    # The same network again: its engine stays.
    assert export(*words_for(bundle, photos, cache, "--fp16")) == 0
    assert read_manifest(bundle).artefacts["model.fp16.rtx.plan"] == first


# --- interrupts -------------------------------------------------------------------------------------------------------


def test_an_interrupt_is_130_and_leaves_the_bundle_as_it_was(
    bundle: Path, photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(bundle)

    def interrupt(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(network_maker, "make_int8", interrupt)
    assert export(*words_for(bundle, photos, cache, "--int8", "--fp16")) == 130
    assert files(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


BLOCK_TORCH = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "torch_pruning", "tensorrt", "tensorrt_rtx"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import functools
from yolact_calibration.evaluation.bootstrap import BootstrapSettings
from yolact_calibration.evaluation.judge import Judge
from yolact_export.commands.cli import main
from yolact_export.precision import document
from yolact_calibration.precision import network_maker
# As in the process of the tests: latencies and intervals are of no interest here.
network_maker.Judge = functools.partial(Judge, settings=BootstrapSettings(num_resamples=20))
document.time_networks_ms = functools.partial(document.time_networks_ms, seconds=0.0)
sys.exit(main(sys.argv[1:]))
"""


def test_networks_are_added_without_torch(bundle: Path, photos: Path, cache: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.json"
    words = words_for(bundle, photos, cache, "--int8", "--int8-all", "--fp16", "--json", str(report))
    done = subprocess.run([sys.executable, "-c", BLOCK_TORCH, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{bundle} extended in " in done.stderr
    assert done.stderr.rstrip().endswith(f"next:  yolact-run {bundle} IMAGE -o out")
    assert open_bundle(bundle).manifest.precision == "int8-cpu"
    assert {"model.fp16.onnx", "model.int8.onnx", "model.int8-cpu.onnx", "report.html"} <= set(files(bundle))
    found, outside = (json.loads(path.read_bytes()) for path in (bundle / "report.json", report))
    assert found["findings"] == ["made up"]
    assert outside["precision"] == found["precision"]
    assert outside["removed"] == outside["engines"] == []
    assert outside["manifest"] == json.loads((bundle / "manifest.json").read_bytes())
    assert {row["precision"] for row in found["precision"]["variants"]} == {"fp32", "fp16", "int8", "int8-cpu"}


def test_a_kill_leaves_the_bundle_as_it_was(bundle: Path, photos: Path, cache: Path) -> None:
    before = files(bundle)
    words = words_for(bundle, photos, cache, "--int8", "--fp16")
    process = subprocess.Popen([sys.executable, "-c", BLOCK_TORCH, *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "searching a plan" in line:
            # The float16 network is written by now.
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert files(bundle) == before
    (left,) = (path for path in bundle.parent.iterdir() if path != bundle)
    assert left.name.endswith(".partial")
    assert (left / "model.fp16.onnx").exists()
