"""Expansion of shell patterns with ``**`` that does not follow links to folders, so that it never loops."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Matches", "expand_pattern", "is_folder"]


@dataclass
class Matches:
    """The matches of a pattern.

    Attributes:
        paths: Sorted paths of everything but folders.
        hidden: Hidden folders, which were not searched.
        links: Links to folders, which ``**`` does not follow.
        unreadable: Folders that cannot be listed, with the reason.
    """

    paths: list[Path] = field(default_factory=list)
    hidden: set[Path] = field(default_factory=set)
    links: set[Path] = field(default_factory=set)
    unreadable: dict[Path, str] = field(default_factory=dict)


def expand_pattern(pattern: str) -> Matches:
    """Find everything but folders that matches a pattern.

    ``**`` as a whole part stands for any number of folders; at the end for everything below. Hidden folders are
    searched only if a part names them; hidden *files* match ``*`` here, and the caller may exclude them. Links to
    folders are followed if a part names or matches them, not below ``**``.

    Args:
        pattern: Pattern in the syntax of :func:`glob.glob`.
    """
    path = Path(pattern)
    parts = list(path.parts)
    if path.anchor:
        parts = parts[1:]
    # A pattern that ends in ** means the files below; repeating ** changes nothing.
    parts = [part for part, before in zip(parts, ["", *parts], strict=False) if not part == before == "**"]
    if parts and parts[-1] == "**":
        parts.append("*")
    found = Matches()
    found.paths = sorted(set(_matches(Path(path.anchor), parts, found)))
    return found


def _matches(base: Path, parts: list[str], found: Matches) -> Iterator[Path]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _matches(base, rest, found)
        for folder in _folders_below(base, found):
            yield from _matches(folder, parts, found)
    elif glob.has_magic(part):
        yield from _like(base, parts, found)
    else:
        path = base / part
        if rest and _is_dir(path):
            yield from _matches(path, rest, found)
        elif not rest and (path.is_symlink() or path.exists()) and not _is_dir(path):
            yield path


def _folders_below(base: Path, found: Matches) -> Iterator[Path]:
    """Yield the folders that ``**`` matches."""
    for entry in _entries(base, found):
        if not is_folder(entry):
            continue
        path = base / entry.name
        if entry.name.startswith("."):
            found.hidden.add(path)
        elif entry.is_symlink():
            found.links.add(path)
        else:
            yield path


def _like(base: Path, parts: list[str], found: Matches) -> Iterator[Path]:
    """Yield matches whose next part is a pattern."""
    part, rest = parts[0], parts[1:]
    match = re.compile(fnmatch.translate(part)).match
    for entry in _entries(base, found):
        if not match(entry.name) or is_folder(entry) != bool(rest):
            continue
        path = base / entry.name
        if not rest:
            yield path
        elif entry.name.startswith(".") and not part.startswith("."):
            found.hidden.add(path)
        else:
            yield from _matches(path, rest, found)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _entries(base: Path, found: Matches) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(base) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        # Not a folder, so nothing matches.
        return []
    except OSError as error:
        found.unreadable[base] = error.strerror or str(error)
        return []


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether a directory entry is a folder or a link to one; a loop of links is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
