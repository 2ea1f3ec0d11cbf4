"""Compiled kernels of a bundle: used only where the manifest vouches for them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.kernels import SAMPLE
from support.precompiled import made_up_cubin, with_kernels
from support.scenes import Thing, write_bundle
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.cubin_folder import CubinIndex, write_cubins
from yolact_plugins.errors import MissingCubinError
from yolact_runtime.commands import run_cli
from yolact_runtime.errors import BundleError, UntrustedFileError
from yolact_runtime.model.bundle import MANIFEST_NAME, file_sha256, open_bundle, read_manifest
from yolact_runtime.model.kernel_folder import bundle_kernels, check_kernels
from yolact_runtime.model.manifest import Artefact

COMMAND = "python -m yolact_plugins.compile --arch "


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b", [Thing((0.25, 0.25, 0.75, 0.75))])


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")


def relist(bundle: Path, **changes: object) -> None:
    """Change the manifest's entry of the kernels, as who has the key could."""
    manifest = read_manifest(bundle)
    entry = dataclasses.replace(manifest.artefacts["cubins/cubins.json"], **changes)  # type: ignore[arg-type]
    changed = dataclasses.replace(manifest, artefacts={**manifest.artefacts, "cubins/cubins.json": entry})
    (bundle / MANIFEST_NAME).write_text(changed.to_json(), encoding="utf-8")


def kernels_of(bundle: Path, signed: bool = False) -> CubinIndex | None:
    return bundle_kernels(bundle, read_manifest(bundle), signed)


def refused(bundle: Path, message: str) -> None:
    """By the robot and by the check of a signature."""
    with pytest.raises(BundleError, match=message):
        kernels_of(bundle)
    with pytest.raises(BundleError, match=message):
        check_kernels(bundle, read_manifest(bundle))


def cubin(bundle: Path, arch: str = "sm_87") -> Path:
    (path,) = (bundle / "cubins").glob(f"sample.{arch}.*.cubin")
    return path


# --- what is used -----------------------------------------------------------------------------------------------------


def test_a_bundle_without_kernels(bundle: Path) -> None:
    assert kernels_of(bundle) is None
    check_kernels(bundle, read_manifest(bundle))


def test_a_bundle_with_kernels(bundle: Path, tmp_path: Path) -> None:
    with_kernels(bundle, "sm_87", "sm_90")
    index = kernels_of(bundle)
    assert index is not None
    assert (index.folder, index.root) == (bundle / "cubins", bundle)
    cache = CubinCache(tmp_path / "cache", index)
    assert cache.get(SAMPLE, "sm_90") == made_up_cubin("sm_90")
    check_kernels(bundle, read_manifest(bundle))


def test_it_is_still_a_bundle_that_runs(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_kernels(bundle, "sm_87")
    assert open_bundle(bundle).network.path == bundle / "model.fp32.onnx"
    picture = tmp_path / "bright.png"
    cv2.imwrite(str(picture), np.full((40, 60, 3), 255, np.uint8))
    assert run_cli.main([str(bundle), str(picture), "--backend", "onnxruntime-cpu"]) == 0
    assert "1 instance: 1 x cat" in capsys.readouterr().out


def test_files_that_the_index_does_not_name_are_never_read(bundle: Path) -> None:
    with_kernels(bundle, "sm_87")
    (bundle / "cubins" / "stray.cubin").write_bytes(b"evil")
    (bundle / "cubins" / "stray.cubin").chmod(0o666)
    assert kernels_of(bundle)
    check_kernels(bundle, read_manifest(bundle))


def test_a_bundle_inside_the_folder_does_not_replace_it(bundle: Path, tmp_path: Path) -> None:
    """Adding files breaks no hash, so it must not change what is run either."""
    with_kernels(bundle, "sm_87")
    (bundle / "cubins" / "manifest.json").write_text("{}")
    write_cubins(bundle / "cubins" / "cubins", [made_up_cubin("sm_87", b"evil")])
    cache = CubinCache(tmp_path / "cache", kernels_of(bundle))
    assert cache.get(SAMPLE, "sm_87") == made_up_cubin("sm_87")


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["cubins", "nothing"])
def test_a_folder_that_the_manifest_does_not_list(bundle: Path, content: str) -> None:
    write_cubins(bundle / "cubins", [made_up_cubin("sm_87")])
    if content == "nothing":
        shutil.rmtree(bundle / "cubins")
        (bundle / "cubins").mkdir()
    refused(bundle, rf"b/cubins is not listed .*not used.*{COMMAND}sm_XY -o {bundle}, or remove the folder$")


def test_an_index_that_was_exchanged(bundle: Path) -> None:
    index = with_kernels(bundle, "sm_87", "sm_90")
    index.write_bytes(index.read_bytes() + b" ")
    found = file_sha256(index)[:12]
    refused(
        bundle,
        rf"cubins\.json is not the one that the manifest lists: sha256 {found}….*not loaded, because kernels are "
        rf"executable code.*{COMMAND}sm_87 sm_90 -o {bundle}$",
    )


def test_an_index_and_cubins_that_fit_each_other_but_not_the_manifest(bundle: Path) -> None:
    with_kernels(bundle, "sm_87")
    write_cubins(bundle / "cubins", [made_up_cubin("sm_87", b"evil")], prune=True)
    refused(bundle, r"cubins\.json is not the one that the manifest lists")


@pytest.mark.parametrize("gone", ["cubins", "cubins/cubins.json"])
def test_kernels_that_were_not_copied(bundle: Path, gone: str) -> None:
    with_kernels(bundle, "sm_87")
    path = bundle / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(bundle, rf"cannot read .*cubins\.json: No such file.*; copy the whole folder, or .*{COMMAND}sm_87 -o")


def test_a_cubin_that_was_exchanged(bundle: Path, tmp_path: Path) -> None:
    with_kernels(bundle, "sm_87", "sm_90")
    cubin(bundle).write_bytes(b"evil")
    with pytest.raises(BundleError, match=r"sample\.sm_87\..*\.cubin is not the file that .*cubins\.json describes"):
        check_kernels(bundle, read_manifest(bundle))
    # Loading needs no check of all: each is checked when it is read.
    cache = CubinCache(tmp_path / "cache", kernels_of(bundle))
    assert cache.get(SAMPLE, "sm_90") == made_up_cubin("sm_90")
    with pytest.raises(MissingCubinError, match="is damaged: its SHA-256 is"):
        cache.get(SAMPLE, "sm_87")


@pytest.mark.parametrize("instead", ["nothing", "a folder"])
def test_a_cubin_that_is_missing(bundle: Path, instead: str) -> None:
    with_kernels(bundle, "sm_87", "sm_90")
    path = cubin(bundle, "sm_90")
    path.unlink()
    if instead == "a folder":
        path.mkdir()
    with pytest.raises(BundleError, match=r"sample\.sm_90\..*\.cubin is missing.*copy the whole folder, or compile"):
        check_kernels(bundle, read_manifest(bundle))
    if instead == "a folder":
        with pytest.raises(BundleError, match=r"\.cubin is not a regular file"):
            kernels_of(bundle)
        return
    # A robot may leave out what other GPUs run.
    assert kernels_of(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"cubins\.json cannot be read"),
        ('{"format_version": 2, "cubins": []}', "has format version 2, not 1"),
        (
            '{"format_version": 1, "cubins": [{"file": "../model.fp32.onnx", "sha256": ""}]}',
            r'names "\.\./model\.fp32\.onnx", which is not in this folder',
        ),
    ],
)
def test_an_index_that_is_listed_and_cannot_be_understood(bundle: Path, content: str, message: str) -> None:
    index = with_kernels(bundle, "sm_87")
    index.write_text(content)
    relist(bundle, sha256=file_sha256(index))
    refused(bundle, f"{message}.*{COMMAND}sm_87 -o")


def test_an_entry_of_another_role(bundle: Path) -> None:
    with_kernels(bundle, "sm_87")
    relist(bundle, role="engine")
    refused(bundle, r'lists cubins/cubins\.json as "engine", not as "kernels".*yolact_plugins\.compile --arch')


def test_what_to_type_holds_architectures_and_nothing_else_of_a_manifest(bundle: Path) -> None:
    with_kernels(bundle, "sm_87")
    relist(bundle, sha256="0" * 64, build={"archs": "sm_87; rm -rf ~, $(evil) sm_90"})
    refused(bundle, f"{COMMAND}sm_87 sm_90 -o")
    relist(bundle, build={})
    refused(bundle, f"{COMMAND}sm_XY -o")


WRITABLE: dict[str, Callable[[Path], Path]] = {
    "bundle": lambda bundle: bundle,
    "folder": lambda bundle: bundle / "cubins",
    "index": lambda bundle: bundle / "cubins" / "cubins.json",
    "cubin": cubin,
}


@pytest.mark.parametrize("place", WRITABLE.values(), ids=WRITABLE)
def test_what_everybody_may_write_is_not_run(bundle: Path, place: Callable[[Path], Path]) -> None:
    with_kernels(bundle, "sm_87")
    path = place(bundle)
    mode = path.stat().st_mode
    path.chmod(mode | 0o002)
    with pytest.raises(
        BundleError,
        match=rf"^{path} belongs to .*written by every user .*kernels are executable code.*chmod go-w {path}\. Or sign "
        rf"the bundle",
    ):
        kernels_of(bundle)
    # Signing and checking a signature run nothing.
    check_kernels(bundle, read_manifest(bundle))
    # And the hashes of a verified manifest are enough.
    signed = kernels_of(bundle, signed=True)
    assert CubinCache(precompiled=signed).get(SAMPLE, "sm_87") == made_up_cubin("sm_87")
    path.chmod(mode)
    assert kernels_of(bundle)


def test_what_was_compared_is_what_is_used(bundle: Path, tmp_path: Path) -> None:
    """Everything is exchanged, hashes too, after the index was compared: nothing of it is looked at."""
    with_kernels(bundle, "sm_87")
    index = kernels_of(bundle)
    write_cubins(bundle / "cubins", [made_up_cubin("sm_87", b"evil")])
    assert CubinCache(tmp_path / "cache", index).get(SAMPLE, "sm_87") == made_up_cubin("sm_87")
    (bundle / MANIFEST_NAME).write_text("{}")
    assert CubinCache(tmp_path / "cache", index).get(SAMPLE, "sm_87") == made_up_cubin("sm_87")


def test_a_cubin_that_others_may_write_since_the_bundle_was_opened(bundle: Path, tmp_path: Path) -> None:
    with_kernels(bundle, "sm_87")
    index = kernels_of(bundle)
    cubin(bundle).chmod(0o666)
    with pytest.raises(UntrustedFileError, match="kernels are executable code"):
        CubinCache(tmp_path / "cache", index).get(SAMPLE, "sm_87")


def test_the_manifest_of_a_bundle_with_kernels_reads_as_any_other(bundle: Path) -> None:
    index = with_kernels(bundle, "sm_87")
    entry = read_manifest(bundle).artefacts["cubins/cubins.json"]
    build = {"archs": "sm_87", "nvrtc_version": "13.5"}
    assert entry == Artefact("kernels", "", file_sha256(index), index.stat().st_size, build)
    text = (bundle / MANIFEST_NAME).read_text(encoding="utf-8")
    assert read_manifest(bundle).to_json() == text
    assert json.loads(text)["artefacts"]["cubins/cubins.json"]["role"] == "kernels"
