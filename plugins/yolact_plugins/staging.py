"""Files and folders that are written under a hidden name and renamed in one step once they are complete and on disk.

However a process ends, even by SIGKILL or a power failure, the earlier file or the new one exists. The next process
that writes the same file removes what a killed process left; see :mod:`yolact_plugins.leftovers`.
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
# Errors of file systems that cannot flush a folder, and of folders that are writable but not readable.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}


class StagedFile:
    """A new, locked file with a hidden name beside its destination; :func:`staged_file` is the simpler interface.

    Args:
        path: The destination. A link is replaced, not followed. An earlier file stays until :meth:`commit`.
        suffix: Suffix of the hidden name, for programs that depend on it, such as encoders.

    Attributes:
        destination: The path that :meth:`commit` gives the file by default.
        path: The hidden path. Other programs may write to it, as long as they do not replace the file.
        file: The file object, open for binary writing.
        is_open: Whether the file is neither committed nor discarded.

    Raises:
        OSError: The file cannot be created. This and every other file system error names `destination`.
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
        """Flush the file and its folder to disk, rename the file to its destination and release the lock.

        Args:
            path: Another name in the same folder; None means the destination.
            flush: If False, the system decides when the file reaches the disk.

        Raises:
            OSError: The file system failed and an earlier file is unchanged; call :meth:`discard`. If only the folder
                could not be flushed, the complete new file is in place.
        """
        place = path or self.destination
        with naming(place), _flushed(place.parent) if flush else contextlib.nullcontext():
            self.file.flush()
            if flush:
                os.fsync(self.file.fileno())
            self.path.replace(place)
            self._close()

    def discard(self) -> None:
        """Remove the file unless it was committed. May be called again."""
        if self.is_open:
            # Removed before the lock is released. If that fails, the next writer removes it.
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        self.is_open = False
        unlock(self.file.fileno())
        # Unflushed data belongs to a discarded file.
        with contextlib.suppress(OSError):
            self.file.close()


@contextmanager
def staged_file(path: Path, suffix: str = "") -> Iterator[StagedFile]:
    """Create a file that replaces `path` when the block succeeds, and that is removed when it fails.

    Args:
        path: The destination; a link is replaced, not followed.
        suffix: Suffix of the hidden name.

    Raises:
        OSError: The file system failed. The error names `path`, and an earlier file there is unchanged.
    """
    staged = StagedFile(path, suffix)
    try:
        with naming(path, staged.path):
            yield staged
        staged.commit()
    finally:
        staged.discard()


def require_writable(*paths: Path) -> None:
    """Check before hours of work that files can be written: create and discard a hidden file for each.

    Args:
        paths: The files to check, in existing folders; existing files are not touched.

    Raises:
        OSError: A file cannot be written; the error names the first such file.
    """
    for path in paths:
        StagedFile(path).discard()


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Create a folder that replaces `path` when the block succeeds, and that is removed when it fails.

    The two are exchanged in one step (``renameat2``), so a reader opens the earlier folder or the new one. If the file
    system cannot do that, `path` is missing between two renames; if the process is killed at that point, the next
    writer restores the earlier folder (:func:`yolact_plugins.leftovers.remove_leftovers`). The new folder is flushed to
    disk first, and replaces the earlier one while :func:`yolact_plugins.locks.locked_folder` holds that.

    Args:
        path: The destination, in an existing folder; links are followed. All of its content is replaced.

    Yields:
        The empty folder.

    Raises:
        OSError: The file system failed. The error contains the final name of the file, and an earlier folder is
            unchanged.
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
        # After an exchange, this is the earlier folder.
        shutil.rmtree(staging, ignore_errors=True)
        unlock(descriptor)
        os.close(descriptor)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Create an empty temporary folder in ``$TMPDIR`` or ``/tmp``, and remove it with its content after the block.

    Scratch folders of this user's killed processes are removed first, whatever their purpose.

    Args:
        purpose: One lower-case word that becomes part of the folder's name.

    Raises:
        OSError: The folder cannot be created.
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
    """Reject a name that is too long before the file is written; the hidden name is shorter."""
    if len(os.fsencode(path.name)) > os.pathconf(path.parent, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _create(new_name: Callable[[], Path], make: Callable[[Path], int]) -> tuple[Path, int]:
    """Create a file or folder under a new name and lock it before another process takes it for a leftover."""
    for _ in range(_MAX_TRIES):
        path = new_name()
        try:
            descriptor = make(path)
        except FileExistsError:
            continue
        lock = try_lock(descriptor)
        if lock is Lock.UNSUPPORTED or (lock is Lock.HELD and leads_to(path, descriptor)):
            return path, descriptor
        # Another process that removes leftovers was faster.
        os.close(descriptor)
    raise OSError(errno.EAGAIN, f"every new file was removed by another process, {_MAX_TRIES} times")


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
    """Check before hours of work whether the system allows a folder to be replaced.

    It does not allow it for mount points, folders of a container's image (overlayfs), and folders of others in a sticky
    folder. A non-empty folder cannot be overwritten, so this tries to move `place` onto one and examines the error.
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
        # No file system should allow this; move the folder back.
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
    """Make the names that the block changes durable, if the file system can. The folder is opened before the block."""
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
    """Rename `staging` to `place`; an earlier folder ends up under the staging name or another hidden name."""
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
                # Another process created, removed or replaced the folder, without locks.
                if last or error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
                    raise
            else:
                return


def _rename_twice(staging: Path, place: Path) -> None:
    """Replace without an atomic exchange: for an instant only the two hidden names exist."""
    earlier = hidden_path(place, EARLIER)
    place.rename(earlier)
    try:
        staging.rename(place)
    except BaseException:
        try:
            earlier.rename(place)
        except OSError as error:
            # If another writer was faster, the earlier folder is obsolete; otherwise the next writer restores it.
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                shutil.rmtree(earlier, ignore_errors=True)
        raise
    # From here on the earlier folder must not be restored, not even in part.
    earlier.rename(staging)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step (Linux 3.15, glibc 2.28); return False if that is not supported."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    return done == 0
