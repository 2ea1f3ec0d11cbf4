"""Files and folders get their names whole: however a process ends, whatever the file system says, whoever else writes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from yolact_plugins import leftovers, locks, staging
from yolact_plugins.files import write_atomically
from yolact_plugins.leftovers import is_being_replaced
from yolact_plugins.locks import Lock, locked_folder, open_folder, try_lock
from yolact_plugins.staging import StagedFile, scratch_folder, staged_file, staged_folder

TOKEN = "0123456789abcdef"
NAMES = ["a.json", "x" * 255, "ä" * 127, "中" * 85, ".hidden", "-", "a b\n'\"$", os.fsdecode(b"gr\xf6sse"), "a.tmp", "[a]*"]


def write_folder(path: Path, content: bytes) -> None:
    """A folder with a file, a link and a folder in it."""
    with staged_folder(path) as folder:
        (folder / "a").write_bytes(content)
        (folder / "inner").mkdir()
        write_atomically(folder / "inner" / "b", content)
        (folder / "link").symlink_to("a")


def folder_content(path: Path) -> bytes:
    """What :func:`write_folder` wrote, which must be whole."""
    assert sorted(entry.name for entry in path.iterdir()) == ["a", "inner", "link"]
    assert [entry.name for entry in (path / "inner").iterdir()] == ["b"]
    content = (path / "a").read_bytes()
    assert content == (path / "inner" / "b").read_bytes() == (path / "link").read_bytes()
    return content


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def in_a_child(work: Callable[[], object]) -> int:
    """Run in a forked process; returns its status as :func:`os.waitstatus_to_exitcode` has it."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        monkeypatch.setattr(staging, "_exchange", lambda a, b: False)
    return bool(request.param)


@pytest.fixture(params=[True, False], ids=["locks", "no locks"])
def has_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:

        def unsupported(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", unsupported)
    return bool(request.param)


@pytest.mark.parametrize("name", NAMES)
def test_files_and_folders_of_every_name(tmp_path: Path, name: str, exchange: bool, has_locks: bool) -> None:
    for content in (b"one", b"two"):
        write_atomically(tmp_path / name, content)
        assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, content)]
    (tmp_path / name).unlink()
    for content in (b"one", b"two"):
        write_folder(tmp_path / name, content)
        assert names(tmp_path) == [name]
        assert folder_content(tmp_path / name) == content


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    write_atomically(tmp_path / "file", b"old")
    write_folder(tmp_path / "folder", b"old")
    with pytest.raises(error), staged_file(tmp_path / "file") as staged:
        staged.file.write(b"new")
        raise error
    with pytest.raises(error), staged_folder(tmp_path / "folder") as folder:
        (folder / "a").write_bytes(b"new")
        raise error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert folder_content(tmp_path / "folder") == b"old"
    assert names(tmp_path) == ["file", "folder"]
