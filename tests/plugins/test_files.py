"""Files are written whole or not at all, and sizes read as people write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yolact_plugins.errors import UsageError
from yolact_plugins.files import (
    check_words,
    counted,
    human_duration,
    human_estimate,
    human_size,
    library_path,
    write_atomically,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1500, "1.5 kB"),
        (125_000_000, "125.0 MB"),
        (3_000_000_000, "3.0 GB"),
        (5_000_000_000_000, "5000.0 GB"),
    ],
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "told", "estimate"),
    [
        (0.0, "0 s", "1 s"),
        (4.4, "4 s", "5 s"),
        (94.2, "1 min 34 s", "95 s"),
        (119.0, "1 min 59 s", "119 s"),
        (121.0, "2 min 01 s", "3 min"),
        (3599.6, "1 h 00 min", "1 h 00 min"),
        (3720.0, "1 h 02 min", "1 h 02 min"),
        (4150.0, "1 h 09 min", "1 h 10 min"),
    ],
)
def test_times_are_told_exactly_and_as_estimates(seconds: float, told: str, estimate: str) -> None:
    assert (human_duration(seconds), human_estimate(seconds)) == (told, estimate)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ([""], "at the beginning"),
        (["x", ""], "behind x"),
        (["--images", ""], "behind --images"),
        (["--json="], "--json="),
    ],
)
def test_empty_words_are_refused(words: list[str], place: str) -> None:
    with pytest.raises(UsageError, match=f"there is an empty word {place}: name something"):
        check_words(words)


@pytest.mark.parametrize("word", ["--json=--", "-o--", "-o=--"])
def test_the_end_of_options_is_no_value(word: str) -> None:
    """``argparse`` would hand out a list, and the command would end in a traceback."""
    with pytest.raises(UsageError, match=r"^(--json|-o) cannot be given --"):
        check_words(["x", word])


def test_other_words_are_not() -> None:
    check_words(["x", "--json", "-", "-o", "a=", "--", " ", "--json=a", "a=--", "--json=a--", "a--"])


def test_counted() -> None:
    assert [counted(count, "image") for count in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(count, "class", "classes") for count in (1, 3)] == ["1 class", "3 classes"]


@pytest.mark.parametrize("name", ["x" * 251 + ".png", "ä" * 125 + ".png", "x" * 255])
def test_names_as_long_as_names_may_be_are_written(tmp_path: Path, name: str) -> None:
    write_atomically(tmp_path / name, b"content")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"content")]


def test_write_atomically_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"one", b"two"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_over_a_folder_fails_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "a.json", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_libraries_get_a_name_in_utf8(tmp_path: Path) -> None:
    plain, other = tmp_path / "größe", Path(os.fsdecode(bytes(tmp_path) + b"/gr\xf6sse"))
    for path in (plain, other):
        path.write_bytes(b"content")
        with library_path(path) as name:
            assert Path(name.encode().decode()).read_bytes() == b"content"
    with library_path(plain) as name:
        assert name == str(plain)
    with pytest.raises(FileNotFoundError), library_path(Path(f"{other}2")):
        pass
