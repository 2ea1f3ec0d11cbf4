"""Folders that are written with :mod:`yolact_plugins.staging`, and processes that are about to finish one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolact_plugins.files import write_atomically
from yolact_plugins.staging import staged_folder

__all__ = ["TOKEN", "content_of", "folder_content", "hidden", "holder", "names", "write_folder"]

TOKEN = "0123456789abcdef"

_HOLD = """
import os, sys, subprocess
from pathlib import Path
from yolact_plugins.staging import staged_file, staged_folder
with staged_folder(Path(sys.argv[1])) as folder, staged_file(Path(sys.argv[2])) as staged:
    (folder / "a").write_bytes(b"half")
    if sys.argv[3] == "program":
        subprocess.Popen(["cat"], stdout=subprocess.DEVNULL, close_fds=False)
    print("held", flush=True)
    sys.stdin.read()
"""


def write_folder(path: Path, content: bytes) -> None:
    """Write a folder with a file, a link and a folder in it."""
    with staged_folder(path) as folder:
        (folder / "a").write_bytes(content)
        (folder / "inner").mkdir()
        write_atomically(folder / "inner" / "b", content)
        (folder / "link").symlink_to("a")


def folder_content(path: Path) -> bytes:
    """Return the content that :func:`write_folder` wrote, and assert that it is whole."""
    assert sorted(entry.name for entry in path.iterdir()) == ["a", "inner", "link"]
    assert [entry.name for entry in (path / "inner").iterdir()] == ["b"]
    content = (path / "a").read_bytes()
    assert content == (path / "inner" / "b").read_bytes() == (path / "link").read_bytes()
    return content


def content_of(path: Path, is_file: bool) -> bytes:
    """Return the content of a file, or of a folder of :func:`write_folder`."""
    return path.read_bytes() if is_file else folder_content(path)


def names(folder: Path) -> list[str]:
    """Return the names of all entries, sorted."""
    return sorted(entry.name for entry in folder.iterdir())


def hidden(tmp_path: Path) -> list[str]:
    """Return the names that begin with a dot."""
    return [name for name in names(tmp_path) if name.startswith(".")]


@contextmanager
def holder(tmp_path: Path, program: str = "none") -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that is in the middle of writing ``folder`` and ``file``; kill it afterwards."""
    words = [sys.executable, "-c", _HOLD, str(tmp_path / "folder"), str(tmp_path / "file"), program]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()
