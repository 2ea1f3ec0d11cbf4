"""Kills and errors at a chosen step of a command: Python's audit events of the file system are counted."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["count_steps", "fail_from", "kill_at"]

_CHANGES = frozenset({"os.rename", "os.mkdir", "os.link", "os.symlink", "os.truncate"})
_REMOVALS = frozenset({"os.remove", "os.rmdir", "shutil.rmtree", "shutil.copyfile"})


Act = Callable[[str, "tuple[Any, ...]"], None]


def _watch(folder: Path, act: Act) -> None:
    """Call a function before every change of a file, in this process alone.

    Files that are opened count below `folder` only; the function is told the event and its arguments, and may raise.
    """
    own, below, busy = os.getpid(), os.fsencode(folder), [False]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if busy[0] or os.getpid() != own:
            return
        if event == "open":
            path, mode, flags = arguments
            is_text = isinstance(path, str | bytes | os.PathLike)
            writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else "w" in (mode or "")
            if not is_text or not writes or not os.fsencode(path).startswith(below):
                return
        elif event not in _CHANGES and event not in _REMOVALS:
            return
        busy[0] = True
        try:
            act(event, arguments)
        finally:
            busy[0] = False

    # A hook stays for the life of its process, which is that of a try.
    sys.addaudithook(hook)


def count_steps(folder: Path) -> list[str]:
    """A list that grows by every change of a file from now on."""
    steps: list[str] = []
    _watch(folder, lambda event, _: steps.append(event))
    return steps


def kill_at(folder: Path, step: int) -> None:
    """This process kills itself before the step of that number."""
    steps: list[str] = []

    def act(event: str, _: tuple[Any, ...]) -> None:
        steps.append(event)
        if len(steps) > step:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(folder, act)


def fail_from(folder: Path, step: int, number: int, lasting: bool) -> None:
    """Make the step of that number fail; removing files always works, as on a full disk.

    Args:
        folder: See :func:`count_steps`.
        step: From 0.
        number: Such as ``errno.ENOSPC``.
        lasting: All steps behind it fail, too.
    """
    steps: list[str] = []

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        steps.append(event)
        if event not in _REMOVALS and (len(steps) - 1 == step or (lasting and len(steps) > step)):
            # With the name that the operation itself would give.
            raise OSError(number, os.strerror(number), arguments[0])

    assert number in errno.errorcode
    _watch(folder, act)
