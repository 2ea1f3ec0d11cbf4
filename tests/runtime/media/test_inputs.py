from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hostile_images import gif, healthy_images, hostile_images, png, with_chunk
from support.properties import examples
from yolact_runtime.media.inputs import Inputs, find_inputs
from yolact_runtime.media.patterns import expand_pattern

HEALTHY = healthy_images()
MP4 = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41"
AVI = b"RIFF\x10\0\0\0AVI LIST"
CONTENT = {".mp4": MP4, ".mov": MP4, ".avi": AVI, ".txt": b"notes", ".json": b"{}", ".npz": b"PK\x03\x04" + bytes(30)}


def _touch(folder: Path, *names: str) -> None:
    """Files whose content is what their names say."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix.lower()
        path.write_bytes(CONTENT.get(suffix) or HEALTHY.get(suffix) or HEALTHY[".png"])


def _names(paths: tuple[Path, ...], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_its_images_and_videos_by_name_and_counts_the_rest(tmp_path: Path) -> None:
    _touch(tmp_path, "b.PNG", "a.jpg", "notes.txt", "film.mp4", "Z.MOV", "sub/inner.png", ".hidden", "data.npz")
    inputs = find_inputs([str(tmp_path)])
    assert _names(inputs.images, tmp_path) == ["a.jpg", "b.PNG"]
    assert _names(inputs.videos, tmp_path) == ["Z.MOV", "film.mp4"]
    assert inputs.failures == ()
    assert inputs.left_out == (
        "3 files are left out: 1 hidden file (.hidden), 1 NumPy archive (data.npz), 1 that is neither image nor video "
        "(notes.txt)",
        f'{tmp_path}: 1 sub-folder is not searched; name it, or use the pattern "{tmp_path}/**"',
    )
    assert _names(find_inputs([f"{tmp_path}/**"]).images, tmp_path) == ["a.jpg", "b.PNG", "sub/inner.png"]


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    files = {"a.jfif": HEALTHY[".jpg"], "b.gif": HEALTHY[".gif"], "c": HEALTHY[".webp"], "d.mp4": HEALTHY[".png"]}
    files |= {"e.jpg": MP4, "f.bin": AVI, "g.tiff": HEALTHY[".tif"], "h.txt": HEALTHY[".ppm"]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    inputs = find_inputs([str(tmp_path)])
    assert _names(inputs.images, tmp_path) == ["a.jfif", "b.gif", "c", "d.mp4", "g.tiff", "h.txt"]
    assert _names(inputs.videos, tmp_path) == ["e.jpg", "f.bin"]
    assert inputs.left_out == ()
    assert find_inputs([str(tmp_path / name) for name in sorted(files)]) == inputs


def test_animations_are_videos(tmp_path: Path) -> None:
    still = np.zeros((4, 4), np.uint8)
    (tmp_path / "a.gif").write_bytes(gif([still, still]))
    (tmp_path / "b.png").write_bytes(with_chunk(png(still), b"acTL", b"\0\0\0\x02\0\0\0\0"))
    (tmp_path / "c.gif").write_bytes(gif([still]))
    inputs = find_inputs([str(tmp_path)])
    assert _names(inputs.videos, tmp_path) == ["a.gif", "b.png"]
    assert _names(inputs.images, tmp_path) == ["c.gif"]


def test_what_macos_and_file_managers_leave_behind(tmp_path: Path) -> None:
    double = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60)
    _touch(tmp_path, "a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "._b.jpg")
    for name in ("._a.jpg", "Thumbs.db", ".DS_Store", "double.jpg"):
        (tmp_path / name).write_bytes(double)
    inputs = find_inputs([str(tmp_path)])
    assert _names(inputs.images, tmp_path) == ["a.jpg"]
    assert inputs.failures == ()
    assert inputs.left_out[0] == (
        "5 files are left out: 2 files of previews or folder settings (.DS_Store first), 3 AppleDouble companions "
        "(._a.jpg first)"
    )
    everything = find_inputs([f"{tmp_path}/**"])
    assert _names(everything.images, tmp_path) == ["a.jpg"]
    assert everything.left_out == (
        "7 files are left out: 3 files of previews or folder settings (.DS_Store first), 4 AppleDouble companions "
        "(._a.jpg first)",
    )


def test_a_file_under_two_names_is_taken_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    (tmp_path / "b.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "c.png").symlink_to("a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "d.png")
    inputs = find_inputs([str(tmp_path)])
    assert _names(inputs.images, tmp_path) == ["a.png", "d.png"]
    assert inputs.left_out == (
        "2 files are left out: 2 further names of files that are already included (b.png first)",
    )
    # Who names both wants both.
    assert len(find_inputs([str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]).images) == 3


def test_no_special_file_is_opened_and_none_is_forgotten(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    names = {path.name for _, path in hostile_images(tmp_path, cuts=0, flips=0)}
    os.mkfifo(tmp_path / "pipe")
    # Of the process alone, however busy the machine is: who opens the pipe waits for ever.
    started = time.process_time()
    inputs = find_inputs([str(tmp_path)])
    assert time.process_time() - started < 1
    there = {path.name for path in inputs.images}
    assert {"pipe.png", "device.png", "loop.png", "dangling.png", "socket.png", "huge.png", "lie-ppm.ppm"} < there
    assert names - there == {"missing.png", "folder.png", "stranger-._a.jpg"}
    assert inputs.left_out[0] == (
        "2 files are left out: 1 that is not a regular file (pipe), 1 AppleDouble companion (stranger-._a.jpg)"
    )


@pytest.mark.parametrize(
    "word",
    ["rtsp://192.0.2.1/stream", "http://a/b.jpg", "csi://0", "v4l2:///dev/video0", "0", "12", "-", "/dev/video97"],
)
def test_live_sources_are_answered_and_keep_their_slashes(word: str) -> None:
    ((failed, reason),) = find_inputs([word]).failures
    assert failed == word
    assert reason == (
        "it is not a file, folder or pattern, and only these are read here; live frames go through "
        "yolact_runtime.Segmenter in a program of your own, and yolact-bench --images camera:N opens a camera by its "
        "number"
    )


def test_words_for_nothing(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone.png")
    os.mkfifo(tmp_path / "pipe")
    words = {
        "missing.png": "No such file or directory",
        "a.png/b.png": "Not a directory",
        "loop": "Too many levels of symbolic links",
        "dangling": "it is a link to gone.png, which does not exist",
        "pipe": "it is a FIFO, and only regular files are read",
        "x" * 300: "File name too long",
        # From Python 3.13 on.
        "a\0b": "embedded null byte" if sys.version_info < (3, 13) else "stat: embedded null character in path",
    }
    inputs = find_inputs([str(tmp_path / word) for word in words])
    assert [reason for _, reason in inputs.failures] == list(words.values())
    assert not inputs.images


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_devices_are_answered_like_cameras() -> None:
    ((_, reason),) = find_inputs(["/dev/zero"]).failures
    assert reason.startswith(
        "it is a device, and only regular files are read; live frames go through yolact_runtime.Segmenter"
    )


def test_folders_that_a_pattern_passes_over_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", ".git", ".cache", "a/.thumbs", "locked"):
        (tmp_path / folder).mkdir()
        _touch(tmp_path / folder, "x.png")
    (tmp_path / "link").symlink_to("a")
    scandir = os.scandir

    def locked(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    everything = find_inputs([f"{tmp_path}/**"])
    assert everything.images == (tmp_path / "a/x.png",)
    assert everything.failures == ((f"{tmp_path}/locked", "Permission denied"),)
    assert everything.left_out == (
        f"{tmp_path}/**: 3 hidden folders ({tmp_path}/.cache first) are not searched; name them",
        f"{tmp_path}/**: 1 link to a folder ({tmp_path}/link) is not searched; name it",
    )
    some = find_inputs([f"{tmp_path}/*a*/*.png"])
    assert some.left_out == (f"{tmp_path}/*a*/*.png: 1 hidden folder ({tmp_path}/.cache) is not searched; name it",)


def test_archives_where_they_are_wanted(tmp_path: Path) -> None:
    _touch(tmp_path, "a.npz", "b.png")
    inputs = find_inputs([str(tmp_path)], archives=True)
    assert _names(inputs.archives, tmp_path) == ["a.npz"]
    assert inputs.left_out == ()
    assert _names(find_inputs([str(tmp_path / "a.npz")]).images, tmp_path) == ["a.npz"]


def test_a_folder_that_is_named_like_an_image_is_no_image(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "folder.png/b.png")
    assert _names(find_inputs([str(tmp_path)]).images, tmp_path) == ["a.png"]


def test_files_named_outright_are_taken_whatever_their_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "frame", "frame.raw", "a.avi")
    inputs = find_inputs([str(tmp_path / name) for name in ("frame.raw", "frame", "a.avi")])
    assert _names(inputs.images, tmp_path) == ["frame.raw", "frame"]
    assert _names(inputs.videos, tmp_path) == ["a.avi"]


def test_a_glob_is_sorted_and_takes_files_only(tmp_path: Path) -> None:
    _touch(tmp_path, "b1.png", "a1.png", "c1.png/inside.png", "a2.jpg")
    assert _names(find_inputs([str(tmp_path / "*1.png")]).images, tmp_path) == ["a1.png", "b1.png"]


def test_a_glob_through_folders(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.png", "x/y/b.png", "c.png")
    found = _names(find_inputs([str(tmp_path / "**" / "*.png")]).images, tmp_path)
    assert found == ["c.png", "x/a.png", "x/y/b.png"]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    _touch(tmp_path, "a[1].png", "a1.png")
    assert _names(find_inputs([str(tmp_path / "a[1].png")]).images, tmp_path) == ["a[1].png"]


def test_words_keep_their_order_and_files_come_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "b.png")
    words = [str(tmp_path / "b.png"), str(tmp_path), str(tmp_path / "*.png")]
    assert _names(find_inputs(words).images, tmp_path) == ["b.png", "a.png"]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("empty", "the folder contains no image or video"),
        ("*.png", "no file matches this pattern"),
    ],
)
def test_words_that_stand_for_nothing_are_reported(tmp_path: Path, word: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    inputs = find_inputs([str(tmp_path / word)])
    ((failed, why),) = inputs.failures
    assert failed == str(tmp_path / word)
    assert why.startswith(reason)
    assert (inputs.images, inputs.videos) == ((), ())


def test_an_empty_word_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a.png")
    monkeypatch.chdir(tmp_path)
    assert find_inputs([""]) == Inputs((), (), (("", "an empty name: is a shell variable not set?"),))
    assert _names(find_inputs(["."]).images, Path()) == ["a.png"]


def test_patterns_never_enter_a_loop(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.png", "x/.hidden/b.png", "x/y/.c.png")
    for name in ("p", "q", "r"):
        (tmp_path / "x" / name).symlink_to(tmp_path)
    started = time.process_time()
    assert _names(tuple(expand_pattern(f"{tmp_path}/**").paths), tmp_path) == ["x/a.png", "x/y/.c.png"]
    assert _names(tuple(expand_pattern(f"{tmp_path}/**/**/*.png").paths), tmp_path) == ["x/a.png", "x/y/.c.png"]
    assert time.process_time() - started < 1
    inputs = find_inputs([f"{tmp_path}/**/*.png"])
    assert _names(inputs.images, tmp_path) == ["x/a.png"]
    assert inputs.left_out == (
        "1 file is left out: 1 hidden file (.c.png)",
        f"{tmp_path}/**/*.png: 1 hidden folder ({tmp_path}/x/.hidden) is not searched; name it",
        f"{tmp_path}/**/*.png: 3 links to folders ({tmp_path}/x/p first) are not searched; name them",
    )
    assert _names(find_inputs([f"{tmp_path}/x/.hidden/*"]).images, tmp_path) == ["x/.hidden/b.png"]
    assert _names(find_inputs([f"{tmp_path}/**/.*.png"]).images, tmp_path) == ["x/y/.c.png"]


FILE_NAMES = st.text("ab.[]*?! \udce9", min_size=1, max_size=6).filter(lambda name: bool(name.strip(".")))


@examples(60)
@given(
    names=st.lists(FILE_NAMES, max_size=5),
    words=st.lists(st.text("ab./[]*?!", max_size=8), max_size=3),
)
def test_every_file_of_a_folder_is_used_or_counted(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], words: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / name).write_bytes(HEALTHY[".png"])
    inputs = find_inputs([str(folder)])
    hidden = sum(name.startswith(".") for name in set(names))
    assert len(inputs.images) == len(set(names)) - hidden
    assert bool(inputs.left_out) == (hidden > 0)
    assert bool(inputs.failures) == (not inputs.images)
    # Any word at all stands for something or is reported.
    for word in words:
        found = find_inputs([f"{folder}/{word}"])
        assert found.images or found.failures
