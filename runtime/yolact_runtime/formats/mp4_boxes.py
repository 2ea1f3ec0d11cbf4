"""Boxes of MP4 and QuickTime files, the tables of a video track in them, and movie fragments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.formats.container_file import MAX_FRAMES, ContainerFile, DamagedIndexError

__all__ = ["Box", "FragmentReader", "Samples", "boxes", "child", "full_box", "track_samples"]

Int64 = npt.NDArray[np.int64]
_MAX_BOXES = 1 << 20
"""Maximum number of boxes side by side; a healthy file has two for each of its fragments."""


@dataclass(frozen=True)
class Box:
    """A box of a file: its type, and the range of its content, whose end may lie beyond the file's."""

    kind: bytes
    begin: int
    end: int


@dataclass(frozen=True)
class Samples:
    """Samples of a track in decoding order; each is a coded frame. Arrays have one entry per sample.

    Attributes:
        sizes: Sizes in bytes; 0 repeats the previous frame.
        ends: Positions in the file after the last byte of each sample.
        durations: Durations in units of the track's time scale.
        shifts: Differences of presentation time and decoding time, in the same units.
    """

    sizes: Int64
    ends: Int64
    durations: Int64
    shifts: Int64


def boxes(file: ContainerFile, begin: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two positions. Bytes at the end that are zero or too short for a box are padding."""
    for _ in range(_MAX_BOXES):
        if begin + 8 > min(end, file.size):
            return
        size, kind = file.unpack(">I4s", begin)
        header = 8
        if size == 1:
            (size,) = file.unpack(">Q", begin + 8)
            header = 16
        elif size == 0 and kind != bytes(4):
            size = end - begin
        if size < header:
            return
        yield Box(kind, begin + header, begin + size)
        begin += size


def child(file: ContainerFile, parent: Box, *kinds: bytes) -> Box | None:
    """Return the first box of a kind inside a box, or along a path of kinds; None if there is none."""
    found: Box | None = parent
    for kind in kinds:
        if found is None:
            return None
        found = next((box for box in boxes(file, found.begin, found.end) if box.kind == kind), None)
    return found


def full_box(file: ContainerFile, box: Box) -> tuple[int, int, int]:
    """Return version, flags and start of the content of a box that has them."""
    (word,) = file.unpack(">I", box.begin)
    return word >> 24, word & 0xFFFFFF, box.begin + 4


def track_samples(file: ContainerFile, stbl: Box) -> Samples:
    """Read the samples that a track's sample table lists; a fragmented file has none there.

    Raises:
        DamagedIndexError: The tables are too long, or contradict each other.
    """
    sizes = _sizes(file, _needed(file, stbl, b"stsz"))
    durations = _runs(file, _needed(file, stbl, b"stts"), ">u4")
    if len(durations) != len(sizes):
        raise DamagedIndexError(f"it has times for {len(durations)} frames and sizes for {len(sizes)}")
    ctts = child(file, stbl, b"ctts")
    # Version 0 has unsigned shifts by the standard; files with negative ones are common, and all readers accept them.
    shifts = _runs(file, ctts, ">i4") if ctts else np.zeros(0, np.int64)
    shifts = np.concatenate([shifts[: len(sizes)], np.zeros(max(len(sizes) - len(shifts), 0), np.int64)])
    return Samples(sizes, _ends(file, stbl, sizes), durations, shifts)


def _needed(file: ContainerFile, stbl: Box, kind: bytes) -> Box:
    box = child(file, stbl, kind)
    if box is None:
        raise DamagedIndexError(f"it has no table {kind.decode()}")
    return box


def _sizes(file: ContainerFile, stsz: Box) -> Int64:
    _, _, at = full_box(file, stsz)
    uniform, count = file.unpack(">II", at)
    if count > min(MAX_FRAMES, file.size):
        raise DamagedIndexError(f"it lists {count} frames in a file of {file.size} bytes")
    return np.full(count, uniform, np.int64) if uniform else file.table(">u4", at + 8, count, stsz.end)


def _runs(file: ContainerFile, box: Box, value: str) -> Int64:
    """Expand a table of (count, value) to one value per sample."""
    _, _, at = full_box(file, box)
    (count,) = file.unpack(">I", at)
    table = file.table(">u4", at + 4, 2 * count, box.end).reshape(-1, 2)
    if table[:, 0].sum() > MAX_FRAMES:
        raise DamagedIndexError(f"a table lists {table[:, 0].sum()} frames in a file of {file.size} bytes")
    values = table[:, 1].astype(np.uint32).astype(np.uint32 if value == ">u4" else np.int32, casting="unsafe")
    return np.repeat(values.astype(np.int64), table[:, 0])


def _ends(file: ContainerFile, stbl: Box, sizes: Int64) -> Int64:
    """Return the position after each sample: chunks have positions, and samples are consecutive in a chunk."""
    wide = child(file, stbl, b"co64")
    box = wide or _needed(file, stbl, b"stco")
    _, _, at = full_box(file, box)
    (count,) = file.unpack(">I", at)
    chunks = file.table(">u8" if wide else ">u4", at + 4, count, box.end)
    box = _needed(file, stbl, b"stsc")
    _, _, at = full_box(file, box)
    (count,) = file.unpack(">I", at)
    runs = file.table(">u4", at + 4, 3 * count, box.end).reshape(-1, 3)
    lengths = np.diff(np.append(runs[:, 0], len(chunks) + 1))
    if len(runs) and (runs[0, 0] != 1 or (lengths < 0).any()):
        raise DamagedIndexError("its chunks are not in order")
    if (lengths * runs[:, 1]).sum() != len(sizes):
        raise DamagedIndexError(f"it has places for {(lengths * runs[:, 1]).sum()} frames and sizes for {len(sizes)}")
    in_chunk = np.repeat(runs[:, 1], lengths)
    behind = np.cumsum(sizes)
    before = np.concatenate([np.zeros(1, np.int64), behind])[np.cumsum(in_chunk) - in_chunk]
    ends: Int64 = behind + np.repeat(chunks - before, in_chunk)
    return ends


class FragmentReader:
    """The samples of one track in the fragments (``moof``) of a file, fragment by fragment.

    Attributes:
        num_bytes: Size in bytes of the samples of all tracks in the fragments read so far.
    """

    def __init__(self, file: ContainerFile, track_id: int, defaults: tuple[int, int]) -> None:
        """Create a reader.

        `defaults` are duration and size of a sample from ``trex``, for fragments without their own.
        """
        self._file = file
        self._track_id = track_id
        self._defaults = defaults
        self._parts: list[Samples] = []
        self.num_bytes = 0

    def samples(self) -> Samples:
        """Return the samples read so far, in order."""
        empty = [np.zeros(0, np.int64)]
        names = ("sizes", "ends", "durations", "shifts")
        return Samples(*(np.concatenate([getattr(part, name) for part in self._parts] or empty) for name in names))

    def add(self, moof: Box, start: int) -> None:
        """Read a fragment, whose box starts at `start`.

        Raises:
            DamagedIndexError: The fragment ends beyond the file, or its tables are inconsistent.
        """
        if moof.end > self._file.size:
            raise DamagedIndexError("its last fragment is cut short")
        behind = start
        for traf in boxes(self._file, moof.begin, moof.end):
            if traf.kind == b"traf":
                behind = self._add_track(traf, start, behind)

    def _add_track(self, traf: Box, start: int, behind: int) -> int:
        tfhd = child(self._file, traf, b"tfhd")
        if tfhd is None:
            raise DamagedIndexError("a fragment does not state its track")
        _, flags, at = full_box(self._file, tfhd)
        (track_id,) = self._file.unpack(">I", at)
        at += 4
        base = start if flags & 0x20000 else behind
        if flags & 1:
            (base,) = self._file.unpack(">Q", at)
            at += 8
        at += 4 if flags & 2 else 0
        duration, size = self._defaults
        if flags & 8:
            (duration,) = self._file.unpack(">I", at)
            at += 4
        if flags & 16:
            (size,) = self._file.unpack(">I", at)
        for box in boxes(self._file, traf.begin, traf.end):
            if box.kind == b"trun":
                part, behind = self._run(box, base, behind, (duration, size))
                self.num_bytes += int(part.sizes.sum())
                if track_id == self._track_id:
                    self._parts.append(part)
        return behind

    def _run(self, trun: Box, base: int, behind: int, defaults: tuple[int, int]) -> tuple[Samples, int]:
        _, flags, at = full_box(self._file, trun)
        (count,) = self._file.unpack(">I", at)
        at += 4
        begin = behind
        if flags & 1:
            (offset,) = self._file.unpack(">i", at)
            begin = base + offset
            at += 4
        at += 4 if flags & 4 else 0
        fields = [flag for flag in (0x100, 0x200, 0x400, 0x800) if flags & flag]
        if count > min(MAX_FRAMES, self._file.size):
            raise DamagedIndexError(f"a fragment lists {count} frames in a file of {self._file.size} bytes")
        if at + count * len(fields) * 4 != trun.end:
            raise DamagedIndexError(f"a fragment lists {count} frames, but its list has another length")
        table = self._file.table(">u4", at, count * len(fields), trun.end).reshape(count, -1)
        columns = {flag: table[:, number] for number, flag in enumerate(fields)}
        sizes = columns.get(0x200, np.full(count, defaults[1], np.int64))
        shifts = columns.get(0x800, np.zeros(count, np.int64)).astype(np.uint32).astype(np.int32).astype(np.int64)
        ends = begin + np.cumsum(sizes)
        durations = columns.get(0x100, np.full(count, defaults[0], np.int64))
        return Samples(sizes, ends, durations, shifts), int(ends[-1]) if count else begin
