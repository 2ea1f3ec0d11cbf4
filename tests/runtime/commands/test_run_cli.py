from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support import containers
from support.run_command import BRIGHT, DARK, THINGS
from support.run_command import film as _film
from support.run_command import picture as _picture
from support.run_command import run as _run
from support.scenes import write_bundle
from support.videos import write_with_opencv
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.commands.run_cli import main
from yolact_runtime.errors import BackendError
from yolact_runtime.masks.masks import Masks
from yolact_runtime.media.video_writer import VideoWriter, incomplete_path, video_suffix
from yolact_runtime.media.videos import VideoReader


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sees the three things in bright pictures and nothing in dark ones."""
    return write_bundle(tmp_path_factory.mktemp("model") / "small.bundle", THINGS)


@pytest.fixture(scope="module")
def plus_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("model") / "plus.bundle", THINGS, mask_iou=[1, 2, 4])


def _json(path: Path, *words: object, status: int = 0) -> Any:
    assert _run(*words, "--json", path) == status
    return json.loads(path.read_bytes())


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _shape(path: Path) -> tuple[int, ...]:
    shape: tuple[int, ...] = cv2.imread(str(path)).shape
    return shape


# --- what is found ----------------------------------------------------------------------------------------------------


def test_a_line_for_each_image_on_stdout_and_talk_on_stderr(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bright, dark = _picture(tmp_path / "bright.png"), _picture(tmp_path / "dark.png", DARK)
    assert _run(bundle, bright, dark, "--threads", "1") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{bright}: 3 instances: 1 x cat, 1 x bird, 1 x dog\n{dark}: nothing found\n"
    assert "small (fp32) on onnxruntime-" in captured.err
    assert f"to see the masks: yolact-run {bundle} {bright} {dark} --threads 1 -o out\n" in captured.err


@pytest.mark.parametrize("order", ["{m} -q {i}", "-q {m} {i}", "{m} {i} -q", "{m} -q -- {i}", "-q -- {m} {i}"])
def test_options_stand_anywhere(order: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bright = _picture(tmp_path / "bright.png")
    assert main([word.format(m=bundle, i=bright) for word in order.split()]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{bright}: 3 instances: 1 x cat, 1 x bird, 1 x dog\n"
    assert captured.err == ""


def test_inputs_on_both_sides_of_an_option(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = _picture(tmp_path / "1.png"), _picture(tmp_path / "2.png")
    assert main([str(bundle), str(first), "--threads", "1", str(second)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"{name}: 3 instances: 1 x cat, 1 x bird, 1 x dog" for name in (first, second)]
    assert f"yolact-run {bundle} {first} --threads 1 {second} -o out" in captured.err


def test_a_name_like_an_option_is_an_input_behind_two_dashes(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _picture(tmp_path / "-q.png")
    assert main([str(bundle), "--threads", "1", "--", "-q.png"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("-q.png: 3 instances")
    assert f"yolact-run {bundle} --threads 1 -o out -- -q.png" in captured.err


def test_the_json_document(bundle: Path, tmp_path: Path) -> None:
    bright, dark = _picture(tmp_path / "bright.png"), _picture(tmp_path / "dark.png", DARK, (7, 5))
    document = _json(tmp_path / "out.json", bundle, bright, dark)
    with Segmenter.open(bundle, options=SegmenterOptions(min_confidence=0.3)) as segmenter:
        instances = segmenter(np.full((40, 60, 3), BRIGHT, np.uint8))
    assert document == {
        "model": str(bundle),
        "images": [
            {
                "file": str(bright),
                "height": 40,
                "width": 60,
                "instances": [
                    {
                        "class_id": int(instances.class_id[i]),
                        "class_name": ("cat", "dog", "bird")[instances.class_id[i]],
                        "confidence": pytest.approx(float(instances.confidence[i]), abs=1e-6),
                        "xyxy": pytest.approx(instances.xyxy[i].tolist(), abs=0.005),
                        "mask": {"size": [40, 60], "counts": instances.mask.rle()[i]["counts"]},
                    }
                    for i in range(3)
                ],
            },
            {"file": str(dark), "height": 7, "width": 5, "instances": []},
        ],
        "signature": "none",
        "complete": True,
    }
    assert Masks.from_rle([entry["mask"] for entry in document["images"][0]["instances"]]) == instances.mask


def test_json_on_stdout_is_all_that_is_there(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = _picture(tmp_path / "a.png")
    assert _run(bundle, picture, tmp_path / "missing.png", "--json", "-", "-o", tmp_path / "out") == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.out.count("\n") == 1
    assert [image["file"] for image in document["images"]] == [str(picture)]
    assert [failure["file"] for failure in document["failed"]] == [str(tmp_path / "missing.png")]


def test_with_json_in_a_file_stdout_is_empty_and_the_file_is_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # In the folder of the pictures, which the command makes.
    _json(tmp_path / "deep" / "out.json", bundle, _picture(tmp_path / "a.png"), "-o", tmp_path / "deep")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"wrote {tmp_path / 'deep' / 'out.json'} (" in captured.err


def test_mask_confidence_of_a_yolact_plus_model(plus_bundle: Path, tmp_path: Path) -> None:
    picture = _picture(tmp_path / "a.png")
    entries = _json(tmp_path / "out.json", plus_bundle, picture)["images"][0]["instances"]
    assert list(entries[0]) == ["class_id", "class_name", "confidence", "mask_confidence", "xyxy", "mask"]
    with Segmenter.open(plus_bundle, options=SegmenterOptions(min_confidence=0.3)) as segmenter:
        expected = segmenter(np.full((40, 60, 3), BRIGHT, np.uint8)).mask_confidence
    assert expected is not None
    np.testing.assert_allclose([entry["mask_confidence"] for entry in entries], expected, atol=1e-6)
    without = _json(tmp_path / "out.json", plus_bundle, picture, "--no-mask-rescoring")
    assert "mask_confidence" not in without["images"][0]["instances"][0]


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        ([], ["cat", "bird", "dog"]),
        (["--score", "0.5"], ["cat", "bird"]),
        (["--score", "0.95"], []),
        (["--score", "0.05", "--top-k", "2"], ["cat", "bird"]),
        (["--top-k", "1"], ["cat"]),
        (["--top-k", "50"], ["cat", "bird", "dog"]),
        (["--nms", "cross-class"], ["cat", "bird"]),
        (["--nms", "traditional"], ["cat", "bird", "dog"]),
        (["--backend", "onnxruntime-cpu", "--threads", "1"], ["cat", "bird", "dog"]),
    ],
)
def test_options_choose_what_is_kept(bundle: Path, tmp_path: Path, words: list[str], classes: list[str]) -> None:
    document = _json(tmp_path / "out.json", bundle, _picture(tmp_path / "a.png"), *words)
    assert [entry["class_name"] for entry in document["images"][0]["instances"]] == classes


def test_a_score_of_zero_keeps_the_low_scores(bundle: Path, tmp_path: Path) -> None:
    document = _json(tmp_path / "out.json", bundle, _picture(tmp_path / "a.png"), "--score", "0")
    assert len(document["images"][0]["instances"]) > 3


def test_the_crop_margin_widens_masks(bundle: Path, tmp_path: Path) -> None:
    picture, areas = _picture(tmp_path / "a.png"), []
    for margin in ("0", "0.5", "inf"):
        document = _json(tmp_path / "out.json", bundle, picture, "--crop-margin", margin)
        areas.append(Masks.from_rle([document["images"][0]["instances"][0]["mask"]]).area()[0])
    assert areas[0] < areas[1] <= areas[2] == 40 * 60


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_a_folder_and_a_glob(bundle: Path, tmp_path: Path) -> None:
    for name in ("x/b.png", "x/a.jpg", "y/1.png", "y/2.bmp"):
        _picture(tmp_path / name)
    (tmp_path / "x" / "notes.txt").write_text("no image")
    document = _json(tmp_path / "out.json", bundle, tmp_path / "y" / "*.*", tmp_path / "x")
    names = [Path(image["file"]).relative_to(tmp_path).as_posix() for image in document["images"]]
    assert names == ["y/1.png", "y/2.bmp", "x/a.jpg", "x/b.png"]


def test_gray_pictures_and_pictures_with_alpha(bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((30, 20), 255, np.uint8))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((30, 20, 4), 255, np.uint8))
    document = _json(tmp_path / "out.json", bundle, tmp_path / "gray.png", tmp_path / "alpha.png")
    assert [len(image["instances"]) for image in document["images"]] == [3, 3]


def test_the_model_file_alone(bundle: Path, tmp_path: Path) -> None:
    model = shutil.copy(bundle / "model.fp32.onnx", tmp_path / "alone.onnx")
    document = _json(tmp_path / "out.json", model, _picture(tmp_path / "a.png"))
    assert len(document["images"][0]["instances"]) == 3


def test_what_cannot_be_read_is_reported_and_the_rest_is_done(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [_picture(tmp_path / "a.png"), _picture(tmp_path / "z.png")]
    damaged, missing, pattern = tmp_path / "damaged.png", tmp_path / "missing.png", tmp_path / "no*.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    film = tmp_path / "film.mp4"
    film.write_bytes(b"no film")
    document = _json(
        tmp_path / "out.json", bundle, good[0], damaged, missing, pattern, film, good[1], "--quiet", status=1
    )
    assert [image["file"] for image in document["images"]] == [str(path) for path in good]
    failed = {failure["file"]: failure["error"] for failure in document["failed"]}
    assert set(failed) == {str(damaged), str(missing), str(pattern), str(film)}
    errors = capsys.readouterr().err
    for path in (damaged, missing, pattern, film):
        assert f"{path}" in errors
    assert "4 inputs failed, 2 done" in errors


@pytest.mark.parametrize("name", ["folder", "image", "o", "i"])
def test_an_empty_folder_is_named_even_when_its_name_is_a_word_of_the_reason(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert _run(bundle, name) == 1
    assert f"error: {name}: the folder contains no image or video" in capsys.readouterr().err


def test_a_network_that_fails_on_one_image_does_not_take_the_others_along(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Segmenter.__call__

    def call(self: Segmenter, frame: Any) -> Any:
        if not frame.any():
            raise BackendError("the network output holds NaN")
        return original(self, frame)

    monkeypatch.setattr(Segmenter, "__call__", call)
    pictures = [_picture(tmp_path / "a.png"), _picture(tmp_path / "b.png", DARK), _picture(tmp_path / "c.png")]
    document = _json(tmp_path / "out.json", bundle, *pictures, status=1)
    assert [image["file"] for image in document["images"]] == [str(pictures[0]), str(pictures[2])]
    assert f"error: {pictures[1]}: the network output holds NaN" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_a_file_name_that_is_no_text(bundle: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:  # noqa: PTH123 - the name is bytes
        file.write(_picture(tmp_path / "a.png").read_bytes())
    path = Path(os.fsdecode(name))
    outputs = {}
    for words in ([], ["--json", "-"]):
        process = _program(bundle, path, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        outputs[len(words)], errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert rb"caf\udce9.png: 3 instances" in outputs[0]
    assert json.loads(outputs[2])["images"][0]["file"] == str(path)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_overlays_have_the_size_of_their_inputs(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"a.png": (40, 60), "b.jpg": (33, 21), "c.bmp": (5, 7), "d.JPEG": (1, 1)}
    for name, size in sizes.items():
        _picture(tmp_path / "in" / name, BRIGHT, size)
    out = tmp_path / "new" / "out"
    assert _run(bundle, tmp_path / "in", "-o", out) == 0
    assert _names(out) == ["a.png", "b.jpg", "c.png", "d.jpeg"]
    assert [_shape(path) for path in sorted(out.iterdir())] == [(*size, 3) for size in sizes.values()]
    assert (cv2.imread(str(out / "a.png")) != BRIGHT).any()
    assert f"wrote 4 files to {out} (" in capsys.readouterr().err


def test_an_overlay_of_nothing_is_the_picture(bundle: Path, tmp_path: Path) -> None:
    assert _run(bundle, _picture(tmp_path / "a.png", DARK), "-o", tmp_path / "out") == 0
    assert (cv2.imread(str(tmp_path / "out" / "a.png")) == DARK).all()


def test_pictures_of_the_same_name_get_numbers(bundle: Path, tmp_path: Path) -> None:
    pictures = [_picture(tmp_path / folder / "a.png", BRIGHT, (10, 10 + i)) for i, folder in enumerate("xyz")]
    assert _run(bundle, *pictures, "-o", tmp_path / "out") == 0
    assert _names(tmp_path / "out") == ["a-2.png", "a-3.png", "a.png"]
    assert [_shape(tmp_path / "out" / name)[1] for name in ("a.png", "a-2.png", "a-3.png")] == [10, 11, 12]


def test_pictures_of_an_earlier_run_are_replaced(bundle: Path, tmp_path: Path) -> None:
    picture = _picture(tmp_path / "a.png")
    for _ in range(2):
        assert _run(bundle, picture, "-o", tmp_path / "out") == 0
    assert _names(tmp_path / "out") == ["a.png"]


def test_an_input_is_not_overwritten_by_its_own_picture(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [_picture(tmp_path / "x" / "a.png"), _picture(tmp_path / "y" / "b.png")]
    before = pictures[0].read_bytes()
    document = _json(tmp_path / "out.json", bundle, *pictures, "-o", tmp_path / "x", status=1)
    assert pictures[0].read_bytes() == before
    assert _names(tmp_path / "x") == ["a.png", "b.png"]
    assert "would be overwritten by its own picture; choose another folder for -o" in capsys.readouterr().err
    assert [image["file"] for image in document["images"]] == [str(pictures[1])]


@pytest.mark.parametrize("folders_first", ["x y", "y x"])
def test_no_input_is_overwritten_by_the_picture_of_another(bundle: Path, tmp_path: Path, folders_first: str) -> None:
    folders = [tmp_path / name for name in folders_first.split()]
    for folder in folders:
        _picture(folder / "a.png", BRIGHT, (10, 20))
    before = (tmp_path / "y" / "a.png").read_bytes()
    assert _run(bundle, *folders, "-o", tmp_path / "y") == 1
    assert (tmp_path / "y" / "a.png").read_bytes() == before


def test_a_picture_in_another_format_does_not_overwrite_an_input(bundle: Path, tmp_path: Path) -> None:
    _picture(tmp_path / "a.bmp"), _picture(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    assert _run(bundle, tmp_path, "-o", tmp_path) == 1
    assert (tmp_path / "a.png").read_bytes() == before


def test_an_input_reached_through_a_link_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    picture = _picture(tmp_path / "x" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    before = picture.read_bytes()
    assert _run(bundle, picture, "-o", tmp_path / "link") == 1
    assert picture.read_bytes() == before


def test_the_output_is_a_file(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert _run(bundle, _picture(tmp_path / "a.png"), "-o", tmp_path / "out") == 2
    assert "out is not a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_picture_that_cannot_be_written_is_reported_and_the_rest_is_done(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [_picture(tmp_path / "a.png"), _picture(tmp_path / "b.png")]
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    assert _run(bundle, *pictures, "-o", tmp_path / "out") == 1
    assert _shape(tmp_path / "out" / "b.png") == (40, 60, 3)
    errors = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'out' / 'a.png'}: Is a directory" in errors
    assert "wrote 1 file" in errors


# --- videos -----------------------------------------------------------------------------------------------------------


def test_a_video(bundle: Path, tmp_path: Path) -> None:
    film = _film(tmp_path / "film.avi.mp4", [BRIGHT, DARK, BRIGHT])
    document = _json(tmp_path / "out.json", bundle, film, "-o", tmp_path / "out")
    assert [image["frame"] for image in document["images"]] == [0, 1, 2]
    assert {image["file"] for image in document["images"]} == {str(film)}
    assert [len(image["instances"]) for image in document["images"]] == [3, 0, 3]
    with VideoReader(tmp_path / "out" / f"film.avi{video_suffix()}") as reader:
        assert reader.fps == pytest.approx(10, rel=0.01)
        frames = [frame.image for frame in reader]
    assert [frame.shape for frame in frames] == [(40, 60, 3)] * 3
    assert frames[0].std() > 20 > frames[1].std()


def test_a_video_is_summed_up_in_a_line(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = _film(tmp_path / "film.mp4", [BRIGHT, DARK, BRIGHT])
    assert _run(bundle, film) == 0
    assert capsys.readouterr().out == f"{film}: 3 frames, 6 instances in all\n"


def test_an_interrupt_keeps_the_results_so_far(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [_picture(tmp_path / f"{name}.png") for name in "abc"]
    call = Segmenter.__call__
    calls: list[None] = []

    def interrupted(self: Segmenter, frame: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, frame)

    monkeypatch.setattr(Segmenter, "__call__", interrupted)
    document = _json(tmp_path / "out.json", bundle, *pictures, status=130)
    assert [image["file"] for image in document["images"]] == [str(path) for path in pictures[:2]]
    assert capsys.readouterr().err.endswith("error: interrupted\n")


def test_a_video_is_not_overwritten_by_its_own_picture(bundle: Path, tmp_path: Path) -> None:
    film = _film(tmp_path / f"film{video_suffix()}", [BRIGHT])
    before = film.read_bytes()
    assert _run(bundle, film, "-o", tmp_path) == 1
    assert film.read_bytes() == before
    assert _names(tmp_path) == [film.name]


def test_a_video_with_a_hole_is_read_to_its_end_and_reported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_with_opencv(tmp_path / "film.mp4", "mp4v")
    film.write_bytes(containers.make_hole(film.read_bytes(), 0.4, 0.5))
    document = _json(tmp_path / "out.json", bundle, film, "-o", tmp_path / "out", status=1)
    frames = [image["frame"] for image in document["images"]]
    assert frames[0] == 0
    assert frames[-1] == 23
    assert len(frames) < 24
    (failed,) = document["failed"]
    assert failed["file"] == str(film)
    assert "could not be decoded" in failed["error"]
    assert failed["error"] in capsys.readouterr().err
    with VideoReader(tmp_path / "out" / f"film{video_suffix()}") as reader:
        assert len(list(reader)) == len(frames)


def test_a_video_that_is_interrupted_leaves_what_there_is_and_says_so(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = _film(tmp_path / "film.mp4", [BRIGHT] * 6)
    write, calls = VideoWriter.write, itertools.count()

    def interrupted(self: VideoWriter, image: Any) -> None:
        write(self, image)
        if next(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    assert _run(bundle, film, "-o", tmp_path / "out") == 130
    left = incomplete_path(tmp_path / "out" / f"film{video_suffix()}")
    assert _names(tmp_path / "out") == [left.name]
    assert f"the finished part of {film} is in {left} (it plays)" in capsys.readouterr().err
    with VideoReader(left) as reader:
        assert len(list(reader)) == 4


def test_a_broken_video_leaves_nothing_and_is_not_counted_as_written(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    assert _run(bundle, tmp_path / "film.mp4", "-o", tmp_path / "out") == 1
    assert "wrote" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or _names(tmp_path / "out") == []


# --- words and exit statuses ------------------------------------------------------------------------------------------


def test_quiet_leaves_the_results(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = _picture(tmp_path / "a.png")
    assert _run(bundle, picture, "--quiet", "-o", tmp_path / "out") == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{picture}: 3 instances")
    assert captured.err == ""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["MODEL", "INPUT", "--nms", "greedy"],
        ["MODEL", "INPUT", "--top-k", "many"],
        ["MODEL", "INPUT", "--nonsense"],
    ],
)
def test_words_that_cannot_be_parsed_end_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(r"error: .*; see yolact-run --help\n", captured.err)
    assert captured.out == ""


def test_options_that_have_no_effect_on_the_model_end_with_2(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = _picture(tmp_path / "a.png")
    for words, said in (
        ([bundle, picture, "--no-mask-rescoring"], f"--no-mask-rescoring has no effect on {bundle}: only YOLACT++"),
        ([bundle / "model.fp32.onnx", picture, "--precision", "fp32"], "--precision has no effect on a file, which"),
        ([bundle, picture, "--backend", "tensorrt", "--threads", "1"], "--threads has no effect on TensorRT, which"),
    ):
        assert _run(*words, "--json", tmp_path / "r.json") == 2
        assert f"error: {said}" in capsys.readouterr().err
        assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top-k", "0"], "--top-k must be 1 or more, found 0"),
        (["--top-k", "-1"], "--top-k must be 1 or more"),
        (["--score", "2"], "--score must lie between 0 and 1, found 2.0"),
        (["--score", "nan"], "--score must lie between 0 and 1"),
        (["--crop-margin", "-1"], "--crop-margin must be 0 or more"),
        (["--threads", "-2"], "--threads must lie between 0 and 256"),
        (
            ["--backend", "openvino"],
            "--backend: 'openvino' is not one of its values; choose auto, tensorrt",
        ),
    ],
)
def test_words_that_make_no_sense_end_with_2(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert _run(bundle, _picture(tmp_path / "a.png"), *words) == 2
    captured = capsys.readouterr()
    assert f"error: {message}" in captured.err
    assert captured.out == ""


def test_a_model_that_is_not_there_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path / "missing", _picture(tmp_path / "a.png")) == 1
    assert "error: no model at" in capsys.readouterr().err


def test_a_checkpoint_instead_of_a_bundle_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "yolact_base_54_800000.pth").write_bytes(b"PK")
    assert _run(tmp_path / "yolact_base_54_800000.pth", _picture(tmp_path / "a.png")) == 1
    assert "export it first: yolact-export" in capsys.readouterr().err


def test_the_next_command_can_be_pasted_into_a_shell(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = _picture(tmp_path / "my $picture.png")
    assert _run(bundle, picture) == 0
    assert f"yolact-run {bundle} '{picture}' -o out" in capsys.readouterr().err


# --- as a program -----------------------------------------------------------------------------------------------------


def _program(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "yolact_runtime.commands.run_cli", *map(str, words)], **options)


def test_as_a_program(bundle: Path, tmp_path: Path) -> None:
    picture = _picture(tmp_path / "a.png")
    process = _program(
        bundle, picture, tmp_path / "missing.png", "--json", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [len(image["instances"]) for image in json.loads(out)["images"]] == [3]
    assert b"No such file" in errors
    assert b"\033" not in errors


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_ends_the_program_quietly(bundle: Path, tmp_path: Path, unbuffered: str) -> None:
    process = _program(
        bundle,
        _picture(tmp_path / "a.png"),
        "-q",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1
    assert errors == b""
