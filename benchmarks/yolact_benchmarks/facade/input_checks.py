"""Checks of a model and its images before a measurement that takes minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from yolact_runtime.errors import UsageError, YolactError

__all__ = ["as_words", "check_image_folder", "check_precisions"]


def as_words(images: Sequence[Path | str] | Path | str) -> tuple[str, ...]:
    """Return one path or word, or several, as a tuple of words."""
    return (str(images),) if isinstance(images, Path | str) else tuple(map(str, images))


def check_image_folder(words: Sequence[str]) -> None:
    """Require that the images of labels are one folder.

    Raises:
        UsageError: There are several words, or the word does not name a folder.
    """
    if len(words) == 1 and Path(words[0]).is_dir():
        return
    if len(words) > 1:
        found = f"found {len(words)} names, {words[0]} first"
    elif not words:
        found = "found none"
    else:
        found = f"{words[0]} is {'not a folder' if Path(words[0]).exists() else 'missing'}"
    raise UsageError(f"annotations need one folder of images, which their file names are relative to; {found}")


def check_precisions(model: Path, names: Sequence[str]) -> None:
    """Require that a bundle has networks of these precisions; a path that is not a bundle passes.

    Raises:
        NoNetworkError: The bundle has no network of such a precision.
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
