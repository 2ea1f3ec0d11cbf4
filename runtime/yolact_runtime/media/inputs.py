"""The inputs of a command line: files, folders and globs, sorted into images and videos."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from yolact_runtime.media.images import IMAGE_SUFFIXES
from yolact_runtime.media.videos import VIDEO_SUFFIXES

__all__ = ["Inputs", "find_inputs"]


@dataclass(frozen=True)
class Inputs:
    """What the words of a command line stand for, in their order, folders and globs sorted by name.

    Attributes:
        images: Files to read as images.
        videos: Files to read as videos.
        failures: Word -> why it stands for nothing.
    """

    images: tuple[Path, ...]
    videos: tuple[Path, ...]
    failures: tuple[tuple[str, str], ...]


def find_inputs(words: Iterable[str]) -> Inputs:
    """Expand folders (not their sub-folders) and globs; a file named outright is taken whatever its suffix."""
    images: list[Path] = []
    videos: list[Path] = []
    failures: list[tuple[str, str]] = []
    for word in words:
        path = Path(word)
        if not word:
            found = []
            failures.append((word, "an empty name: is a variable of the shell not set?"))
        elif path.is_dir():
            suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.is_dir())
            if not found:
                failures.append((word, f"the folder holds no image or video ({_suffixes()})"))
        elif path.exists() or not glob.has_magic(word):
            found = [path]
        else:
            found = [Path(name) for name in sorted(glob.glob(word, recursive=True)) if Path(name).is_file()]  # noqa: PTH207 - absolute patterns
            if not found:
                failures.append((word, "no file matches this pattern"))
        for file in found:
            (videos if file.suffix.lower() in VIDEO_SUFFIXES else images).append(file)
    return Inputs(tuple(dict.fromkeys(images)), tuple(dict.fromkeys(videos)), tuple(failures))


def _suffixes() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
