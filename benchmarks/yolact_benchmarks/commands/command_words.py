"""Words of a command line: those for several values, and those that name a network of a bundle."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from yolact_runtime.errors import UsageError, YolactError

__all__ = ["FOUND", "check_image_folder", "check_precisions", "parse_fraction", "parse_numbers", "parse_sizes"]

FOUND = "found"
"""Stands for the instances that a network finds."""


def parse_numbers(text: str) -> tuple[int | None, ...]:
    """``"1,10,found"``: numbers of instances; None is what is found.

    Raises:
        UsageError: Something else.
    """
    words = list(dict.fromkeys(text.split(",")))
    if not all(word == FOUND or (word.isascii() and word.isdigit()) for word in words):
        raise UsageError(f'--instances takes numbers, such as 1,10,100, or the word found; found "{text}"')
    return tuple(None if word == FOUND else int(word) for word in words)


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """``"1280x720,1920x1080"``: widths and heights, pixels.

    Raises:
        UsageError: Something else.
    """
    matches = [re.fullmatch(r"([0-9]+)[xX]([0-9]+)", word) for word in dict.fromkeys(text.split(","))]
    if not all(matches):
        raise UsageError(f'--size takes widths and heights, such as 1280x720,1920x1080; found "{text}"')
    return tuple((int(match[1]), int(match[2])) for match in matches if match)


def parse_fraction(option: str, text: str) -> float:
    """``"1%"`` or ``"0.01"``.

    Raises:
        UsageError: Something else, or not between 0 and 1.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise UsageError(f'{option} takes a part, such as 3% or 0.03; found "{text}"')
    return value


def check_image_folder(words: Sequence[str]) -> None:
    """Refuse ``--images`` of labels that are not one folder.

    Raises:
        UsageError: They are several, or no folder is there.
    """
    if len(words) == 1 and Path(words[0]).is_dir():
        return
    if len(words) > 1:
        found = f"found {len(words)} words, {words[0]} first"
    else:
        found = f"{words[0]} is {'no folder' if Path(words[0]).exists() else 'not there'}"
    raise UsageError(f"with --annotations, --images is the one folder that the file names are relative to; {found}")


def check_precisions(model: Path, names: Sequence[str]) -> None:
    """Refuse names that no network of a bundle has; what is no bundle is left to those that open it.

    Raises:
        NoNetworkError: The bundle has no network of such a name.
    """
    from yolact_runtime.model.bundle import read_manifest, require_precision

    if not model.is_dir():
        return
    try:
        artefacts = read_manifest(model).artefacts
    except YolactError:
        return
    for name in names:
        require_precision(model, artefacts, name)
