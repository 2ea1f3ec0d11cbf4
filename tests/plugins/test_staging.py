"""Files and folders get their names whole, however a process ends and whoever else writes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.file_system_steps import in_a_child, steps_of
from support.staged import content_of, folder_content, hidden, names, write_folder
from yolact_plugins import leftovers, staging
from yolact_plugins.file_errors import describe
from yolact_plugins.files import write_atomically
from yolact_plugins.leftovers import EARLIER, hidden_folders
from yolact_plugins.locks import Lock, try_lock
from yolact_plugins.staging import StagedFile, require_writable, scratch_folder, staged_file, staged_folder

pytestmark = pytest.mark.usefixtures("no_sync")

NAMES = ["a.json", "x" * 255, "ä" * 127, "中" * 85, ".hidden", "-", "a b\n'\"$", os.fsdecode(b"gr\xf6sse"), "[a]*"]


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

    def break_off_file() -> None:
        with staged_file(tmp_path / "file") as staged:
            staged.file.write(b"new")
            raise error

    def break_off_folder() -> None:
        with staged_folder(tmp_path / "folder") as folder:
            (folder / "a").write_bytes(b"new")
            raise error

    for break_off in (break_off_file, break_off_folder):
        with pytest.raises(error):
            break_off()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert folder_content(tmp_path / "folder") == b"old"
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("is_first", [False, True], ids=["replaced", "new"])
@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_a_kill_at_every_step(tmp_path: Path, is_file: bool, is_first: bool, exchange: bool) -> None:
    """The old one or the new one is there, whole, and nothing else after the next run."""
    write = write_atomically if is_file else write_folder
    seen = set()
    for number in range(1000):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "it"
        if not is_first:
            write(path, b"old")
        status = in_a_child(lambda path=path, number=number: steps_of(lambda: write(path, b"new"), number))
        assert status in {0, -signal.SIGKILL}
        if path.exists():
            seen.add(content_of(path, is_file))
        else:
            # Between two renames, at which the reader can wait.
            assert is_first or hidden_folders(path, {EARLIER})
            seen.add(b"")
        # The next writer, which has nothing to say of its own, so that what it finds is seen.
        leftovers.remove_leftovers(path)
        if not is_first:
            assert content_of(path, is_file) in {b"old", b"new"}
        write(path, b"next")
        assert content_of(path, is_file) == b"next"
        assert names(folder) == ["it"]
        if status == 0:
            break
    assert number > (8 if is_file else 15)
    gap = {b""} if is_first or not (is_file or exchange) else set()
    assert seen == {b"new", *gap, *([] if is_first else [b"old"])}


ERRORS = [
    *(errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG, errno.EXDEV, errno.EIO, errno.ENOENT),
    *(errno.EBUSY, errno.EPERM, errno.EMFILE),
]


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_an_error_at_every_step(tmp_path: Path, is_file: bool, first: int, exchange: bool) -> None:
    """It names the destination, what was there stays, and nothing is left after the next run."""
    write = write_atomically if is_file else write_folder
    path = tmp_path / "it"
    write(path, b"old")

    def try_it(number: int) -> bool:
        """In a child; False if there is no such step."""
        code = ERRORS[(first + number) % len(ERRORS)]
        caught = None
        try:
            return steps_of(lambda: write(path, b"new"), number, code)
        except OSError as error:
            caught = error
        words = describe(caught)
        assert caught.errno == code
        assert path in {Path(str(caught.filename)), *Path(str(caught.filename)).parents}
        assert ".it." not in words
        assert os.strerror(code) in words
        assert "; " in words.removeprefix(str(path))
        return True

    for number in range(1000):
        ended = in_a_child(lambda number=number: try_it(number) or os._exit(7))
        assert ended in {0, 7}
        assert content_of(path, is_file) in {b"old", b"new"}
        write(path, b"old")
        assert names(tmp_path) == ["it"]
        if ended == 7:
            break
    assert number > (8 if is_file else 15)


def test_two_writers_of_one_process_id(tmp_path: Path, exchange: bool, has_locks: bool) -> None:
    """Threads have the same one, as two containers do in which everything is process 1: neither loses its work."""
    barrier = threading.Barrier(2)
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            with staged_folder(tmp_path / "it") as folder:
                barrier.wait()
                for name in ("a", "b"):
                    (folder / name).write_bytes(content)
                    barrier.wait()
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    for _ in range(10):
        threads = [threading.Thread(target=write, args=(content,)) for content in (b"one", b"two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert (tmp_path / "it" / "a").read_bytes() == (tmp_path / "it" / "b").read_bytes()
        assert names(tmp_path / "it") == ["a", "b"]
        assert names(tmp_path) == ["it"]


@pytest.mark.parametrize("moment", ["removed", "being removed"])
@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_a_cleaner_between_making_and_locking(
    tmp_path: Path, is_file: bool, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it"
    taken: list[int] = []

    def lock_later(descriptor: int) -> Lock:
        if not taken:
            (name,) = hidden(tmp_path)
            if moment == "removed":
                taken.append(-1)
                leftovers.remove_leftovers(path)
                assert names(tmp_path) == []
            else:
                taken.append(os.open(tmp_path / name, os.O_RDONLY))
                assert try_lock(taken[0]) is Lock.HELD
        return try_lock(descriptor)

    monkeypatch.setattr(staging, "try_lock", lock_later)
    (write_atomically if is_file else write_folder)(path, b"new")
    assert taken
    assert content_of(path, is_file) == b"new"
    if moment == "being removed":
        os.close(taken[0])
        leftovers.remove_leftovers(path)
    assert names(tmp_path) == ["it"]


def test_links_are_followed_for_folders_and_replaced_for_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "real", b"old")
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", b"new")
    assert folder_content(tmp_path / "real") == b"new"
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "dangling").symlink_to("other")
    write_folder(tmp_path / "dangling", b"new")
    assert folder_content(tmp_path / "other") == b"new"
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "file").symlink_to("target")
    write_atomically(tmp_path / "file", b"new")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"old"
    assert names(tmp_path) == ["dangling", "file", "link", "other", "real", "target"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY, errno.EPERM])
def test_a_folder_that_cannot_be_replaced_is_found_before_any_work(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a container's image, a mount point, or one of somebody else in a sticky folder."""
    path = tmp_path / "it"
    write_folder(path, b"old")
    rename = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source == path:
            raise OSError(code, os.strerror(code), str(source), None, str(target))
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match=r"/it'$") as caught, staged_folder(path):
        raise AssertionError
    assert caught.value.errno == code
    assert folder_content(path) == b"old"
    assert names(tmp_path) == ["it"]


def test_what_is_no_folder_is_not_replaced_by_one(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"precious")
    with pytest.raises(NotADirectoryError, match="it'"):
        write_folder(tmp_path / "it", b"new")
    assert (tmp_path / "it").read_bytes() == b"precious"
    assert names(tmp_path) == ["it"]


@pytest.mark.parametrize("write", [write_atomically, write_folder])
def test_a_name_that_is_too_long_is_found_at_once(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    for name in ("x" * 256, "ä" * 128):
        with pytest.raises(OSError, match=name) as caught:
            write(tmp_path / name, b"new")
        assert caught.value.errno == errno.ENAMETOOLONG
    assert names(tmp_path) == []


def test_a_name_is_never_missing_where_names_can_be_exchanged(tmp_path: Path) -> None:
    path = tmp_path / "it"
    write_folder(path, b"0")
    stop = threading.Event()
    missing = []

    def look() -> None:
        while not stop.is_set():
            if not (path / "a").parent.exists():
                missing.append(1)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(50):
        write_folder(path, str(number).encode())
    stop.set()
    reader.join()
    assert not missing


def test_scratch_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = """
import os, sys, tempfile
tempfile.tempdir = sys.argv[1]
from yolact_plugins.staging import scratch_folder
with scratch_folder("video") as folder:
    (folder / "a").touch()
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", child, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("yolact-video-")
    (tmp_path / "yolact-video").mkdir()
    with scratch_folder("layers") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert names(tmp_path) == sorted([folder.name, "yolact-video"])
        with scratch_folder("layers") as another:
            (another / "b").mkdir()
            assert names(tmp_path) == sorted([folder.name, another.name, "yolact-video"])
    assert names(tmp_path) == ["yolact-video"]


def test_a_staged_file_may_be_discarded_twice_and_named_otherwise(tmp_path: Path) -> None:
    staged = StagedFile(tmp_path / "clip.mp4", ".mp4")
    assert staged.path.name.endswith(".tmp.mp4")
    staged.path.write_bytes(b"by another program")
    staged.commit(tmp_path / "clip.incomplete.mp4")
    staged.discard()
    assert (tmp_path / "clip.incomplete.mp4").read_bytes() == b"by another program"
    staged = StagedFile(tmp_path / "clip.mp4")
    staged.discard()
    staged.discard()
    assert names(tmp_path) == ["clip.incomplete.mp4"]


@pytest.mark.parametrize("flush", [True, False])
def test_what_cannot_be_written_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush: bool) -> None:
    """The last bytes are in a buffer, and the disk is full when they leave it."""
    (tmp_path / "file").write_bytes(b"old")
    staged = StagedFile(tmp_path / "file")
    staged.file.write(b"new")
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), staged.file.fileno())
    with pytest.raises(OSError, match="No space left on device"):
        staged.commit(flush=flush)
    staged.discard()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_nothing_is_left_where_another_writer_is_faster_between_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "it", b"old")
    rename, others = Path.rename, iter([b"other"])

    def rename_and_lose(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        if target.name.endswith(".earlier"):
            for content in others:
                write_folder(tmp_path / "it", content)
        return moved

    monkeypatch.setattr(staging, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", rename_and_lose)
    with staged_folder(tmp_path / "it") as folder:
        write_folder(folder / "in", b"new")
    assert names(tmp_path) == ["it"]
    assert folder_content(tmp_path / "it" / "in") == b"new"


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    require_writable(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "old").read_bytes() == b"old"
    assert names(tmp_path) == ["old"]
    for path in (tmp_path / "missing" / "new", tmp_path / ("x" * 256)):
        with pytest.raises(OSError, match=str(path)):
            require_writable(tmp_path / "new", path)
