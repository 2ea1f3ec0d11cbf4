"""Errors of the file system as people need them: the file that they named, what is wrong, and what to type."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DISK_ERRORS", "describe", "explain", "naming"]

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""What writing to a file that is open ends with; Python does not know its name then."""

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
    """One line: the file, what the system says, and what to do about it, as far as that is known."""
    if error.errno is None or error.filename is None or isinstance(error.filename, int):
        return str(error)
    name = os.fsdecode(error.filename)
    return f"{name}: {explain(error, Path(name))}"


def explain(error: OSError, path: Path) -> str:
    """What the system says about a file, and what to type; without the name, for messages that begin with it."""
    reason = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, "")
    folder = shlex.quote(str(path.parent))
    return f"{reason}; {advice.format(folder=folder, path=shlex.quote(str(path)))}" if advice else reason


@contextmanager
def naming(path: Path, hidden: Path | None = None) -> Iterator[None]:
    """Give errors of the file system that leave the block the name of the file that somebody asked for.

    Args:
        path: What was asked for.
        hidden: Where it is made meanwhile. Errors that name this file, or one in this folder, are given the name that
            it would have had, and so are those of :data:`DISK_ERRORS` without a name; others pass. None: all errors of
            the block are of `path`.
    """
    try:
        yield
    except OSError as error:
        name = str(path) if hidden is None else _translated(error, path, hidden)
        # Errors of ours have words of their own.
        if name is None or error.errno is None or type(error).__module__ != "builtins":
            raise
        raise OSError(error.errno, error.strerror or os.strerror(error.errno), name) from error


def _translated(error: OSError, path: Path, hidden: Path) -> str | None:
    if error.filename is None:
        return str(path) if error.errno in DISK_ERRORS else None
    if isinstance(error.filename, int):
        return None
    # Of two names, the second one is where the file was to go.
    for found in (error.filename, error.filename2):
        if found is None or isinstance(found, int):
            continue
        place = Path(os.fsdecode(found))
        if place == hidden or hidden in place.parents:
            return str(path / place.relative_to(hidden))
    return None
