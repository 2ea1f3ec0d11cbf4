"""Files that people give to yolact-run: what is found, what is left out and counted, and how many bits they have."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.hostile_images import gif, jpeg, png
from support.scenes import Thing, small_manifest, write_bundle
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.commands.run_cli import main
from yolact_runtime.errors import FrameError
from yolact_runtime.model.bundle import MANIFEST_NAME, read_manifest

THINGS = [Thing((0.25, 0.25, 0.75, 0.75), class_id=0, confidence=0.9)]
BRIGHT = np.full((40, 60, 3), 255, np.uint8)
TWELVE = np.full((40, 60), 4095, np.uint16)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sees a thing in bright pictures and nothing in dark ones."""
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


@pytest.fixture(scope="module")
def twelve_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, and its manifest states 12 bits, which the one inside its network does not."""
    copy = shutil.copytree(bundle, tmp_path_factory.mktemp("model") / "twelve.bundle")
    manifest = read_manifest(copy)
    manifest = dataclasses.replace(manifest, input=dataclasses.replace(manifest.input, bit_depth=12))
    (copy / MANIFEST_NAME).write_text(manifest.to_json())
    return copy


def _run(folder: Path, *words: object, status: int = 0) -> Any:
    path = folder.parent / "results.json"
    path.unlink(missing_ok=True)
    assert main([*map(str, words), "--json", str(path)]) == status
    return json.loads(path.read_bytes())


def _found(document: Any) -> dict[str, int]:
    return {Path(image["file"]).name: len(image["instances"]) for image in document["images"]}


def _options(bit_depth: int | None = None) -> SegmenterOptions:
    return SegmenterOptions(min_confidence=0.3, bit_depth=bit_depth)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_jfif_and_gif_in_a_folder_are_done(bundle: Path, folder: Path) -> None:
    (folder / "a.jpg").write_bytes(jpeg(BRIGHT))
    (folder / "b.jfif").write_bytes(jpeg(BRIGHT))
    (folder / "c.gif").write_bytes(gif([np.full((40, 60), 127, np.uint8)]))
    assert _found(_run(folder, bundle, folder)) == {"a.jpg": 1, "b.jfif": 1, "c.gif": 1}


def test_appledouble_beside_photographs_is_left_out(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.jpg").write_bytes(jpeg(BRIGHT))
    (folder / "._a.jpg").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60))
    assert _found(_run(folder, bundle, folder)) == {"a.jpg": 1}
    assert "warning: 1 file is left out: 1 AppleDouble companion (._a.jpg)\n" in capsys.readouterr().err


def test_a_loop_a_pipe_and_a_huge_file_do_not_lose_the_others(bundle: Path, folder: Path) -> None:
    for name in ("a.png", "zz.png"):
        cv2.imwrite(str(folder / name), BRIGHT)
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    with (folder / "sparse.png").open("wb") as file:
        file.truncate(40 << 30)
    document = _run(folder, bundle, folder, status=1)
    assert _found(document) == {"a.png": 1, "zz.png": 1}
    reasons = [failure["error"].partition(": ")[2] for failure in document["failed"]]
    assert reasons == [
        "Too many levels of symbolic links",
        "it is a FIFO, and only regular files are read",
        "the file has 42.9 GB, and images above 1.1 GB are not read",
    ]


def test_twelve_bits_in_a_png_are_warned_of_once_and_right_with_an_option(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png(TWELVE))
    (folder / "eight.png").write_bytes(png(TWELVE.astype(np.uint8)))
    assert _found(_run(folder, bundle, folder)) == {"a.png": 0, "b.png": 0, "eight.png": 1}
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "add --bit-depth 12;" in warnings[0]
    assert set(_found(_run(folder, bundle, folder, "--bit-depth", 12)).values()) == {1}
    assert "warning" not in capsys.readouterr().err


def test_a_bundle_remembers_the_bit_depth(
    twelve_bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.png").write_bytes(png(TWELVE))
    assert _found(_run(folder, twelve_bundle, folder)) == {"a.png": 1}
    assert "warning" not in capsys.readouterr().err
    assert _found(_run(folder, twelve_bundle, folder, "--bit-depth", 16)) == {"a.png": 0}
    assert "calibrated with images of 12 bits; --bit-depth 16 overrides it" in capsys.readouterr().err


def test_a_wrong_bit_depth_is_a_usage_error(bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.png").write_bytes(png(TWELVE))
    assert main([str(bundle), str(folder), "--bit-depth", "20"]) == 2
    assert "--bit-depth is the number of significant bits of a 16-bit sample" in capsys.readouterr().err


def test_the_segmenter_agrees_with_the_command(bundle: Path, twelve_bundle: Path) -> None:
    with Segmenter.open(bundle, options=_options()) as segmenter:
        with pytest.raises(FrameError, match=r"SegmenterOptions\(bit_depth=12\)"):
            segmenter(TWELVE)
        assert len(segmenter(BRIGHT)) == 1
    with Segmenter.open(bundle, options=_options(12)) as segmenter:
        assert len(segmenter(TWELVE)) == 1
        assert len(segmenter(BRIGHT)) == 1
        assert segmenter.manifest == small_manifest(precision="fp32", artefacts=segmenter.manifest.artefacts)
        with pytest.raises(FrameError, match="it has the value 4096"):
            segmenter(TWELVE + np.uint16(1))
    with Segmenter.open(twelve_bundle, options=_options()) as segmenter:
        assert len(segmenter(TWELVE)) == 1
        # What only concerns frames is no difference between a bundle and its network.
        segmenter.compare_manifests()
    with Segmenter.open(twelve_bundle, options=_options(16)) as segmenter:
        assert len(segmenter(TWELVE)) == 0
