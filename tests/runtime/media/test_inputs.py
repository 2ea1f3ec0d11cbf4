from __future__ import annotations

from pathlib import Path

import pytest

from yolact_runtime.media.inputs import Inputs, find_inputs


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _names(paths: tuple[Path, ...], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_folder_gives_its_images_and_videos_by_name_and_nothing_else(tmp_path: Path) -> None:
    _touch(tmp_path, "b.PNG", "a.jpg", "notes.txt", "film.mp4", "Z.MOV", "sub/inner.png", ".hidden")
    inputs = find_inputs([str(tmp_path)])
    assert _names(inputs.images, tmp_path) == ["a.jpg", "b.PNG"]
    assert _names(inputs.videos, tmp_path) == ["Z.MOV", "film.mp4"]
    assert inputs.failures == ()


def test_a_folder_that_is_named_like_an_image_is_no_image(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "folder.png/b.png")
    assert _names(find_inputs([str(tmp_path)]).images, tmp_path) == ["a.png"]


def test_files_named_outright_are_taken_whatever_their_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "frame", "frame.raw", "a.avi")
    inputs = find_inputs([str(tmp_path / name) for name in ("frame.raw", "frame", "a.avi")])
    assert _names(inputs.images, tmp_path) == ["frame.raw", "frame"]
    assert _names(inputs.videos, tmp_path) == ["a.avi"]


def test_a_file_that_is_missing_is_left_to_its_reader(tmp_path: Path) -> None:
    assert find_inputs([str(tmp_path / "missing.png")]) == Inputs((tmp_path / "missing.png",), (), ())


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
        ("empty", r"the folder holds no image or video (.avi .bmp"),
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
    assert find_inputs([""]) == Inputs((), (), (("", "an empty name: is a variable of the shell not set?"),))
    assert _names(find_inputs(["."]).images, Path()) == ["a.png"]
