"""File system errors in readable form: the file that the user named, what is wrong, and what to type."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DISK_ERRORS", "describe", "explain", "naming"]

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Error numbers of a write to an open file. Python does not know the file's name at that point."""

_ADVICE = {
    errno.ENOSPC: "free some space (df -h {folder}), or name a place on another disk",
    errno.EDQUOT: "free some of your files there (quota -s), or name another place",
    errno.EFBIG: "the file system or a limit (ulimit -f) allows no file of that size; name another place",
    errno.EROFS: "name another place, or mount it for writing (findmnt -T {folder})",
    errno.EACCES: "look at who may do that (ls -ld {folder}), or name another place",
    errno.EPERM: "look at who may do that (ls -ld {folder}; lsattr -d {folder}), or name another place",
    errno.ENAMETOOLONG: "a name has at most 255 bytes, a path 4095; name a shorter one",
    errno.ENOENT: "correct the path, or make the folder (mkdir -p {folder})",
    errno.ENOTDIR: "a part of the path is a file (ls -ld {folder}); name another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.EBUSY: "it is a mount point, which cannot be replaced in one step; name a place inside a mounted folder",
    errno.EXDEV: "a folder of a container's image cannot be replaced; make it one of the container first (cp -a {path} "
    "{path}.copy && rm -r {path} && mv {path}.copy {path}), or name another place",
    errno.EIO: "the disk does not work as it should (dmesg | tail); name a place on another one",
    errno.EMFILE: "this process has too many open files (ulimit -n)",
    errno.ELOOP: "links lead in a circle; name another place",
}


def describe(error: OSError) -> str:
    """Describe an error in one line: the file, the system's message and, if known, what to do about it."""
    if error.errno is None or error.filename is None or isinstance(error.filename, int):
        return str(error)
    name = os.fsdecode(error.filename)
    return f"{name}: {explain(error, Path(name))}"


def explain(error: OSError, path: Path) -> str:
    """Return the system's message about a file and what to type, without the file name."""
    reason = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, "")
    folder = shlex.quote(str(path.parent))
    return f"{reason}; {advice.format(folder=folder, path=shlex.quote(str(path)))}" if advice else reason


@contextmanager
def naming(path: Path, hidden: Path | None = None) -> Iterator[None]:
    """Rename file system errors that leave the block, so that they name the file that the caller asked for.

    Args:
        path: The file or folder that the caller asked for.
        hidden: Temporary path at which it is being written. Errors that name this path, or a path below it, get the
            corresponding final name, and so do unnamed :data:`DISK_ERRORS`; other errors pass unchanged. If None, every
            error of the block gets the name `path`.
    """
    try:
        yield
    except OSError as error:
        name = str(path) if hidden is None else _translated(error, path, hidden)
        # Errors of this project already have complete messages.
        if name is None or error.errno is None or type(error).__module__ != "builtins":
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), name) from error


def _translated(error: OSError, path: Path, hidden: Path) -> str | None:
    if error.filename is None:
        return str(path) if error.errno in DISK_ERRORS else None
    if isinstance(error.filename, int):
        return None
    # If there are two names, the second one is the destination.
    for found in (error.filename, error.filename2):
        if found is None or isinstance(found, int):
            continue
        place = Path(os.fsdecode(found))
        if place == hidden or hidden in place.parents:
            return str(path / place.relative_to(hidden))
    return None
