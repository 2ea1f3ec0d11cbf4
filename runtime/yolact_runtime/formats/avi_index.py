"""The index of AVI files: the number of coded frames, and whether they lie in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.formats.container_file import MAX_FRAMES, ContainerFile, DamagedIndexError, VideoIndex

__all__ = ["is_avi", "read_avi_index"]

_PLACEHOLDER = 8
"""Maximum size in bytes of a chunk without a frame.

Empty chunks repeat the previous frame, and MPEG-4 Part 2 writes a few bytes if an earlier chunk had two frames.
"""
_UNKNOWN_SIZES = frozenset({0, 0xFFFFFFFF})
"""Sizes in a recording that was written to a pipe, or never closed."""
_HIDES_FRAMES = frozenset({b"VP80"})
"""Codecs with coded frames that are never shown, which the index does not distinguish."""
_HAS_INDEX = 0x10
"""Flag in ``avih``."""
_MAX_CHUNKS = 10_000
"""Maximum number of chunks in a list other than that of the frames, which is not walked: a healthy file has few."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    begin: int
    size: int
    form: bytes

    @property
    def end(self) -> int:
        return self.begin + self.size


@dataclass(frozen=True)
class _Stream:
    number: int
    codec: bytes
    num_chunks: int
    indx: _Chunk | None


def is_avi(head: bytes) -> bool:
    """Return whether a file that begins with `head`, at least 12 bytes, is an AVI."""
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def read_avi_index(file: ContainerFile) -> VideoIndex:
    """Read the index of the first video stream, ``indx`` or ``idx1``. A file without one gives an empty index.

    Raises:
        DamagedIndexError: The index is inconsistent or points outside of the file.
    """
    riffs = list(_chunks(file, 0, file.size))
    parts = [part for riff in riffs if riff.kind == b"RIFF" for part in _chunks(file, riff.begin + 4, riff.end)]
    faults = []
    lists = [part for part in (*riffs, *parts) if part.kind == b"RIFF" or part.form == b"movi"]
    if any(part.size not in _UNKNOWN_SIZES and part.end > file.size for part in lists):
        needed = max(part.end for part in lists if part.size not in _UNKNOWN_SIZES)
        faults.append(f"the file is cut short: it should have {needed} bytes and has {file.size}")
    stream = next(_video_streams(file, parts), None)
    idx1 = next((part for part in parts if part.kind == b"idx1"), None)
    if stream is None:
        return VideoIndex(faults=tuple(faults))
    sizes = _opendml_sizes(file, stream.indx) if stream.indx else None
    if sizes is None and idx1 is not None and idx1.end <= file.size:
        sizes = _idx1_sizes(file, idx1, stream.number)
    if sizes is None and not faults and _says_that_it_has_an_index(file, parts):
        faults.append("the file is damaged: it should have an index, and has none")
    if sizes is not None and not faults and len(sizes) < stream.num_chunks:
        faults.append(f"the file is damaged: its head promises {stream.num_chunks} frames, its index {len(sizes)}")
    if sizes is None or stream.codec in _HIDES_FRAMES:
        return VideoIndex(faults=tuple(faults))
    return VideoIndex(int((sizes > _PLACEHOLDER).sum()), faults=tuple(faults))


def _chunks(file: ContainerFile, begin: int, end: int) -> Iterator[_Chunk]:
    for _ in range(_MAX_CHUNKS):
        if begin + 8 > min(end, file.size):
            return
        kind, size = file.unpack("<4sI", begin)
        form = file.read(begin + 8, 4) if kind in {b"RIFF", b"LIST"} else b""
        yield _Chunk(kind, begin + 8, size, form)
        begin += 8 + size + size % 2


def _video_streams(file: ContainerFile, parts: list[_Chunk]) -> Iterator[_Stream]:
    number = 0
    for hdrl in parts:
        if hdrl.form != b"hdrl":
            continue
        for strl in _chunks(file, hdrl.begin + 4, hdrl.end):
            if strl.form != b"strl":
                continue
            inside = {part.kind: part for part in _chunks(file, strl.begin + 4, strl.end)}
            if b"strh" in inside:
                kind, codec = file.unpack("<4s4s", inside[b"strh"].begin)
                if kind == b"vids":
                    (num_chunks,) = file.unpack("<I", inside[b"strh"].begin + 32)
                    yield _Stream(number, codec, num_chunks, inside.get(b"indx"))
            number += 1


def _says_that_it_has_an_index(file: ContainerFile, parts: list[_Chunk]) -> bool:
    hdrl = next((part for part in parts if part.form == b"hdrl"), None)
    if hdrl is None:
        return False
    avih = next((part for part in _chunks(file, hdrl.begin + 4, hdrl.end) if part.kind == b"avih"), None)
    return avih is not None and bool(file.unpack("<I", avih.begin + 12)[0] & _HAS_INDEX)


def _idx1_sizes(file: ContainerFile, idx1: _Chunk, number: int) -> Int64:
    table = file.table("<u4", idx1.begin, idx1.size // 16 * 4, idx1.end).reshape(-1, 4)
    names = {int.from_bytes(f"{number:02d}{kind}".encode(), "little") for kind in ("dc", "db")}
    sizes: Int64 = table[np.isin(table[:, 0], list(names)), 3]
    return sizes


def _opendml_sizes(file: ContainerFile, indx: _Chunk) -> Int64 | None:
    """Return the sizes in the index of a file beyond a gigabyte; None if the index is only reserved space."""
    _, _, kind, count = file.unpack("<HBBI", indx.begin)
    if not count:
        return None
    if kind == 1:
        return _standard_index(file, indx)
    table = file.table("<u4", indx.begin + 24, 4 * count, indx.end).reshape(-1, 4)
    parts = []
    for low, high, _, _ in table.tolist():
        at = low + (high << 32)
        if at + 32 > file.size:
            return None  # It lies beyond the end, which is reported by the sizes of lists.
        parts.append(_standard_index(file, next(_chunks(file, at, file.size))))
    sizes = np.concatenate(parts)
    if len(sizes) > MAX_FRAMES:
        raise DamagedIndexError(f"it lists {len(sizes)} frames in a file of {file.size} bytes")
    return sizes


def _standard_index(file: ContainerFile, chunk: _Chunk) -> Int64:
    longs, _, kind, count = file.unpack("<HBBI", chunk.begin)
    if kind != 1 or longs < 2:
        raise DamagedIndexError(f"byte {chunk.begin} holds no list of frames")
    table = file.table("<u4", chunk.begin + 24, longs * count, chunk.end).reshape(-1, longs)
    return table[:, 1] & 0x7FFFFFFF
