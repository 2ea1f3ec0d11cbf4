from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from support.kernels import SAMPLE
from yolact_plugins.compile import compiler, cuda_headers
from yolact_plugins.compile.cache import CubinCache, default_cache_folder, jit_is_forbidden
from yolact_plugins.compile.cubin_folder import (
    INDEX_NAME,
    CubinFolderError,
    cubin_folder,
    named_cubins,
    write_cubins,
)
from yolact_plugins.compile.cuda_headers import find_headers
from yolact_plugins.driver.cubin import Cubin
from yolact_plugins.errors import MissingCubinError, MissingDependencyError

OTHER = dataclasses.replace(SAMPLE, text=SAMPLE.text + "// newer\n")


@pytest.fixture(autouse=True)
def no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLACT_FORBID_JIT", raising=False)


@pytest.fixture(scope="module")
def compiled() -> Cubin:
    return compiler.compile_cubin(SAMPLE, "sm_87")


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is compiled."""
    names: list[str] = []
    really = compiler.compile_cubin

    def count(source: object, arch: str) -> Cubin:
        names.append(arch)
        return really(source, arch)  # type: ignore[arg-type]

    monkeypatch.setattr(compiler, "compile_cubin", count)
    return names


def test_compiled_once_and_found_again_with_everything_known_of_it(tmp_path: Path, compilations: list[str]) -> None:
    first = CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87")
    assert CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87") == first
    assert compilations == ["sm_87"]
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
    CubinCache(tmp_path / "cache").get(SAMPLE, "sm_90")
    CubinCache(tmp_path / "cache").get(OTHER, "sm_87")
    assert compilations == ["sm_87", "sm_90", "sm_87"]


def test_the_key_has_everything_that_determines_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CubinCache(tmp_path)
    keys = [(SAMPLE, "sm_87", "13.5", "h"), (SAMPLE, "sm_87", "13.6", "h"), (SAMPLE, "sm_87", "13.5", "other")]
    keys += [(OTHER, "sm_87", "13.5", "h"), (SAMPLE, "sm_90", "13.5", "h")]
    folders = {cache.entry_folder(*key) for key in keys}
    monkeypatch.setattr(compiler, "OPTIONS", ("--std=c++20",))
    assert len(folders | {cache.entry_folder(*keys[0])}) == 6


def test_other_headers_are_compiled_with(
    tmp_path: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patched CUDA: NVRTC of the same version, another cuda_fp16.hpp."""
    real = find_headers(compiler.nvrtc_version())
    patched = tmp_path / "include"
    shutil.copytree(real.folder, patched, ignore=lambda _, names: [name for name in names if "." not in name])
    for folder in (real.folder, patched):
        monkeypatch.setattr(cuda_headers, "_candidates", lambda version, folder=folder: iter([folder]))
        CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87")
    assert compilations == ["sm_87"]
    (patched / "cuda_fp16.hpp").write_text((patched / "cuda_fp16.hpp").read_text() + "// patched\n")
    cuda_headers._digest.cache_clear()
    CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87")
    assert compilations == ["sm_87", "sm_87"]


def test_forbidden_without_headers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: Cubin) -> None:
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    monkeypatch.setattr(cuda_headers, "_candidates", lambda version: iter([]))
    bundle = _bundle(tmp_path / "m.bundle", compiled)
    assert CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_87") == compiled
    with pytest.raises(MissingCubinError, match=r"cannot be searched without NVRTC and CUDA's headers.*cuda_fp16\.h"):
        CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_90")


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "index", "empty index", "index of nonsense"])
def test_a_damaged_entry_is_built_again_and_said(
    tmp_path: Path, compilations: list[str], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cache = CubinCache(tmp_path)
    good = cache.get(SAMPLE, "sm_87")
    (entry,) = tmp_path.iterdir()
    (file,) = entry.glob("*.cubin")
    if damage == "flip":
        file.write_bytes(good.code[:-1] + bytes([good.code[-1] ^ 1]))
    elif damage == "cut":
        file.write_bytes(good.code[:1000])
    elif damage == "remove":
        file.unlink()
    else:
        content = {"index": "{", "empty index": "", "index of nonsense": '{"format_version": 1, "cubins": [7]}'}
        (entry / INDEX_NAME).write_text(content[damage])
    with caplog.at_level(logging.WARNING):
        assert cache.get(SAMPLE, "sm_87") == good
    assert len(compilations) == 2
    assert "compiling sample for sm_87: " in caplog.text
    caplog.clear()
    assert cache.get(SAMPLE, "sm_87") == good
    assert (len(compilations), caplog.text) == (2, "")


@pytest.mark.parametrize("place", ["cache", "entry", "index", "cubin"])
def test_a_cache_that_others_may_write_is_not_used(
    tmp_path: Path, compilations: list[str], caplog: pytest.LogCaptureFixture, place: str
) -> None:
    folder = tmp_path / "cache"
    cache = CubinCache(folder)
    good = cache.get(SAMPLE, "sm_87")
    (entry,) = folder.iterdir()
    (file,) = entry.glob("*.cubin")
    path = {"cache": folder, "entry": entry, "index": entry / INDEX_NAME, "cubin": file}[place]
    path.chmod(0o777)
    assert cache.get(SAMPLE, "sm_87") == good
    assert compilations == ["sm_87", "sm_87"]
    assert f"chmod go-w {path}" in caplog.text
    # What others may write is not written to; a file of a folder that is ours is replaced, and is ours again.
    assert ("is not cached" in caplog.text) is path.is_dir()
    caplog.clear()
    path.chmod(0o700)
    assert cache.get(SAMPLE, "sm_87") == good
    assert (len(compilations), caplog.text) == (2, "")


def test_an_entry_that_is_a_link_out_of_the_cache(
    tmp_path: Path, compilations: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    cache = CubinCache(tmp_path / "cache")
    good = cache.get(SAMPLE, "sm_87")
    (entry,) = (tmp_path / "cache").iterdir()
    (file,) = entry.glob("*.cubin")
    file.symlink_to(file.rename(tmp_path / "elsewhere.cubin"))
    assert cache.get(SAMPLE, "sm_87") == good
    assert compilations == ["sm_87", "sm_87"]
    assert f"{file} is a link" in caplog.text


def test_no_umask_makes_a_cache_that_is_not_used(tmp_path: Path, compilations: list[str]) -> None:
    before = os.umask(0)
    try:
        CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87")
    finally:
        os.umask(before)
    CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87")
    assert compilations == ["sm_87"]
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def _get(folder: str) -> str:
    return CubinCache(Path(folder)).get(SAMPLE, "sm_87").sha256


def test_several_processes_may_fill_one_cache(tmp_path: Path, compiled: Cubin) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert set(pool.map(_get, [str(tmp_path)] * 6, chunksize=1)) == {compiled.sha256}
    (entry,) = tmp_path.iterdir()
    assert not [path for path in entry.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_costs_time_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    assert CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87").code
    assert "is not cached and will be compiled again" in caplog.text


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87").code
    assert "is not cached and will be compiled again" in caplog.text


def _bundle(folder: Path, cubin: Cubin) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    write_cubins(cubin_folder(folder), [cubin])
    assert (folder / "cubins" / INDEX_NAME).exists()
    return folder


def test_a_bundle_needs_no_compiler(
    tmp_path: Path, compiled: Cubin, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    def missing() -> str:
        raise MissingDependencyError("cuda-bindings", "Compiling CUDA kernels", "cuda")

    monkeypatch.setattr(compiler, "nvrtc_version", missing)
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    bundle = _bundle(tmp_path / "m.bundle", compiled)
    assert CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_87") == compiled
    assert compilations == []
    assert not (tmp_path / "cache").exists()
    with pytest.raises(
        MissingCubinError, match=r"has sample for sm_87, not for sm_90; the cache cannot be searched.*--arch sm_90 -o"
    ):
        CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_90")
    monkeypatch.delenv("YOLACT_FORBID_JIT")
    with pytest.raises(MissingDependencyError):
        CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_90")


def test_forbidden_means_forbidden_and_says_what_to_type(
    tmp_path: Path, compiled: Cubin, monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    bundle = _bundle(tmp_path / "m.bundle", compiled)
    with pytest.raises(MissingCubinError) as caught:
        CubinCache(tmp_path / "cache").get(SAMPLE, "sm_87")
    assert str(caught.value).endswith("python -m yolact_plugins.compile --arch sm_87 -o MODEL.bundle")
    assert caught.value.exit_status == 5
    with pytest.raises(MissingCubinError, match=r"from other sources than this version's.*m\.bundle$"):
        CubinCache(tmp_path / "cache", bundle).get(OTHER, "sm_87")
    (file,) = (bundle / "cubins").glob("*.cubin")
    file.write_bytes(b"\x7fELF")
    with pytest.raises(MissingCubinError, match=r"\.cubin is damaged: its SHA-256 is"):
        CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_87")
    assert compilations == []


def test_what_was_kept_before_may_be_used_when_compiling_is_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = CubinCache(tmp_path).get(SAMPLE, "sm_87")
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    assert CubinCache(tmp_path).get(SAMPLE, "sm_87") == kept


def test_an_outdated_bundle_is_compiled_for_and_said(
    tmp_path: Path, compiled: Cubin, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = _bundle(tmp_path / "m.bundle", compiled)
    assert CubinCache(tmp_path / "cache", bundle).get(OTHER, "sm_87").source_digest == OTHER.digest
    assert "from other sources than this version's" in caplog.text


def test_an_index_may_not_point_out_of_its_folder(
    tmp_path: Path, compiled: Cubin, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = _bundle(tmp_path / "m.bundle", compiled)
    index = bundle / "cubins" / INDEX_NAME
    document = json.loads(index.read_text())
    (tmp_path / "elsewhere.cubin").write_bytes(compiled.code)
    document["cubins"][0]["file"] = "../../elsewhere.cubin"
    index.write_text(json.dumps(document))
    CubinCache(tmp_path / "cache", bundle).get(SAMPLE, "sm_87")
    assert 'names "../../elsewhere.cubin", which is not in this folder' in caplog.text


def test_nothing_in_the_folder_of_a_bundle_makes_it_a_bundle_itself(tmp_path: Path, compiled: Cubin) -> None:
    """A signature covers ``cubins/cubins.json``; who can add files must not lead a reader to other cubins."""
    bundle = _bundle(tmp_path / "m.bundle", compiled)
    assert cubin_folder(bundle / "cubins") == bundle / "cubins"
    (bundle / "cubins" / "manifest.json").write_text("{}")
    (bundle / "cubins" / "cubins").mkdir()
    assert cubin_folder(bundle) == cubin_folder(bundle / "cubins") == bundle / "cubins"
    assert cubin_folder(tmp_path) == tmp_path


def test_the_files_that_an_index_names(tmp_path: Path, compiled: Cubin) -> None:
    index = write_cubins(tmp_path, [compiled]).read_bytes()
    (file,) = tmp_path.glob("*.cubin")
    (tmp_path / "stray.cubin").touch()
    assert named_cubins(tmp_path, index) == [(file, compiled.sha256)]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "", "a\\b", 7, None])
def test_an_index_names_files_beside_it_and_nothing_else(tmp_path: Path, compiled: Cubin, name: object) -> None:
    document = json.loads(write_cubins(tmp_path, [compiled]).read_bytes())
    document["cubins"][0]["file"] = name
    with pytest.raises(CubinFolderError, match=r"cubins\.json (names|cannot be read)"):
        named_cubins(tmp_path, json.dumps(document).encode())


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"format_version": 2}', b'{"format_version": 1, "cubins": [7]}', b"[" * 9**6]
)
def test_an_index_of_nonsense_names_nothing(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CubinFolderError, match=r"cubins\.json (cannot be read|has format version 2, not 1)"):
        named_cubins(tmp_path, content)


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "yolact-deploy" / "cubins"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_folder() == Path.home() / ".cache" / "yolact-deploy" / "cubins"


@pytest.mark.parametrize(("value", "forbidden"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_the_switch(monkeypatch: pytest.MonkeyPatch, value: str, forbidden: bool) -> None:
    monkeypatch.setenv("YOLACT_FORBID_JIT", value)
    assert jit_is_forbidden() is forbidden
