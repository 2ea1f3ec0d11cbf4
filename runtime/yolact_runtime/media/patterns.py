"""Patterns of the shell with ``**``: expanded without following links to folders, so that no loop is ever entered."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["expand_pattern", "is_folder"]


def expand_pattern(pattern: str) -> list[Path]:
    """Everything but folders that matches, sorted.

    ``**`` as a whole part stands for any number of folders; at the end for everything below. Hidden folders are looked
    into only where a part says so; hidden *files* match ``*`` here, and it is up to the caller to leave them out.
    Links to folders are followed where a part names them or matches them, not below ``**``.

    Args:
        pattern: As for :func:`glob.glob`.
    """
    path = Path(pattern)
    parts = list(path.parts)
    if path.anchor:
        parts = parts[1:]
    # A pattern that ends in ** means the files below; two in a row say no more than one.
    parts = [part for part, before in zip(parts, ["", *parts], strict=False) if not part == before == "**"]
    if parts and parts[-1] == "**":
        parts.append("*")
    return sorted(set(_matches(Path(path.anchor), parts)))


def _matches(base: Path, parts: list[str]) -> Iterator[Path]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches(base, rest)
        for entry in _entries(base):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _matches(base / entry.name, parts)
        return
    if not glob.has_magic(part):
        path = base / part
        if rest and _is_dir(path):
            yield from _matches(path, rest)
        elif not rest and (path.is_symlink() or path.exists()) and not _is_dir(path):
            yield path
        return
    match = re.compile(fnmatch.translate(part)).match
    for entry in _entries(base):
        if not match(entry.name):
            continue
        path = base / entry.name
        if not rest:
            if not is_folder(entry):
                yield path
        elif is_folder(entry) and entry.name.startswith(".") <= part.startswith("."):
            yield from _matches(path, rest)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _entries(base: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(base) as entries:
            return list(entries)
    except OSError:
        return []


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a listing is a folder, or a link to one; a loop of links is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False
