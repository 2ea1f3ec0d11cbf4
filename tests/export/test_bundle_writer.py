"""A bundle is written whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.precompiled import with_kernels
from support.staged import TOKEN
from yolact_export.bundle_writer import check_destination, put_manifest, staged_bundle, write_manifest
from yolact_export.commands.cli import main as yolact_export
from yolact_export.errors import ExportError
from yolact_plugins import staging
from yolact_runtime.model.bundle import read_manifest
from yolact_runtime.model.bundle_folder import BundleFolder
from yolact_runtime.model.kernel_folder import bundle_kernels
from yolact_runtime.model.manifest import InputSpec, Manifest, PriorSpec

MANIFEST = Manifest(
    "tiny",
    ("thing",),
    InputSpec(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    PriorSpec(((1, 1),), ((4.0,),), (1.0,), True),
)


def write(bundle: Path, content: bytes) -> None:
    with staged_bundle(bundle) as folder:
        (folder / "model.fp32.onnx").write_bytes(content)
        write_manifest(folder, MANIFEST, {"model.fp32.onnx": "network"})


def network_of(bundle: Path) -> bytes:
    """What a reader is given, once it is what the manifest says."""
    with BundleFolder(bundle) as opened:
        return opened.read("model.fp32.onnx")


def test_a_written_bundle_opens(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "a.bundle", b"weights")
    bundle = tmp_path / "deep" / "a.bundle"
    assert network_of(bundle) == b"weights"
    assert read_manifest(bundle).artefacts["model.fp32.onnx"].size_bytes == 7
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.bundle"]


def test_what_the_runtime_would_refuse_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    before = (tmp_path / "manifest.json").read_text()
    broken = before.replace("4.0", "Infinity")
    assert broken != before
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "to_json", lambda self: broken)
        with pytest.raises(
            ExportError, match=r"would refuse this model, so nothing is written: .*must be a finite number"
        ):
            put_manifest(tmp_path, MANIFEST)
        patch.setattr(Manifest, "to_json", lambda self: before)
        with pytest.raises(ExportError, match=r"would read a different manifest .*: name, class_names would change"):
            put_manifest(tmp_path, replace(MANIFEST, name="other", class_names=("a", "b")))
    assert (tmp_path / "manifest.json").read_text() == before


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_bundle_replaces_an_earlier_one(tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda a, b: False)
    bundle = tmp_path / "a.bundle"
    write(bundle, b"old")
    write(bundle, b"new")
    assert network_of(bundle) == b"new"
    assert sorted(path.name for path in bundle.iterdir()) == ["manifest.json", "model.fp32.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_earlier_bundle_whole(tmp_path: Path, error: type[BaseException]) -> None:
    bundle = tmp_path / "a.bundle"
    write(bundle, b"old")

    def fail_halfway() -> None:
        with staged_bundle(bundle) as folder:
            (folder / "model.fp32.onnx").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert network_of(bundle) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ExportError, match="is not a bundle"):
        check_destination(tmp_path)
    with pytest.raises(ExportError, match="is a file"):
        check_destination(tmp_path / "photo.jpg")
    empty = tmp_path / "empty"
    empty.mkdir()
    check_destination(empty)
    write(empty, b"new")
    assert network_of(empty) == b"new"


def test_a_bundle_with_other_files_in_it_is_left_alone(tmp_path: Path) -> None:
    bundle = tmp_path / "a.bundle"
    write(bundle, b"old")
    (bundle / "mine.pth").write_bytes(b"precious")
    with pytest.raises(ExportError, match=r"other files in it \(mine\.pth\)"):
        write(bundle, b"new")
    assert (bundle / "mine.pth").read_bytes() == b"precious"
    assert network_of(bundle) == b"old"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_a_bundle_with_precompiled_kernels_may_be_replaced(
    tmp_path: Path, listed: bool, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels go with the manifest that lists them: what is left is a bundle without any."""
    if not exchange:
        monkeypatch.setattr(staging, "_exchange", lambda a, b: False)
    bundle = tmp_path / "a.bundle"
    write(bundle, b"old")
    if listed:
        with_kernels(bundle, "sm_87")
        assert bundle_kernels(bundle, read_manifest(bundle))
    else:
        (bundle / "cubins").mkdir()
        (bundle / "cubins" / "cubins.json").touch()
    write(bundle, b"new")
    assert network_of(bundle) == b"new"
    assert sorted(path.name for path in bundle.iterdir()) == ["manifest.json", "model.fp32.onnx"]
    assert bundle_kernels(bundle, read_manifest(bundle)) is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]


def test_a_failed_export_keeps_the_kernels_of_the_earlier_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "a.bundle"
    write(bundle, b"old")
    with_kernels(bundle, "sm_87")
    with pytest.raises(RuntimeError), staged_bundle(bundle):
        raise RuntimeError
    assert bundle_kernels(bundle, read_manifest(bundle))


def test_a_folder_with_somebody_elses_manifest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "My web app"}')
    (tmp_path / "index.html").touch()
    with pytest.raises(ExportError, match="not a bundle that this program reads"):
        check_destination(tmp_path)


def test_a_bundle_whose_replacement_was_killed_between_two_renames_is_put_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the next command that would change it, which has something to change then."""
    bundle = tmp_path / "a.bundle"
    write(bundle, b"old")
    bundle.rename(tmp_path / f".a.bundle.{TOKEN}.earlier")
    assert yolact_export([str(bundle)]) == 2
    assert "is a bundle" in capsys.readouterr().err
    assert (bundle / "model.fp32.onnx").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bundle"]
