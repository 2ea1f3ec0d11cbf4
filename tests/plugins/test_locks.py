"""Who changes a folder holds it, and whoever replaces it waits."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from pathlib import Path

import pytest

from support.staged import names, write_folder
from yolact_plugins.files import write_atomically
from yolact_plugins.locks import Lock, locked_folder, open_folder, try_lock, unlock
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


def test_waiting_for_long_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that is stopped keeps its lock: who waits for it says so, and goes on when the lock is free."""
    monkeypatch.setattr("yolact_plugins.locks._SILENT_S", 0.0)
    path = tmp_path / "it\x1b"
    path.mkdir()
    reports, report = os.pipe()
    held = open_folder(path)
    assert try_lock(held) is Lock.HELD
    entered = threading.Event()

    def enter() -> None:
        with locked_folder(path):
            entered.set()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            os.write(report, b"x")

    teller, waiter = Told(), threading.Thread(target=enter, daemon=True)
    logging.getLogger("yolact_plugins.locks").addHandler(teller)
    try:
        waiter.start()
        assert select.select([reports], [], [], 60)[0]
        assert not entered.is_set()
        os.close(held)
        waiter.join(60)
        assert entered.is_set()
    finally:
        logging.getLogger("yolact_plugins.locks").removeHandler(teller)
        os.close(reports)
        os.close(report)
    assert "waiting for another process that changes" in caplog.text
    assert "\x1b" not in caplog.text
    assert len(caplog.records) == 1


def test_a_short_wait_is_not_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held, tries = open_folder(tmp_path), []

    def released(seconds: float) -> None:
        tries.append(seconds)
        unlock(held)

    assert try_lock(held) is Lock.HELD
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolact_plugins.locks.time.sleep", released)
        with locked_folder(tmp_path):
            os.close(held)
    assert len(tries) == 1
    assert not caplog.records
