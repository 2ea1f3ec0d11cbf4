"""Locks on files and folders that end with the process that holds them, however it ends.

The locks are those of ``flock``: advisory, local to one kernel, and shared by all containers on it. A file system
without locks (some network and FUSE mounts) is not an error here: :class:`Lock` reports it and the caller decides. NFS
with ``local_lock`` keeps locks on one machine, so two machines do not see each other's.
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
"""How long to wait for a lock before logging a warning, and the interval between attempts."""
_ANY_THREAD = 0
_held: dict[tuple[int, int], int] = {}
"""Folders that this process has locked: (device, inode) -> thread id, or _ANY_THREAD."""


class Lock(enum.Enum):
    """Result of a request for a lock."""

    HELD = "held"
    TAKEN = "taken by another"
    UNSUPPORTED = "the file system has none"


def try_lock(descriptor: int) -> Lock:
    """Request the exclusive lock of an open file or folder without waiting.

    The lock belongs to the open file description, not to the process: forked children share it until they end or the
    last descriptor is closed; programs started with ``exec`` do not inherit it.
    """
    if fcntl is None:
        return Lock.UNSUPPORTED
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # NFS reports EBADF for folders; others report ENOLCK, ENOTSUP, ENOSYS or EINVAL.
        return Lock.TAKEN if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES} else Lock.UNSUPPORTED
    return Lock.HELD


def unlock(descriptor: int) -> None:
    """Release the lock, also for forked children that share the descriptor."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def open_folder(path: Path, *, follow: bool = True) -> int:
    """Open a folder for locking and ``fsync``, and return the descriptor; started programs do not inherit it.

    Raises:
        OSError: The path cannot be opened or is not a folder.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))


def leads_to(path: Path, descriptor: int, *, follow: bool = False) -> bool:
    """Return whether a path still leads to the open file; it may have been renamed, removed or replaced."""
    try:
        found = path.stat(follow_symlinks=follow)
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))


@contextmanager
def named_as_held(descriptor: int) -> Iterator[None]:
    """Mark a folder as already locked: :func:`locked_folder` does not wait for it in any thread of this process."""
    key = _identity(descriptor)
    _held[key] = _ANY_THREAD
    try:
        yield
    finally:
        _held.pop(key, None)


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Lock a folder while several of its files are changed or while it is replaced; wait for other holders.

    Within the block the path leads to the locked folder, as far as other processes use this function. The thread that
    holds the folder may enter again. If the file system has no locks, nothing is locked.

    Args:
        path: An existing folder; links are followed.

    Raises:
        OSError: The folder is missing, is not a folder, or is not readable.
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
    """Wait for the lock; log a warning if it takes longer than writing a file does, because it may take forever."""
    if fcntl is None:
        return
    deadline = time.monotonic() + _SILENT_S
    while try_lock(descriptor) is Lock.TAKEN:
        if time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
            continue
        _log.warning(
            "waiting for another process that changes %r. If it is stopped or hangs, continue or end it: "
            "lslocks -o PID,COMMAND,TYPE,PATH",
            str(path),  # `%r` escapes control characters, which must not reach a terminal
        )
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
