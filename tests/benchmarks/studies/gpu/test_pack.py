"""What travels to a machine without a network: its size, its halves, and that it can be put together again."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.fake_tensorrt import add_engine
from support.properties import examples
from support.scenes import Thing, with_precisions, write_bundle
from yolact_benchmarks.studies.gpu import cli, pack
from yolact_benchmarks.studies.gpu.pack import PackRequest, copy_bundle, make_pack, travelling_bytes
from yolact_benchmarks.studies.gpu.parts import SUITE_PARTS, compress_wheels, join_parts, split_parts, write_parts
from yolact_runtime.errors import UsageError
from yolact_runtime.model.bundle import open_bundle

CONTENT = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()


def wheel(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", f"NAME = {name!r}\n")
        archive.writestr(f"{name}/lib.so", CONTENT)
    return path


@examples(30)
@given(st.binary(max_size=200), st.lists(st.integers(-5, 80), min_size=1, max_size=4))
def test_parts_fill_their_rooms_and_nothing_is_lost(content: bytes, rooms: list[int]) -> None:
    parts = split_parts(content, rooms)
    assert b"".join(parts) == content
    assert len(parts) == len(rooms)
    assert all(len(part) <= max(room, 0) for part, room in zip(parts[:-1], rooms, strict=False))


def test_wheels_come_out_of_their_parts(tmp_path: Path) -> None:
    content = compress_wheels([wheel(tmp_path / "in", "one"), wheel(tmp_path / "in", "two")])
    folders = [tmp_path / "pack" / half for half in ("first", "second")]
    write_parts(folders, "rtx", split_parts(content, [100, 0]))
    join_parts(tmp_path / "pack", "rtx", tmp_path / "site")
    assert (tmp_path / "site" / "one" / "lib.so").read_bytes() == CONTENT
    assert (tmp_path / "site" / "two" / "__init__.py").read_text() == "NAME = 'two'\n"


def test_parts_that_are_missing_or_damaged(tmp_path: Path) -> None:
    content = compress_wheels([wheel(tmp_path / "in", "one")])
    folders = [tmp_path / "pack" / half for half in ("first", "second")]
    with pytest.raises(
        UsageError, match=r"holds no part of rtx; make it with: python -m yolact_benchmarks\.studies\.gpu pack"
    ):
        join_parts(tmp_path / "pack", "rtx", tmp_path / "site")
    write_parts(folders, "rtx", split_parts(content, [100, 0]))
    (second,) = folders[1].iterdir()
    whole = second.read_bytes()
    second.write_bytes(whole[:-20])
    with pytest.raises(UsageError, match="are damaged"):
        join_parts(tmp_path / "pack", "rtx", tmp_path / "site")
    second.unlink()
    with pytest.raises(UsageError, match=r"1 of 2 parts of rtx are in .*carry both halves"):
        join_parts(tmp_path / "pack", "rtx", tmp_path / "site")
    assert not (tmp_path / "site").exists()


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / ".gitignore").write_text("out/\n")
    (root / "tracked").write_bytes(bytes(1000))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "tracked", ".gitignore"], cwd=root, check=True)
    (root / "new").write_bytes(bytes(500))
    (root / "out").mkdir()
    (root / "out" / "ignored").write_bytes(bytes(9000))
    return root


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(packages: Sequence[str], python: str, into: Path) -> list[Path]:
        assert python == "3.12"
        return [wheel(into, name.partition("==")[0].replace("-", "_")) for name in packages]

    monkeypatch.setattr(pack, "_download", download)


def test_what_git_does_not_ignore_travels(checkout: Path) -> None:
    assert travelling_bytes(checkout) == 1000 + 500 + len("out/\n")


@pytest.mark.usefixtures("no_registry")
def test_a_pack_without_engines(checkout: Path, tmp_path: Path) -> None:
    output = tmp_path / "pack"
    (output / "first").mkdir(parents=True)
    (output / "first" / "left over").write_text("")
    sizes = make_pack(PackRequest(checkout, output, 1 << 20, with_rtx=False))
    part, commit = sorted((output / "first").iterdir(), key=lambda path: path.name, reverse=True)
    assert commit.name == "commit"
    assert sizes == {
        "tree": 1505,
        "first": 1505 + part.stat().st_size + commit.stat().st_size,
        "second": 1505,
    }
    join_parts(output, SUITE_PARTS, tmp_path / "site")
    assert {path.name for path in (tmp_path / "site").iterdir()} >= {"hypothesis", "pytest_xdist"}


@pytest.mark.usefixtures("no_registry")
def test_what_is_too_large_is_an_error(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"the tracked tree alone is 0\.0 MiB, and 0 MiB may be transferred"):
        make_pack(PackRequest(checkout, tmp_path / "pack", 1000, with_rtx=False))
    with pytest.raises(
        UsageError, match=r"first is 0\.\d MiB with the tracked tree of 0\.0 MiB, and 0 MiB may be transferred"
    ):
        make_pack(PackRequest(checkout, tmp_path / "pack", 2000, with_rtx=False))
    monkeypatch.setattr(cli, "ROOT", checkout)
    words = ["pack", "--no-rtx", "-o", str(tmp_path / "pack"), "--limit-mib"]
    assert cli.main([*words, "0.002"]) == 2
    assert "leave TensorRT-RTX out (--no-rtx)" in capsys.readouterr().err
    assert cli.main([*words, "1"]) == 0
    shown = capsys.readouterr().out
    assert "at most 270 s: python3 -B benchmarks/yolact_benchmarks/studies/gpu run first" in shown
    assert "run second" in shown


# --- bundles ----------------------------------------------------------------------------------------------------------


def test_a_bundle_that_travels_is_whole_with_less_in_it(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m.bundle", [Thing((0.2, 0.2, 0.8, 0.8))])
    with_precisions(bundle, "fp32", "fp16")
    with pytest.raises(UsageError, match=r"m.bundle has no engine; build one first: yolact-export .* --target rtx"):
        copy_bundle(bundle, tmp_path / "none")
    add_engine(bundle)
    copy_bundle(bundle, tmp_path / "with_engine")
    names = {path.name for path in (tmp_path / "with_engine").iterdir()}
    assert names == {"manifest.json", "model.fp16.onnx", "model.fp16.plan"}
    copy_bundle(bundle, tmp_path / "network", {"network"}, {"fp32"})
    assert {path.name for path in (tmp_path / "network").iterdir()} == {"manifest.json", "model.fp32.onnx"}
    assert open_bundle(tmp_path / "network").manifest.precision == "fp32"
    assert set(json.loads((bundle / "manifest.json").read_bytes())["artefacts"]) > names - {"manifest.json"}
