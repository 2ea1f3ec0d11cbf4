"""Atomic writes, and sizes and counts formatted as text."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from yolact_plugins.errors import UsageError
from yolact_plugins.staging import staged_file

__all__ = [
    "check_words",
    "counted",
    "human_duration",
    "human_estimate",
    "human_size",
    "is_utf8",
    "library_path",
    "real_path",
    "typed_folder",
    "write_atomically",
]


def check_words(words: Sequence[str]) -> None:
    """Reject empty words of a command line: used as a path, each would mean the current folder.

    Reject ``--`` as the value of an option, too, which ``argparse`` would turn into a list.

    Args:
        words: The arguments behind the command's name.

    Raises:
        UsageError: A word is empty, or is an option with nothing or ``--`` as its value.
    """
    for i, word in enumerate(words):
        if not word or (word.startswith("--") and word.endswith("=")):
            place = word or (f"behind {words[i - 1]}" if i else "at the beginning")
            raise UsageError(
                f"there is an empty word {place}: name something, or leave the option out. A shell makes one of "
                f'"$NAME" where NAME is not set'
            )
        if option := re.fullmatch(r"(--[^=]+)=--|(-[^-])=?--", word):
            name = option[1] or option[2]
            raise UsageError(f"{name} cannot be given --, which ends the options; a file of that name is ./--")


def typed_folder(text: str) -> Path:
    """Parse the name of a folder to write; a ``type`` for ``argparse``.

    Raises:
        UsageError: The name is ``-``, which means stdout elsewhere.
    """
    if text == "-":
        raise UsageError("-o takes a folder, which does not go to stdout. A folder of that name is -o ./-")
    return Path(text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """Format a count with its noun: ``1 image``, ``3 images``, ``0 images``.

    Args:
        count: The number to format.
        noun: The singular noun.
        plural: The plural noun; by default the singular with an s.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def human_size(size_bytes: int) -> str:
    """Format a size in decimal units, as file managers and NVIDIA's tools do: ``125.0 MB``."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def human_duration(seconds: float) -> str:
    """Return ``1 h 02 min``, ``3 min 20 s`` or ``45 s``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def human_estimate(seconds: float) -> str:
    """Return ``1 h 10 min``, ``4 min`` or ``95 s``: rounded up, and no more exact than an estimate is."""
    if seconds < 120:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else human_duration(60 * minutes)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or nothing, and flush it to disk; see :func:`yolact_plugins.staging.staged_file`.

    Raises:
        OSError: The file system failed. The error names `path`, and an earlier file there is unchanged.
    """
    with staged_file(path) as staged:
        staged.file.write(content)


def is_utf8(path: Path) -> bool:
    """Return whether a path is valid UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def real_path(path: Path | str) -> Path:
    """Return the absolute path without links.

    Loops of links do not raise, unlike in ``Path.resolve`` before Python 3.13.
    """
    return Path(os.path.realpath(path))


@contextmanager
def library_path(path: Path) -> Iterator[str]:
    """Provide a path to an existing file for libraries that take UTF-8 names only, such as PyTorch and ONNX Runtime.

    If the name is not UTF-8, the file is opened here and named by its descriptor until the block ends.

    Args:
        path: The existing file.

    Raises:
        OSError: The name is not UTF-8, and the file cannot be opened.
    """
    if is_utf8(path):
        yield str(path)
        return
    with path.open("rb") as file:
        yield f"/proc/self/fd/{file.fileno()}"
