"""Who changes a folder holds it, and whoever replaces it waits."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from support.staged import names, write_folder
from yolact_plugins.files import write_atomically
from yolact_plugins.locks import locked_folder
from yolact_plugins.staging import staged_folder

pytestmark = pytest.mark.usefixtures("no_sync")


def test_a_locked_folder_is_not_replaced(tmp_path: Path, exchange: bool) -> None:
    """Who changes files in it reads, writes, and finds them in the folder that has the name."""
    path = tmp_path / "it"
    write_folder(path, b"old")
    entered, done = threading.Event(), threading.Event()

    def replace() -> None:
        with staged_folder(path) as folder:
            (folder / "new").touch()
            entered.set()
        done.set()

    replacer = threading.Thread(target=replace)
    with locked_folder(path), locked_folder(path):
        replacer.start()
        assert entered.wait(60)
        for _ in range(20):
            assert not done.wait(0.005)
            assert names(path) == ["a", "inner", "link"]
    replacer.join()
    assert names(path) == ["new"]
    with locked_folder(path):
        assert names(tmp_path) == ["it"]


def test_whoever_waits_gets_the_folder_that_has_the_name(tmp_path: Path, exchange: bool) -> None:
    """Counting by reading and writing, while others replace the folder by a copy with one more."""
    path = tmp_path / "it"
    with staged_folder(path) as folder:
        (folder / "count").write_text("0")

    def count() -> None:
        for _ in range(20):
            with locked_folder(path):
                write_atomically(path / "count", str(int((path / "count").read_text()) + 1).encode())

    def count_in_a_copy() -> None:
        for _ in range(20):
            with contextlib.ExitStack() as held, staged_folder(path) as folder:
                held.enter_context(locked_folder(path))
                (folder / "count").write_text(str(int((path / "count").read_text()) + 1))

    # Where names cannot be exchanged, this one is missing for an instant, in which locked_folder finds nothing.
    threads = [
        threading.Thread(target=work) for work in ([count, count_in_a_copy] * 2 if exchange else [count_in_a_copy])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (path / "count").read_text() == str(20 * len(threads))
    assert names(tmp_path) == ["it"]
