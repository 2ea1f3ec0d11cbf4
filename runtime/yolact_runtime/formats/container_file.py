"""Random access to the file of a video container, and the content of its index."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_FRAMES", "ContainerFile", "DamagedIndexError", "VideoIndex"]

MAX_FRAMES = 1 << 24
"""Maximum number of frames of a video (six days at 30 a second): an index that lists more is damaged."""


class DamagedIndexError(Exception):
    """An index contradicts itself; the message says how. This package converts it to a fault of :class:`VideoIndex`."""


@dataclass(frozen=True)
class VideoIndex:
    """Properties of the first video track, according to a video's container.

    Attributes:
        num_frames: Number of frames that a player shows, if the container lists them one by one; else None.
        times_s: Presentation times in seconds, ``(num_frames,)`` float64, ascending from 0; None if they are not known.
        faults: Contradictions in the index or to the length of the file, as sentences without the file's name.
    """

    num_frames: int | None = None
    times_s: npt.NDArray[np.float64] | None = None
    faults: tuple[str, ...] = ()


class ContainerFile:
    """A file that is read at untrusted positions, which the file itself contains. A context manager.

    Attributes:
        size: Length of the file in bytes when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        self.size = self._file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        """Return at most `size` bytes from `offset` on: fewer at the end of the file, none beyond it."""
        if offset < 0 or size <= 0 or offset >= self.size:
            return b""
        self._file.seek(offset)
        return self._file.read(min(size, self.size - offset))

    def unpack(self, form: str, offset: int) -> tuple[Any, ...]:
        """Return the numbers of a :mod:`struct` format at `offset`.

        Raises:
            DamagedIndexError: The file ends before.
        """
        content = self.read(offset, struct.calcsize(form))
        if len(content) < struct.calcsize(form):
            raise DamagedIndexError(f"byte {offset} of {self.size} is needed")
        return struct.unpack(form, content)

    def table(self, dtype: str, offset: int, count: int, end: int) -> npt.NDArray[np.int64]:
        """Return `count` integers of a NumPy dtype at `offset`, as int64.

        Raises:
            DamagedIndexError: The integers do not fit before `end` or in the file, or are too many.
        """
        width = np.dtype(dtype).itemsize
        if not 0 <= count <= 3 * MAX_FRAMES or offset + count * width > min(end, self.size):
            raise DamagedIndexError(f"a table at byte {offset} is said to have {count} entries and does not fit")
        return np.frombuffer(self.read(offset, count * width), dtype).astype(np.int64)

    def __enter__(self) -> ContainerFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
