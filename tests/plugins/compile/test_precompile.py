from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.kernels import SAMPLE
from support.scenes import small_manifest
from yolact_plugins.compile import compiler, precompile
from yolact_plugins.compile.cache import CubinCache
from yolact_plugins.compile.precompile import main
from yolact_runtime.model.manifest import Manifest


@pytest.fixture(autouse=True)
def only_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompile, "families", lambda: ("sample",))
    monkeypatch.setattr(precompile, "read_source", lambda name: SAMPLE)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "my.bundle"
    folder.mkdir()
    (folder / "manifest.json").write_text(small_manifest().to_json(), encoding="utf-8")
    return folder


def test_a_bundle_gets_a_folder_that_the_cache_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text(small_manifest().to_json(), encoding="utf-8")
    assert main(["--arch", "sm_87", "sm_90", "sm_87", "-o", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "sm_90   mixed" in output
    assert "128 B shared" in output
    assert output.splitlines()[-1].startswith(f"{tmp_path / 'cubins' / 'cubins.json'}: 2 cubins, ")
    assert output.endswith(f" kB, for drivers of CUDA {compiler.nvrtc_version().split('.')[0]} and newer\n")
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    cache = CubinCache(tmp_path / "cache", tmp_path)
    assert [cache.get(SAMPLE, arch).arch for arch in ("sm_87", "sm_90")] == ["sm_87", "sm_90"]


def test_another_run_replaces_the_files_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert main(["--arch", "sm_87", "sm_90", "-o", str(tmp_path)]) == 0
    assert main(["--arch", "sm_80", "-o", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "cubins.json").read_text())
    (entry,) = document["cubins"]
    assert (entry["family"], entry["arch"], entry["kernels"]["mixed"]["shared_bytes"]) == ("sample", "sm_80", 128)
    assert {path.name for path in tmp_path.iterdir()} == {"cubins.json", "notes.txt", entry["file"]}


def test_the_manifest_of_a_bundle_lists_the_kernels(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arch", "sm_90", "sm_87", "-o", str(bundle)]) == 0
    (name, entry), *others = Manifest.from_json((bundle / "manifest.json").read_bytes(), "x").artefacts.items()
    assert not others
    assert (name, entry.role, entry.precision) == ("cubins/cubins.json", "kernels", "")
    assert entry.build == {"archs": "sm_90, sm_87", "nvrtc_version": compiler.nvrtc_version()}
    assert capsys.readouterr().err == ""


def test_a_signed_bundle_keeps_its_signature_unless_that_is_given_up(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("manifest.json.sig", "signature.json"):
        (bundle / name).write_bytes(bytes(64))
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    words = ["--arch", "sm_87", "-o", str(bundle)]
    with monkeypatch.context() as patch:
        patch.setattr(compiler, "compile_cubin", lambda *_: pytest.fail("compiled"))
        assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {bundle} is signed, and compiling kernels into it would invalidate the signature")
    assert "nothing is changed" in line
    assert "--drop-signature" in line
    assert f"sign afterwards: yolact-export {bundle} --sign KEY" in line
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before

    assert main([*words, "--drop-signature"]) == 0
    assert sorted(path.name for path in bundle.iterdir()) == ["cubins", "manifest.json"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"the signature of {bundle} was removed, because it does not cover the new kernels; sign it again: "
        f"yolact-export {bundle} --sign KEY"
    )
    # The second time there is none, and nothing to say.
    assert main(words) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "folder"), [("my.bundle/cubins", "."), ("cubins", "my.bundle"), (".", "my.bundle/cubins")]
)
def test_the_folder_inside_a_bundle_is_the_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, words: str, folder: str
) -> None:
    (bundle / "cubins").mkdir()
    monkeypatch.chdir(bundle.parent / folder)
    assert main(["--arch", "sm_87", "-o", words]) == 0
    assert "cubins/cubins.json" in Manifest.from_json((bundle / "manifest.json").read_bytes(), "x").artefacts
    assert {path.suffix for path in (bundle / "cubins").iterdir()} == {".json", ".cubin"}


@pytest.mark.parametrize("content", ["{", '{"schema_version": 99, "artefacts": {}}'])
def test_a_manifest_that_cannot_list_kernels_is_refused_before_anything_is_compiled(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (bundle / "manifest.json").write_text(content)
    (bundle / "manifest.json.sig").write_bytes(bytes(64))
    monkeypatch.setattr(compiler, "compile_cubin", lambda *_: pytest.fail("compiled"))
    assert main(["--arch", "sm_87", "-o", str(bundle)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {bundle / 'manifest.json'} ")
    assert sorted(path.name for path in bundle.iterdir()) == ["manifest.json", "manifest.json.sig"]
    assert (bundle / "manifest.json").read_text() == content


def test_what_does_not_compile_leaves_a_bundle_as_it_was(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    (bundle / "manifest.json.sig").write_bytes(bytes(64))
    assert main(["--arch", "sm_87", "sm_20", "-o", str(bundle), "--drop-signature"]) == 1
    assert sorted(path.name for path in bundle.iterdir()) == ["manifest.json", "manifest.json.sig"]
    assert (bundle / "manifest.json").read_bytes() == before


def test_an_unknown_architecture_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arch", "sm_87", "sm_20", "-o", str(tmp_path / "out")]) == 1
    assert "cannot compile for sm_20, only for" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_output_the_cache_of_this_machine_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["--arch", "sm_87"]) == 0
    assert str(tmp_path / "yolact-deploy" / "cubins") in capsys.readouterr().out
    monkeypatch.setenv("YOLACT_FORBID_JIT", "1")
    assert CubinCache().get(SAMPLE, "sm_87").arch == "sm_87"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--arch", "sm_87", "-o", str(tmp_path / "file" / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_installation_without_kernels_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precompile, "families", tuple)
    assert main(["--arch", "sm_87"]) == 1
    assert "this installation has no kernels" in capsys.readouterr().err


def test_the_documented_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "yolact_plugins.compile", "--arch", "87"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert (
        done.stderr == 'error: --arch: "87" is not a GPU architecture; write it as sm_87 for compute capability 8.7\n'
    )


def test_the_former_name_still_works_and_says_where_it_went() -> None:
    typed = [sys.executable, "-m", "yolact_plugins.compiler", "--help"]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("usage: python -m yolact_plugins.compile ")
    assert "DeprecationWarning: yolact_plugins.compiler is deprecated and will be removed in version 0." in done.stderr
    assert ": type python -m yolact_plugins.compile, import yolact_plugins.compile.compiler" in done.stderr
    imported = "from yolact_plugins.compiler import compile_cubin; print(compile_cubin.__module__)"
    done = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "yolact_plugins.compile.compiler"
    assert "DeprecationWarning" in done.stderr


def test_warnings_of_the_log_reach_the_terminal() -> None:
    code = """
import logging
from yolact_plugins.compile import precompile
precompile._run = lambda options: logging.getLogger("yolact_plugins.compile.cache").warning("the cache") or 3
raise SystemExit(precompile.main(["--arch", "sm_87"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "WARNING yolact_plugins.compile.cache: the cache\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arch", "sm_87", "-o", "nope.bundle"], "error: no bundle at nope.bundle: "),
        (["--arch", "sm_87", "-o", "photo.jpg"], "error: -o takes a bundle or another folder; photo.jpg is a file"),
        (["--arch", "87", "-o", "new"], 'error: --arch: "87" is not a GPU architecture; write it as sm_87'),
    ],
)
def test_words_that_cannot_be_meant_are_answered_and_nothing_is_written(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").touch()
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
