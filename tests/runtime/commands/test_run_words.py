from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from support.run_command import BRIGHT, DARK, THINGS, film, lines_of, picture, run
from support.scenes import write_bundle
from yolact_runtime.media import videos


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


# --- words that cannot be meant ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bundle", "model.fp32.onnx", "manifest.json"])
@pytest.mark.parametrize("first", ["photo.png", "photos", "missing.png"])
def test_swapped_words(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, first: str
) -> None:
    picture(tmp_path / "photo.png")
    picture(tmp_path / "photos" / "a.png")
    named = bundle if model == "bundle" else bundle / model
    assert run(tmp_path / first, "other.png", named) == 2
    said = f"the model comes first, then the inputs, and {tmp_path / first} is not a model: yolact-run {named}"
    assert f"error: {said} {tmp_path / first} other.png\n" in capsys.readouterr().err


def test_a_model_among_the_inputs_of_a_model_is_no_swap(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, bundle, picture(tmp_path / "a.png")) == 1
    assert "the model comes first" not in capsys.readouterr().err


def test_no_folder_called_dash(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    assert run(bundle, "a.png", "-o", "-") == 2
    assert "results do: --json -, or --jsonl -" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("option", ["--json", "--jsonl"])
def test_no_folder_is_made_for_results(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert run(bundle, picture(tmp_path / "a.png"), option, tmp_path / "missing" / "x") == 2
    assert f"{option} cannot write" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_a_precision_that_is_not_there(bundle: Path, capsys: pytest.CaptureFixture[str], precision: str) -> None:
    assert run(bundle, bundle.parent / "a.png", "--precision", precision) == 2
    said = f'small.bundle has no network in "{precision}"; it has fp32'
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["rtsp://192.0.2.1/stream", "http://192.0.2.1/a.jpg", "csi://0", "/dev/video0", "0", "-"]
)
def test_what_is_no_file_is_named_as_it_was_typed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    assert run(bundle, word, picture(tmp_path / "a.png")) == 1
    captured = capsys.readouterr()
    assert (
        f"error: {word}: it is not a file, folder or pattern, and only these are read here; live frames" in captured.err
    )
    assert "3 instances" in captured.out


def test_a_file_may_be_called_like_a_camera(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png").rename(tmp_path / "0")
    assert run(bundle, "0") == 0


# --- names that a terminal would obey ---------------------------------------------------------------------------------


def test_escapes_in_names_of_files_are_shown_and_not_sent(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = film(tmp_path / "clip\x1b[2J.mp4", [BRIGHT])
    missing = tmp_path / "missing\nerror: another.png"
    assert run(bundle, picture(tmp_path / "x\x1b[2Jy.png"), clip, missing, "-o", tmp_path / "out\x07") == 1
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert all(line.isprintable() for line in text.split("\n"))
        assert "\nerror: another" not in text
    assert "x\\x1b[2Jy.png: 3 instances: 1 x cat, " in captured.out


# --- JSON Lines -------------------------------------------------------------------------------------------------------


def test_a_line_for_each_picture_and_frame(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still, clip = picture(tmp_path / "a.png"), film(tmp_path / "clip.mp4", [BRIGHT, DARK])
    missing = tmp_path / "missing.png"
    assert run(bundle, still, missing, clip, "--jsonl", "-", "--json", tmp_path / "r.json", "--top-k", "2") == 1
    lines = lines_of(capsys.readouterr().out.encode())
    assert [(line["source"], line["frame"], line["time_s"], len(line["instances"])) for line in lines] == [
        (str(missing), None, None, 0),
        (str(still), None, None, 2),
        (str(clip), 0, 0.0, 2),
        (str(clip), 1, pytest.approx(0.1, rel=0.01), 0),
    ]
    assert [line["error"] is None for line in lines] == [False, True, True, True]
    assert {(line["schema"], line["dropped"]) for line in lines} == {("yolact-results/1", 0)}
    images = json.loads((tmp_path / "r.json").read_bytes())["images"]
    assert [image["instances"] for image in images] == [line["instances"] for line in lines if line["error"] is None]


def test_lines_in_a_file(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "r.jsonl"
    for _ in range(2):
        assert run(bundle, picture(tmp_path / "a.png"), "--jsonl", lines) == 0
        assert len(lines_of(lines.read_bytes())) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"wrote {lines} (" in captured.err


def test_two_kinds_of_results_need_two_places(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = picture(tmp_path / "a.png")
    assert run(bundle, still, "--json", "-", "--jsonl", "-") == 2
    assert run(bundle, still, "--json", tmp_path / "x", "--jsonl", tmp_path / "." / "x") == 2
    captured = capsys.readouterr()
    assert "--json and --jsonl cannot both write to stdout" in captured.err
    assert f"--json and --jsonl cannot both write {tmp_path / 'x'}" in captured.err
    assert captured.out == ""


def test_the_consumer_in_the_documentation(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "run.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "yolact-results" in code)
    run(bundle, picture(tmp_path / "a.png"), tmp_path / "missing.png", "--jsonl", "-")
    lines = capsys.readouterr().out
    done = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True)
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["cat", "bird", "dog"]
    assert "missing.png: No such file" in done.stderr


class _LongVideo:
    """A video that is made as it is read."""

    fps, num_frames, faults = 30.0, None, ()
    held_bytes: ClassVar[dict[int, int]] = {}

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _LongVideo:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        for number in range(171):
            if number in {20, 170}:
                gc.collect()
                self.held_bytes[number] = tracemalloc.get_traced_memory()[0]
            yield videos.VideoFrame(np.full((8, 8, 3), BRIGHT, np.uint8), number, number / 30)


def test_memory_does_not_grow_with_a_video(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "VideoReader", _LongVideo)
    film = tmp_path / "a.mp4"
    film.touch()
    tracemalloc.start()
    try:
        assert run(bundle, film, "--json", tmp_path / "r.json", "--jsonl", tmp_path / "r.jsonl", "-q") == 0
    finally:
        tracemalloc.stop()
    assert len(lines_of((tmp_path / "r.jsonl").read_bytes())) == 171
    # The results of the last 150 frames are 75 kB of text, and several times that as objects.
    assert _LongVideo.held_bytes[170] - _LongVideo.held_bytes[20] < 100_000
