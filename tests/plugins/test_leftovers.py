"""What killed processes have left is removed by the next one, unless somebody holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.staged import TOKEN, folder_content, hidden, holder, names, write_folder
from yolact_plugins import leftovers
from yolact_plugins.files import write_atomically
from yolact_plugins.leftovers import EARLIER, FOLDER, hidden_folders
from yolact_plugins.locks import Lock, open_folder, try_lock

pytestmark = pytest.mark.usefixtures("no_sync")


def test_what_is_held_stays_and_what_a_killed_process_has_left_goes(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        held = hidden(tmp_path)
        assert len(held) == 2
        write_folder(tmp_path / "folder", b"one")
        write_atomically(tmp_path / "file", b"one")
        write_atomically(tmp_path / "another", b"one")
        assert hidden(tmp_path) == held
        process.kill()
        process.wait()
        write_atomically(tmp_path / "another", b"two")
        assert hidden(tmp_path) == held
        write_folder(tmp_path / "folder", b"two")
        write_atomically(tmp_path / "file", b"two")
        assert names(tmp_path) == ["another", "file", "folder"]


def test_programs_that_are_started_hold_nothing(tmp_path: Path) -> None:
    """An encoder or a compiler may outlive the command that was killed."""
    with holder(tmp_path, "program") as process:
        process.kill()
        process.wait()
        assert len(hidden(tmp_path)) == 2
        write_folder(tmp_path / "folder", b"new")
        write_atomically(tmp_path / "file", b"new")
        assert names(tmp_path) == ["file", "folder"]


def test_without_locks_leftovers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can know whether they are in use."""

    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    left = tmp_path / f".file.{TOKEN}.tmp"
    left.touch()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", unsupported)
        write_atomically(tmp_path / "file", b"new")
        assert names(tmp_path) == [left.name, "file"]
    write_atomically(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]


def test_an_earlier_folder_is_put_back_unless_its_replacement_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "it"
    write_folder(path, b"old")
    earlier = tmp_path / f".it.{TOKEN}.earlier"
    assert not hidden_folders(path)
    path.rename(earlier)
    assert hidden_folders(path) == hidden_folders(path, {EARLIER}) == [earlier]
    assert not hidden_folders(path, {FOLDER})
    assert not hidden_folders(tmp_path / "other")
    descriptor = open_folder(earlier)
    assert try_lock(descriptor) is Lock.HELD
    leftovers.remove_leftovers(path)
    assert names(tmp_path) == [earlier.name]
    os.close(descriptor)
    leftovers.remove_leftovers(path)
    assert folder_content(path) == b"old"
    assert not hidden_folders(path)
    # Of a folder that is there it is a leftover.
    earlier.mkdir()
    leftovers.remove_leftovers(path)
    assert names(tmp_path) == ["it"]


def test_leftovers_of_earlier_releases(tmp_path: Path) -> None:
    """They have a process id; one that runs here may be the one that is meant."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    long = "ä" * 127
    shortened = os.fsdecode(os.fsencode(long)[:200])
    for process in (ended.pid, os.getpid(), os.getppid()):
        for name in ("a.json", shortened):
            (tmp_path / f".{name}.{process}.tmp").touch()
        for suffix in ("mp4", "webm"):
            (tmp_path / f".clip.{process}.partial.{suffix}").touch()
        (tmp_path / f".o.bundle.{process}.partial").mkdir()
    for name in ("a.json", long, "clip.mp4"):
        write_atomically(tmp_path / name, b"")
    write_folder(tmp_path / "o.bundle", b"")
    running = os.getppid()
    kept = [f".a.json.{running}.tmp", f".{shortened}.{running}.tmp", f".o.bundle.{running}.partial"]
    kept += [f".clip.{running}.partial.{suffix}" for suffix in ("mp4", "webm")]
    assert hidden(tmp_path) == sorted(kept)


@pytest.mark.parametrize(
    "name", ["it.TOKEN.tmp", ".it.tmp", ".it.TOKEN0.tmp", ".it.TOKEN.bak", ".other.TOKEN.tmp", ".it.TOKEN.tmp.a.b"]
)
def test_other_names_are_left_alone(tmp_path: Path, name: str) -> None:
    name = name.replace("TOKEN", TOKEN)
    (tmp_path / name).touch()
    write_folder(tmp_path / "it", b"new")
    assert names(tmp_path) == sorted(["it", name])


def test_a_large_folder_is_not_read_for_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2000):
        (tmp_path / str(number)).touch()
    (tmp_path / f".99.{TOKEN}.tmp").touch()
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    for number in range(100):
        write_atomically(tmp_path / str(number), b"")
    # Found by the first look, though it was the turn of that file much later.
    assert not hidden(tmp_path)
    assert len(scanned) <= 15
