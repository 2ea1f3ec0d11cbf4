"""Files and folders that are made under a hidden name and get their own in one step, once they are whole and on disk.

However a process ends, SIGKILL and power included, there is the earlier file or the new one. What a killed process has
left is removed by the next one that writes the same file; see :mod:`yolact_plugins.leftovers`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from yolact_plugins.file_errors import naming
from yolact_plugins.leftovers import EARLIER, FILE, FOLDER, hidden_path, remove_leftovers, remove_scratch
from yolact_plugins.locks import Lock, leads_to, locked_folder, named_as_held, open_folder, try_lock, unlock

__all__ = ["StagedFile", "require_writable", "scratch_folder", "staged_file", "staged_folder"]

# linux/fcntl.h and linux/fs.h
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_MAX_TRIES = 100
# What file systems say that cannot flush a folder, or of one that may be written and not read.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}


class StagedFile:
    """A new file beside its destination, under a hidden name and locked; :func:`staged_file` is the simple way.

    Args:
        path: The destination. A link is replaced, not followed. An earlier file stays until :meth:`commit`.
        suffix: Of the hidden name, for programs that go by it, such as encoders.

    Attributes:
        destination: As given.
        path: The hidden name; other programs may write there, as long as they do not replace the file.
        file: Open for writing.
        is_open: Neither committed nor discarded.

    Raises:
        OSError: The file cannot be made. This and every other error of the file system names `destination`.
    """

    def __init__(self, path: Path, suffix: str = "") -> None:
        self.destination = path
        with naming(path):
            _check_name(path)
            remove_leftovers(path)
            self.path, descriptor = _create(lambda: hidden_path(path, FILE, suffix), _new_file)
            self.file: IO[bytes] = os.fdopen(descriptor, "wb")
        self.is_open = True

    def commit(self, path: Path | None = None, *, flush: bool = True) -> None:
        """Flush the file to disk and give it its name; the folder is flushed, too. Ends the lock.

        Args:
            path: Another name in the same folder; None takes the destination.
            flush: False leaves it to the system when the file reaches the disk, for what is better than nothing.

        Raises:
            OSError: It failed, and an earlier file is as it was; call :meth:`discard`. If only the folder could not be
                flushed, the new file is in its place, whole.
        """
        place = path or self.destination
        with naming(place), _flushed(place.parent) if flush else contextlib.nullcontext():
            self.file.flush()
            if flush:
                os.fsync(self.file.fileno())
            self.path.replace(place)
            self._close()

    def discard(self) -> None:
        """Remove what :meth:`commit` did not name. May be called again."""
        if self.is_open:
            # Before the lock ends; a name that cannot be removed is left to the next one.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        self.is_open = False
        unlock(self.file.fileno())
        # What was not flushed is of a file that is discarded.
        with contextlib.suppress(OSError):
            self.file.close()


@contextmanager
def staged_file(path: Path, suffix: str = "") -> Iterator[StagedFile]:
    """A new file that takes the place of `path` when the block ends well, and is removed when it does not.

    Args:
        path: The destination; a link is replaced, not followed.
        suffix: Of the hidden name.

    Raises:
        OSError: The file system failed; the error names `path`, and an earlier file there is as it was.
    """
    staged = StagedFile(path, suffix)
    try:
        with naming(path, staged.path):
            yield staged
        staged.commit()
    finally:
        staged.discard()


def require_writable(*paths: Path) -> None:
    """Find now, and not after hours of work, that files cannot be written: each is begun, and discarded.

    Args:
        paths: The files that are to come, in folders that exist; what is there is left alone.

    Raises:
        OSError: The error names the first of them that cannot be written.
    """
    for path in paths:
        StagedFile(path).discard()


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of `path` when the block ends well, and is removed when it does not.

    The two are exchanged in one step (``renameat2``), so a reader opens the earlier folder or the new one. Where the
    file system cannot do that, `path` is missing between two renames; if the process is killed just then, the next
    writer puts the earlier one back (:func:`yolact_plugins.leftovers.remove_leftovers`). The new folder takes the
    place while :func:`yolact_plugins.locks.locked_folder` holds the earlier one, and is flushed to disk before.

    Args:
        path: The destination, in a folder that exists; links are followed. Whatever is in it is replaced.

    Yields:
        The empty folder.

    Raises:
        OSError: The file system failed; the error has the name that the file would have had, and an earlier folder is
            as it was.
    """
    place = Path(os.path.realpath(path))
    with naming(path):
        _check_name(place)
        remove_leftovers(place)
        staging, descriptor = _create(lambda: hidden_path(place, FOLDER), _new_folder)
    try:
        with naming(path):
            _require_movable(place, staging)
        with named_as_held(descriptor), naming(path, staging):
            yield staging
            _flush_tree(staging)
        with naming(path), _flushed(place.parent):
            _take_place(staging, place)
            unlock(descriptor)
    finally:
        # After an exchange this is the earlier folder.
        shutil.rmtree(staging, ignore_errors=True)
        unlock(descriptor)
        os.close(descriptor)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """An empty folder for temporary files, in ``$TMPDIR`` or ``/tmp``; it is removed with all that is in it.

    Those of killed processes are removed by the next one of this user, whatever it is for.

    Args:
        purpose: One word in lower case, for people who see the name.

    Raises:
        OSError: The folder cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    remove_scratch(parent)
    folder, descriptor = _create(lambda: parent / f"yolact-{purpose}-{secrets.token_hex(8)}", _new_private_folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _check_name(path: Path) -> None:
    """Find a name that is too long now, and not when the file is finished: the hidden one is shorter."""
    if len(os.fsencode(path.name)) > os.pathconf(path.parent, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _create(new_name: Callable[[], Path], make: Callable[[Path], int]) -> tuple[Path, int]:
    """Make a file or folder under a new name, and lock it, before somebody takes it for a leftover."""
    for _ in range(_MAX_TRIES):
        path = new_name()
        try:
            descriptor = make(path)
        except FileExistsError:
            continue
        lock = try_lock(descriptor)
        if lock is Lock.UNSUPPORTED or (lock is Lock.HELD and leads_to(path, descriptor)):
            return path, descriptor
        # Somebody was faster who removes leftovers.
        os.close(descriptor)
    raise OSError(errno.EAGAIN, f"no new file stays in place after {_MAX_TRIES} tries")


def _new_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _new_folder(path: Path, mode: int = 0o777) -> int:
    path.mkdir(mode)
    try:
        return open_folder(path, follow=False)
    except FileNotFoundError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None


def _new_private_folder(path: Path) -> int:
    return _new_folder(path, 0o700)


def _require_movable(place: Path, staging: Path) -> None:
    """Find now, and not after hours of work, that the system will not let a folder be replaced.

    Reasons are mount points, folders of a container's image (overlayfs), and those of others in a sticky folder. A
    folder that is not empty cannot be replaced, so this tries to move `place` there, and looks at why it fails.
    """
    if not os.path.lexists(place):
        return
    if not place.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    obstacle = staging / "obstacle"
    obstacle.mkdir()
    try:
        place.rename(staging)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            raise
        obstacle.rmdir()
    else:
        # No file system should do that; what was moved goes back.
        staging.rename(place)
        raise OSError(errno.ENOTSUP, "the file system does not keep folders from being overwritten")


def _flush_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            with naming(path):
                if not path.is_symlink():
                    _flush(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        with naming(Path(root)), _flushed(Path(root)):
            pass


@contextmanager
def _flushed(folder: Path) -> Iterator[None]:
    """Make the names that the block changes durable, where the file system can. The folder is opened before."""
    try:
        descriptor = open_folder(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        yield
        return
    try:
        yield
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_place(staging: Path, place: Path) -> None:
    """Give `staging` the name `place`; an earlier folder ends up under the staging name, or another hidden one."""
    for last in (*[False] * _MAX_TRIES, True):
        with contextlib.ExitStack() as held:
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(locked_folder(place))
            try:
                if not os.path.lexists(place):
                    staging.rename(place)
                elif not _exchange(staging, place):
                    _rename_twice(staging, place)
            except OSError as error:
                # Somebody made, removed or replaced it meanwhile, without locks.
                if last or error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                    raise
            else:
                return


def _rename_twice(staging: Path, place: Path) -> None:
    """No atomic exchange on this system or file system: for an instant only the two hidden names exist."""
    earlier = hidden_path(place, EARLIER)
    place.rename(earlier)
    try:
        staging.rename(place)
    except BaseException:
        try:
            earlier.rename(place)
        except OSError as error:
            # Where another writer was faster, this one is no longer to be put back; otherwise the next writer does it.
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                shutil.rmtree(earlier, ignore_errors=True)
        raise
    # From here on it is no longer to be put back, not even in part.
    earlier.rename(staging)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step (Linux 3.15, glibc 2.28); False where that does not exist."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    return done == 0
