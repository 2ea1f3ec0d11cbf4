"""Advice about images that are missing from their folder: most of them are nearby, or have another name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

__all__ = ["few", "where_instead"]

_SHOWN, _LONGEST = 3, 120
# Limit of the search below the given folder; data sets have a handful of folders.
_MOST_FOLDERS = 200


def few(names: list[str]) -> str:
    """Return the first few names as text, none of them longer than a line or two."""
    shown = (name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in names[:_SHOWN])
    return ", ".join(shown) + (", …" if len(names) > _SHOWN else "")


def where_instead(folder: Path, name: str) -> str:
    """Return a sentence about where a missing image is, or what it is called; empty if nothing similar was found.

    Args:
        folder: Folder in which the image was expected.
        name: The image's ``file_name``.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        return ""
    try:
        if os.path.lexists(folder.joinpath(*parts)):
            return f"{'/'.join(parts)} is {_kind(folder.joinpath(*parts))}."
        return _without_leading_folders(folder, parts) or _in_a_subfolder(folder, parts) or _otherwise(folder, parts)
    except (OSError, ValueError):  # a name that is too long, a folder that may not be read
        return ""


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a pipe or a device" if path.exists() else "a link that leads nowhere"


def _without_leading_folders(folder: Path, parts: list[str]) -> str:
    for count in range(1, len(parts)):
        if not folder.joinpath(*parts[count:]).is_file():
            continue
        tail, lead = PurePosixPath(*parts[count:]), parts[:count]
        if list(folder.resolve().parts[-count:]) == lead:
            above = Path(os.path.normpath(folder.joinpath(*[".."] * count)))
            return f"{tail} exists: give the folder that contains {'/'.join(lead)}, {above}."
        return f"{tail} exists: file_name should not begin with {'/'.join(lead)}/."
    return ""


def _in_a_subfolder(folder: Path, parts: list[str]) -> str:
    for found in itertools.islice(_folders_below(folder), _MOST_FOLDERS):
        if found.joinpath(*parts).is_file():
            return f"{parts[-1]} is in {found}: give that folder, or correct file_name."
    return ""


def _folders_below(folder: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(folder):
        names.sort()
        yield from (Path(place, name) for name in names)


def _otherwise(folder: Path, parts: list[str]) -> str:
    decoded = [unquote(part) for part in parts]
    if decoded != parts and folder.joinpath(*decoded).is_file():
        return f"file_name is URL-encoded: {'/'.join(decoded)} exists."
    place = folder.joinpath(*parts[:-1])
    names = sorted(os.listdir(place)) if place.is_dir() else []  # noqa: PTH208
    for name in names:
        if name.casefold() == parts[-1].casefold():
            return f"{name} exists, a different name because this file system distinguishes upper and lower case."
    stem = PurePosixPath(parts[-1]).stem
    for name in names:
        if stem and PurePosixPath(name).stem == stem:
            return f"{name} exists, with another suffix."
    return ""
