"""Files written whole or not at all; sizes and counts as people read them."""

from __future__ import annotations

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
    "human_size",
    "is_utf8",
    "library_path",
    "real_path",
    "typed_folder",
    "write_atomically",
]


def check_words(words: Sequence[str]) -> None:
    """Refuse empty words of a command line: as a path each would be the current folder, which nobody meant.

    Also ``--`` as the value of an option, of which ``argparse`` makes a list.

    Args:
        words: What stands behind the command's name.

    Raises:
        UsageError: One is empty, or is an option with nothing behind ``=``, or with ``--``.
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
    """A folder to write, as somebody typed it; for ``argparse``.

    Raises:
        UsageError: It is ``-``, which means stdout elsewhere.
    """
    if text == "-":
        raise UsageError("-o takes a folder, which does not go to stdout. A folder of that name is -o ./-")
    return Path(text)


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``3 images``, ``0 images``.

    Args:
        count: How many.
        noun: One of them.
        plural: Several; empty adds an s.
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def human_size(size_bytes: int) -> str:
    """``125.0 MB``; decimal units, as file managers and NVIDIA's tools count."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or nothing, flushed to disk; see :func:`yolact_plugins.staging.staged_file`.

    Raises:
        OSError: The file system failed; the error names `path`, and an earlier file there is as it was.
    """
    with staged_file(path) as staged:
        staged.file.write(content)


def is_utf8(path: Path) -> bool:
    """Whether a path is text: on Linux a name is bytes, and Python has others than UTF-8 as half surrogate pairs."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def real_path(path: Path | str) -> Path:
    """The absolute path without links, but for loops of them, at which ``Path.resolve`` raises before Python 3.13."""
    return Path(os.path.realpath(path))


@contextmanager
def library_path(path: Path) -> Iterator[str]:
    """A path to an existing file for libraries that take names in UTF-8 only, such as PyTorch and ONNX Runtime.

    A file of another name is opened here, and named by its descriptor until the block is left.

    Args:
        path: The file.

    Raises:
        OSError: Its name is not UTF-8, and it cannot be opened.
    """
    if is_utf8(path):
        yield str(path)
        return
    with path.open("rb") as file:
        yield f"/proc/self/fd/{file.fileno()}"
