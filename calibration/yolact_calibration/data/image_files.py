"""Where the images of an annotation file lie on disk: inside their folder, unless that was allowed otherwise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_calibration.labels.fields import Id
from yolact_calibration.labels.options import FileRules

__all__ = ["locate_images"]

_SHOWN = 3


def locate_images(
    annotations: CocoAnnotations, folder: Path, rules: FileRules
) -> tuple[CocoAnnotations, dict[Id, Path], tuple[str, ...]]:
    r"""Find the files.

    A name is tried as it is, and then with ``/`` for ``\``, as Windows writes it.

    Args:
        annotations: What names them.
        folder: That the names are relative to.
        rules: What is done about files that are absent, or elsewhere.

    Returns:
        The annotations of the images that are there, their paths by image id, and sentences on what was left out.

    Raises:
        DatasetError: A file is outside of the folder, or absent, and the rules do not allow that; or all are absent.
    """
    place = _Folder(folder)
    paths: dict[Id, Path] = {}
    missing: list[str] = []
    outside: list[str] = []
    for image in annotations.images:
        path, is_inside = place.find(image.file_name)
        if not is_inside and not rules.allow_outside:
            outside.append(image.file_name)
        elif path is None:
            missing.append(image.file_name)
        else:
            paths[image.image_id] = path
    if outside:
        raise DatasetError(
            f"{len(outside)} of the {len(annotations)} images of {annotations.source} {_are(outside)} outside of "
            f"{folder}: {_few(outside)}. Correct their file_name, or read them all the same with --allow-outside"
        )
    if missing and (not rules.skip_missing or not paths):
        raise DatasetError(
            f"{len(missing)} of the {len(annotations)} images of {annotations.source} {_are(missing)} not in {folder}: "
            f"{_few(missing)}. Is it the right folder?"
            + (" --skip-missing goes on without them" if paths else " None of them is there")
        )
    if not missing:
        return annotations, paths, ()
    count = f"{len(missing)} of {len(annotations)} images {_are(missing)}"
    return annotations.only(paths), paths, (f"{count} not in {folder} and skipped: {_few(missing)}",)


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


class _Folder:
    """Finds files below a folder, with few calls of the operating system for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._root = os.path.realpath(folder)
        self._is_inside: dict[str, bool] = {}

    def find(self, name: str) -> tuple[Path | None, bool]:
        """A file's path, or None where there is none; and whether it, or the place where it would be, is inside."""
        first: tuple[Path | None, bool] | None = None
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            path = os.path.join(self._folder, spelling)  # noqa: PTH118 - a Path costs ten times the time
            found = self._look(path)
            if found[0] is not None:
                return found
            # What leads outside in either spelling is not merely missing.
            first = found if first is None or not found[1] else first
        assert first is not None
        return first

    def _look(self, path: str) -> tuple[Path | None, bool]:
        parent, last = os.path.split(path)
        is_inside = self._is_inside.get(parent)
        try:
            if is_inside is None:
                is_inside = self._is_inside[parent] = self._contains(os.path.realpath(parent))
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode) or last in {"..", ".", ""}:
                is_inside = self._contains(os.path.realpath(path))
                mode = os.stat(path).st_mode  # noqa: PTH116
        except (OSError, ValueError):  # absent, too long for the system, a circle of links
            return None, is_inside is not False
        return (Path(path) if stat.S_ISREG(mode) else None), is_inside

    def _contains(self, real: str) -> bool:
        return real == self._root or real.startswith(self._root.rstrip(os.sep) + os.sep)
