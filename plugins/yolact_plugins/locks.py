"""Locks on files and folders, which end with the process that holds them, however it ends.

They are ``flock``'s: advisory, of one kernel, seen by every container on it. A file system without them (some network
and FUSE mounts) is no error here: :class:`Lock` says so, and who asked decides. NFS with ``local_lock`` keeps them on
one machine, so that two machines do not see each other's.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["Lock", "leads_to", "locked_folder", "named_as_held", "open_folder", "try_lock", "unlock"]

_log = logging.getLogger(__name__)
_SILENT_S, _PAUSE_S = 2.0, 0.01
"""How long a lock is waited for without a word, and how often it is asked for meanwhile."""
_ANY_THREAD = 0
_held: dict[tuple[int, int], int] = {}
"""Folders that this process has locked: device and inode -> thread, or _ANY_THREAD."""


class Lock(enum.Enum):
    """What came of asking for a lock."""

    HELD = "held"
    TAKEN = "taken by another"
    UNSUPPORTED = "the file system has none"


def try_lock(descriptor: int) -> Lock:
    """Ask for the exclusive lock of an open file or folder, and do not wait.

    The lock belongs to what was opened, not to the process: forked children share it until they end or the last
    descriptor is closed; programs that are started do not get it.
    """
    if fcntl is None:
        return Lock.UNSUPPORTED
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # NFS says EBADF of folders, others ENOLCK, ENOTSUP, ENOSYS or EINVAL.
        return Lock.TAKEN if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES} else Lock.UNSUPPORTED
    return Lock.HELD


def unlock(descriptor: int) -> None:
    """Give the lock back, also for forked children that share the descriptor."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def open_folder(path: Path, *, follow: bool = True) -> int:
    """A descriptor of a folder, for locks and ``fsync``; programs that are started do not inherit it.

    Raises:
        OSError: It cannot be opened, or is no folder.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))


def leads_to(path: Path, descriptor: int, *, follow: bool = False) -> bool:
    """Whether a name still leads to what was opened: somebody may have renamed, removed or replaced it."""
    try:
        found = path.stat(follow_symlinks=follow)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


@contextmanager
def named_as_held(descriptor: int) -> Iterator[None]:
    """Let :func:`locked_folder` pass, in every thread of this process, at a folder that was locked otherwise."""
    key = _identity(descriptor)
    _held[key] = _ANY_THREAD
    try:
        yield
    finally:
        _held.pop(key, None)


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Hold a folder while several of its files are changed, or while it is replaced; waits for others who do.

    Within the block the name leads to the folder that is locked, as far as others use this function. It may be entered
    again by the thread that holds the folder. Nothing is locked where the file system has no locks.

    Args:
        path: An existing folder; links are followed.

    Raises:
        OSError: It is missing, no folder, or not readable.
    """
    while True:
        descriptor = open_folder(path)
        try:
            key = _identity(descriptor)
            if _held.get(key) in {_ANY_THREAD, threading.get_ident()}:
                outer = True
                break
            outer = False
            _wait(descriptor, path)
            if leads_to(path, descriptor, follow=True):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        if outer:
            yield
            return
        _held[key] = threading.get_ident()
        try:
            yield
        finally:
            _held.pop(key, None)
            unlock(descriptor)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path) -> None:
    """Wait for the lock; what takes longer than writing a file does is told of, because it may be for ever."""
    if fcntl is None:
        return
    deadline = time.monotonic() + _SILENT_S
    while try_lock(descriptor) is Lock.TAKEN:
        if time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            continue
        _log.warning(
            "waiting for another process that changes %r. Where it is stopped, or hangs, continue or end it: "
            "lslocks -o PID,COMMAND,TYPE,PATH",
            str(path),  # as Python writes it: no control character in it reaches a terminal
        )
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
