"""The folder of ``-o``: names for pictures, none of which overwrites an input or another picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from yolact_plugins.files import real_path
from yolact_runtime.errors import MediaError

__all__ = ["PictureFolder"]

_KEPT_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class PictureFolder:
    """The folder to which pictures with masks are written.

    Args:
        folder: An existing folder.
        inputs: Resolved paths of the inputs, which no picture may overwrite.

    Attributes:
        folder: The folder of all pictures.
        written: Files that were written, completely or as far as a video went.
    """

    def __init__(self, folder: Path, inputs: frozenset[Path]) -> None:
        self.folder = folder
        self.written: list[Path] = []
        self._inputs = inputs
        self._taken: set[Path] = set()

    def picture_of(self, image: Path) -> Path:
        """Return a name for the picture of an image; formats that are rarely wanted as output become PNG.

        Raises:
            MediaError: The same as for :meth:`video_of`.
        """
        suffix = image.suffix.lower()
        return self._destination(image, suffix if suffix in _KEPT_SUFFIXES else ".png")

    def video_of(self, video: Path, suffix: str) -> Path:
        """Return a name with a suffix for the video with masks of a video; its name while incomplete is free, too.

        Raises:
            MediaError: The file would overwrite an input.
        """
        from yolact_runtime.media.video_writer import incomplete_path

        destination = self._destination(video, suffix, incomplete_path)
        incomplete = incomplete_path(destination)
        if real_path(incomplete) in self._inputs:
            raise MediaError(
                f"{incomplete} is an input, and an incomplete {video} would overwrite it if the run is interrupted; "
                f"choose another folder for -o"
            )
        return destination

    def _destination(self, path: Path, suffix: str, second: Callable[[Path], Path] = Path) -> Path:
        """Return a free name whose derived second name is free, too; inputs of the same name get numbers."""
        for number in itertools.count(1):
            destination = self.folder / f"{path.stem}{'' if number == 1 else f'-{number}'}{suffix}"
            names = {destination, second(destination)}
            if self._taken.isdisjoint(names):
                break
        self._taken |= names
        there = real_path(destination)
        if there == real_path(path):
            raise MediaError(f"{path} would be overwritten by its own picture; choose another folder for -o")
        if there in self._inputs:
            raise MediaError(
                f"{destination} is an input, and the picture of {path} would overwrite it; choose another folder for -o"
            )
        return destination
