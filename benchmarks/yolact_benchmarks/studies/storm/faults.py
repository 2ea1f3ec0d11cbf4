"""Kills and errors at a chosen step of a command; steps are Python's audit events of the file system."""

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

    Files that are opened only count below `folder`. The function receives the event and its arguments, and may raise.
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

    # An audit hook cannot be removed; it ends with the process, which is that of one try.
    sys.addaudithook(hook)


def count_steps(folder: Path) -> list[str]:
    """Return a list that grows with every change of a file from now on."""
    steps: list[str] = []
    _watch(folder, lambda event, _: steps.append(event))
    return steps


def kill_at(folder: Path, step: int) -> None:
    """Let this process kill itself before the step of that number."""
    steps: list[str] = []

    def act(event: str, _: tuple[Any, ...]) -> None:
        steps.append(event)
        if len(steps) > step:
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(folder, act)


def fail_from(folder: Path, step: int, number: int, lasting: bool) -> None:
    """Make the step of that number fail; removing files always works, as on a full disk.

    Args:
        folder: Folder whose files count, as in :func:`count_steps`.
        step: Number of the step, from 0.
        number: Error number, such as ``errno.ENOSPC``.
        lasting: Whether all later steps fail, too.
    """
    steps: list[str] = []

    def act(event: str, arguments: tuple[Any, ...]) -> None:
        steps.append(event)
        if event not in _REMOVALS and (len(steps) - 1 == step or (lasting and len(steps) > step)):
            # With the file name that the operation itself would report.
            raise OSError(number, os.strerror(number), arguments[0])

    assert number in errno.errorcode
    _watch(folder, act)
