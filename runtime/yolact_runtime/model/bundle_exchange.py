"""Reading of a bundle while another process replaces it: readers get the old one or the new one, never a mixture.

A reader opens the folder once and reads every file through it, so a later change of the name has no effect. But a
writer removes the replaced folder, and on file systems without an atomic exchange the name is absent for an instant. So
a failed read is repeated if something changed during it, and only then.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from yolact_plugins.errors import YolactError
from yolact_plugins.files import real_path
from yolact_plugins.leftovers import EARLIER, hidden_folders
from yolact_runtime.errors import BundleError

__all__ = ["FOLDER_FLAGS", "AbsentError", "earlier_bundles", "read_whole"]

_MAX_ATTEMPTS = 50
_WAIT_S, _PAUSE_S = 2.0, 0.005
# A folder may appear between the search for a writer's hidden folder and the search for the folder itself.
_LOOKS = 3

FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags to hold a folder open, which needs no more rights than access by name."""

T = TypeVar("T")


class AbsentError(BundleError):
    """A bundle, or a file of one, does not exist.

    Args:
        message: Description of what was tried, and what to type.
        path: Path of the missing file or folder.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def read_whole(folder: Path, watched: tuple[str, ...], attempt: Callable[[], T]) -> T:
    """Read a bundle; repeat a failed read if the bundle was replaced or changed during it.

    Args:
        folder: The bundle folder, which need not exist.
        watched: Names of files in it whose replacement counts as a change.
        attempt: Function that reads the bundle, and closes what it opened if it fails.

    Returns:
        The result of `attempt`.

    Raises:
        YolactError, OSError: Error of the last attempt: nothing changed during it, or something changed fifty times.
    """
    for _ in range(_MAX_ATTEMPTS - 1):
        before = _Look(folder, watched)
        try:
            return attempt()
        except AbsentError as error:
            # It may have existed before and exist again: the name alone does not tell.
            if not before.has_changed() and not _is_there(folder, error.path):
                raise
        except (YolactError, OSError):
            if not before.has_changed():
                raise
        finally:
            before.close()
    return attempt()


def earlier_bundles(folder: Path) -> list[Path]:
    """Return the earlier bundle, under a hidden name, that a writer left when it was stopped between two renames."""
    return hidden_folders(real_path(folder), {EARLIER})


class _Look:
    """A snapshot of a name's target. The folder is held open, so that its inode number is not reused meanwhile."""

    def __init__(self, folder: Path, watched: tuple[str, ...]) -> None:
        self._folder, self._watched = folder, watched
        try:
            self._descriptor: int | None = os.open(folder, FOLDER_FLAGS)
        except OSError:
            self._descriptor = None
        self._files = self._stat_files()

    def has_changed(self) -> bool:
        """Return whether the name has another target now; wait while a replacement is in progress."""
        try:
            found = os.stat(self._folder)  # noqa: PTH116 - compared with a descriptor's
        except OSError:
            return _appears(self._folder)
        if self._descriptor is None:
            # It is not a folder and was not one before; or it has appeared.
            return stat.S_ISDIR(found.st_mode)
        was = os.fstat(self._descriptor)
        return (was.st_dev, was.st_ino) != (found.st_dev, found.st_ino) or self._files != self._stat_files()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _stat_files(self) -> list[tuple[int, ...] | None]:
        found: list[tuple[int, ...] | None] = []
        for name in self._watched:
            try:
                facts = (self._folder / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns))
        return found


def _is_there(folder: Path, path: Path) -> bool:
    """Return whether a bundle, or a file of it, exists or appears: a missing name may be between two renames."""
    try:
        descriptor = os.open(folder, FOLDER_FLAGS)
    except OSError:
        return _appears(folder)
    try:
        # Checked by descriptor: by its whole path, a file is missing, too, while the folder's name is.
        os.stat(path.relative_to(folder), dir_fd=descriptor)
    except ValueError:
        return path.exists()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _appears(folder: Path) -> bool:
    """Return whether a missing folder appears, as long as a hidden folder shows that it is being replaced."""
    deadline, looks = time.monotonic() + _WAIT_S, 0
    while looks < _LOOKS:
        is_exchanged = bool(hidden_folders(real_path(folder)))
        if folder.exists():
            return True
        if not is_exchanged:
            looks += 1
            continue
        looks = 0
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return False
