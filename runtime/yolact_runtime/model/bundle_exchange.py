"""Reading a bundle while somebody puts another one into its place: the old one or the new one, whole, never a mixture.

A reader opens the folder once, and every file comes from it: what the name stands for meanwhile does not matter. But a
writer removes the folder that was exchanged, and where the file system exchanges nothing in one step, the name is
absent for an instant. So a reading that failed begins again, if something changed while it ran, and only then.
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
# A folder may be put into place between looking for what a writer leaves beside it and looking for the folder.
_LOOKS = 3

FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""How a folder is opened to be held: what is in it needs no more rights than by its name."""

T = TypeVar("T")


class AbsentError(BundleError):
    """A bundle, or a file of one, was looked for and was not there.

    Args:
        message: What was tried, and what to type.
        path: What was not there.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def read_whole(folder: Path, watched: tuple[str, ...], attempt: Callable[[], T]) -> T:
    """Read a bundle; once more if it was exchanged or changed while a reading failed.

    Args:
        folder: The bundle, which need not be there.
        watched: Names of files in it whose exchange is a change.
        attempt: Reads, and closes what it opened if it fails.

    Returns:
        What `attempt` returns.

    Raises:
        YolactError, OSError: Of the last attempt: nothing changed meanwhile, or everything did fifty times.
    """
    for _ in range(_MAX_ATTEMPTS - 1):
        before = _Look(folder, watched)
        try:
            return attempt()
        except AbsentError as error:
            # It may have been there before and be there again: by a name one cannot tell.
            if not before.has_changed() and not _is_there(folder, error.path):
                raise
        except (YolactError, OSError):
            if not before.has_changed():
                raise
        finally:
            before.close()
    return attempt()


def earlier_bundles(folder: Path) -> list[Path]:
    """What a writer that was stopped between two renames left of a bundle: the earlier one, under a hidden name."""
    return hidden_folders(real_path(folder), {EARLIER})


class _Look:
    """What a name stood for. The folder is held open, so that no other one gets its number meanwhile."""

    def __init__(self, folder: Path, watched: tuple[str, ...]) -> None:
        self._folder, self._watched = folder, watched
        try:
            self._descriptor: int | None = os.open(folder, FOLDER_FLAGS)
        except OSError:
            self._descriptor = None
        self._files = self._stat_files()

    def has_changed(self) -> bool:
        """Whether the name stands for something else now; waits while an exchange is under way."""
        try:
            found = os.stat(self._folder)  # noqa: PTH116 - compared with a descriptor's
        except OSError:
            return _appears(self._folder)
        if self._descriptor is None:
            # It is no folder, and was none; or it came.
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
    """Whether a bundle, or a file of it, is there or comes: a name that is absent may be between two renames."""
    try:
        descriptor = os.open(folder, FOLDER_FLAGS)
    except OSError:
        return _appears(folder)
    try:
        # By the descriptor: looked for by its whole name, a file is absent too while the folder's name is.
        os.stat(path.relative_to(folder), dir_fd=descriptor)
    except ValueError:
        return path.exists()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _appears(folder: Path) -> bool:
    """Whether a folder that is absent comes, as long as something beside it says that it is being exchanged."""
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
