"""Search for the files of an annotation file's images, inside their folder unless the caller allows otherwise."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from yolact_calibration.data.missing_images import few, where_instead
from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.coco import CocoAnnotations, CocoImage
from yolact_calibration.labels.fields import Id, shown
from yolact_calibration.labels.options import FileRules
from yolact_plugins.files import counted

__all__ = ["locate_images"]


def locate_images(
    annotations: CocoAnnotations, folder: Path, rules: FileRules
) -> tuple[CocoAnnotations, dict[Id, Path], tuple[str, ...]]:
    r"""Find the file of every image.

    A name is tried unchanged, then with ``/`` for ``\``, as Windows writes it, and then in its other Unicode
    normalisation form: macOS decomposes ``ü`` into ``u`` and a combining diaeresis.

    Args:
        annotations: Annotations that name the files.
        folder: Folder that the names are relative to.
        rules: Rules for files that are missing or outside of the folder.

    Returns:
        The annotations of the existing images, their paths by image id, and sentences about what was left out.

    Raises:
        DatasetError: The folder does not exist; a file is outside of it, or missing, and the rules do not allow that;
            all files are missing; or two images are the same file.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DatasetError(f"{folder}, the folder of images, {problem}; give the folder that file_name is relative to")
    place = _Folder(folder)
    twins = _Twins(annotations.source)
    paths: dict[Id, Path] = {}
    missing: list[str] = []
    outside: list[str] = []
    for image in annotations.images:
        found = place.find(image.file_name)
        if not found.is_inside and not rules.allow_outside:
            outside.append(image.file_name)
        elif found.path is None or found.status is None:
            missing.append(image.file_name)
        else:
            twins.look_at(image, found)
            paths[image.image_id] = found.path
    if outside:
        raise DatasetError(
            f"{len(outside)} of the {len(annotations)} images of {annotations.source} {_are(outside)} outside of "
            f"{folder}: {few(outside)}. Correct their file_name, or read them anyway with --allow-outside"
        )
    if not missing:
        return annotations, paths, twins.findings()
    instead = where_instead(folder, missing[0])
    if not rules.skip_missing or not paths:
        raise DatasetError(
            f"{len(missing)} of the {len(annotations)} images of {annotations.source} {_are(missing)} not in {folder}: "
            f"{few(missing)}. {instead or 'Is it the right folder?' + ('' if paths else ' It has none of them')}"
            + (" --skip-missing continues without them" if paths else "")
        )
    skipped = (
        f"{len(missing)} of {len(annotations)} images {_are(missing)} not in {folder} and skipped: {few(missing)}"
        + (f". {instead}" if instead else "")
    )
    return annotations.only(paths), paths, (skipped, *twins.findings())


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


class _Found(NamedTuple):
    """Result of the search for a name.

    Attributes:
        path: Path of the file; None if there is no such file.
        is_inside: Whether the file, or the place where it would be, is inside the folder.
        status: Status of the file.
        is_link: Whether the last part of the path is a symbolic link.
    """

    path: Path | None
    is_inside: bool
    status: os.stat_result | None = None
    is_link: bool = False


class _Twins:
    """Images that share one file: its objects would be counted twice, or half of them as missing."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._first: dict[tuple[int, int], tuple[CocoImage, bool]] = {}
        self._linked: list[str] = []

    def look_at(self, image: CocoImage, found: _Found) -> None:
        """Refuse a second spelling of a name, and note a second link, which collections of links legitimately have."""
        assert found.status is not None
        is_link = found.is_link or found.status.st_nlink > 1
        first, was_link = self._first.setdefault((found.status.st_dev, found.status.st_ino), (image, is_link))
        if first is image:
            return
        if is_link or was_link:
            self._linked.append(image.file_name)
            return
        raise DatasetError(
            f"{self._source}: the images {shown(first.image_id)} and {shown(image.image_id)} are the same file, "
            f"{shown(first.file_name)} and {shown(image.file_name)}; give it one entry with all its annotations"
        )

    def findings(self) -> tuple[str, ...]:
        """Return a sentence about images that are linked to the same file, if there are any."""
        if not self._linked:
            return ()
        link = "is linked" if len(self._linked) == 1 else "are linked"
        return (
            f"{counted(len(self._linked), 'image')} {link} to the file of another image, whose content therefore "
            f"counts more than once: {few(self._linked)}",
        )


class _Folder:
    """Search for files below a folder, with few system calls for each file."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._root = os.path.realpath(folder)
        self._is_inside: dict[str, bool] = {}
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> _Found:
        """Return the file of a name."""
        first: _Found | None = None
        for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
            path = os.path.join(self._folder, spelling)  # noqa: PTH118 - a Path costs ten times the time
            found = self._look(path)
            if found.path is not None:
                return found
            # A name that leads outside in either spelling is not merely missing.
            first = found if first is None or not found.is_inside else first
        assert first is not None
        if first.is_inside and not name.isascii() and (other := self._other_spelling(name)) is not None:
            return self._look(other)
        return first

    def _other_spelling(self, name: str) -> str | None:
        """Return the path of `name` in whatever Unicode normalisation the disk has; None if there is no such file."""
        path = self._folder
        for part in name.replace("\\", "/").split("/"):
            if part in {"", ".", ".."}:
                return None
            found = self._listed(path).get(unicodedata.normalize("NFC", part))
            if found is None:
                return None
            path = os.path.join(path, found)  # noqa: PTH118
        return path

    def _listed(self, folder: str) -> dict[str, str]:
        """Return the names in a folder by their composed form, without those whose composed forms are equal."""
        listing = self._listings.get(folder)
        if listing is None:
            try:
                names = os.listdir(folder)  # noqa: PTH208
            except (OSError, ValueError):
                names = []
            composed = [unicodedata.normalize("NFC", name) for name in names]
            counts = Counter(composed)
            pairs = zip(composed, names, strict=True)
            listing = self._listings[folder] = {key: name for key, name in pairs if counts[key] == 1}
        return listing

    def _look(self, path: str) -> _Found:
        parent, last = os.path.split(path)
        is_inside = self._is_inside.get(parent)
        is_link = False
        try:
            if is_inside is None:
                is_inside = self._is_inside[parent] = self._contains(os.path.realpath(parent))
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link or last in {"..", ".", ""}:
                is_inside = self._contains(os.path.realpath(path))
                status = os.stat(path)  # noqa: PTH116
        except (OSError, ValueError):  # missing, too long for the system, a cycle of links
            return _Found(None, is_inside is not False)
        if not stat.S_ISREG(status.st_mode):
            return _Found(None, is_inside)
        return _Found(Path(path), is_inside, status, is_link)

    def _contains(self, real: str) -> bool:
        return real == self._root or real.startswith(self._root.rstrip(os.sep) + os.sep)
