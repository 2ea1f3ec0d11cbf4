"""The steps at which code accesses the file system, one by one: a kill before any of them, or an error instead."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

__all__ = ["in_a_child", "steps_of"]

_EVENTS = {
    *("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.scandir", "os.listdir"),
    *("fcntl.flock", "ctypes.dlsym", "os.truncate", "os.chmod", "fsync"),
}


def in_a_child(work: Callable[[], object]) -> int:
    """Run a function in a forked process; return 0, 1 after an exception, or the signal as a negative number."""
    with warnings.catch_warnings():
        # The tests have threads that wait; the child touches nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps_of(work: Callable[[], object], number: int, error: int | None = None, within: Path | None = None) -> bool:
    """Run a function in this process, which should be a child, up to a given step; return False if it has fewer.

    Args:
        work: Function that accesses the file system from Python: opens, renames, locks and so on.
        number: Number of the step, from 0; it is not executed.
        error: Error number with which the step fails once; None kills the process by SIGKILL before the step.
        within: Folder; only steps that name something in it, and those of open files, are counted.

    Raises:
        OSError: The function raised it because of the error.
    """
    count = 0
    is_over = False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        names = [os.fsdecode(name) for name in arguments[:2] if isinstance(name, str | bytes | os.PathLike)]
        if event not in _EVENTS or is_over:
            return
        if within is not None and event not in {"fsync", "fcntl.flock"} and str(within) not in "\0".join(names):
            return
        count += 1
        if count != number + 1:
            return
        if error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            # As the system's own errors: with the first name, and of two with both.
            more = (names[0], None, names[1]) if len(names) == 2 and event != "open" else names[:1]
            raise OSError(error, os.strerror(error), *more)

    fsync = os.fsync

    def audited(descriptor: int) -> None:
        sys.audit("fsync")
        fsync(descriptor)

    os.fsync = audited  # type: ignore[assignment]
    sys.addaudithook(hook)
    try:
        work()
    finally:
        is_over = True
    return count > number
