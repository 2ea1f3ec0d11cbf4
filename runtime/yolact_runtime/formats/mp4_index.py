"""The index of MP4 and QuickTime files: the frames, their positions, and their presentation times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.formats.container_file import ContainerFile, DamagedIndexError, VideoIndex
from yolact_runtime.formats.mp4_boxes import Box, FragmentReader, Samples, boxes, child, full_box, track_samples

__all__ = ["is_mp4", "read_mp4_index"]

_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid"})
_BIG_BOXES = frozenset({b"mdat"})
"""Boxes that end beyond the end of a truncated recording; the missing frames are counted one by one."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Edit:
    """An entry of an edit list: `duration` in units of the movie, None if unlimited; `start` in units of the track."""

    duration: int | None
    start: int


@dataclass(frozen=True)
class _Track:
    track_id: int
    time_scale: int
    stbl: Box
    edits: tuple[_Edit, ...]


def is_mp4(head: bytes) -> bool:
    """Return whether a file that begins with `head`, at least 8 bytes, is MP4, QuickTime or 3GP."""
    return head[4:8] in _FIRST_BOXES


def read_mp4_index(file: ContainerFile) -> VideoIndex:
    """Read the index of the first video track.

    Raises:
        DamagedIndexError: The index contradicts itself.
    """
    top = list(_top_boxes(file))
    moov = next((box for box, _ in top if box.kind == b"moov"), None)
    if moov is None:
        return VideoIndex(faults=("it has no index (moov): it is cut short, or its recording was never finished",))
    if moov.end > file.size:
        raise DamagedIndexError("it is cut short")
    time_scale = _time_scale(file, _needed(file, moov, b"mvhd"))
    track = next(_video_tracks(file, moov), None)
    if track is None:
        return VideoIndex(faults=("its index names no video, only sound or something else",))
    mvex = child(file, moov, b"mvex")
    if mvex is None:
        return _index(file, track, track_samples(file, track.stbl), time_scale)
    reader = FragmentReader(file, track.track_id, _defaults(file, mvex, track.track_id))
    fault = _read_fragments(file, reader, top)
    in_front = track_samples(file, track.stbl)
    # If no frames precede the fragments, all bytes of frames are in fragments, whatever their track.
    unlisted = sum(box.end - box.begin for box, start in top if box.kind == b"mdat" and start > moov.begin)
    unlisted -= reader.num_bytes
    if not fault and not len(in_front.sizes) and unlisted > 0:
        fault = (f"the file is damaged: {unlisted} bytes of frames are in no fragment",)
    index = _index(file, track, _joined(in_front, reader.samples()), None)
    return VideoIndex(index.num_frames, index.times_s, index.faults + fault)


def _read_fragments(file: ContainerFile, reader: FragmentReader, top: list[tuple[Box, int]]) -> tuple[str, ...]:
    """Read all fragments up to the first damage and describe it, because the next position is then unknown."""
    try:
        for box, start in top:
            if box.kind == b"moof":
                reader.add(box, start)
    except DamagedIndexError as error:
        return (f"the file is cut short or damaged: {error}",)
    last, start = top[-1]
    if last.end < file.size or (last.end > file.size and last.kind not in _BIG_BOXES):
        return (f"the file is cut short or damaged: byte {min(last.end, start)} belongs to no fragment",)
    return ()


def _top_boxes(file: ContainerFile) -> Iterator[tuple[Box, int]]:
    start = 0
    for box in boxes(file, 0, file.size):
        yield box, start
        start = box.end


def _needed(file: ContainerFile, parent: Box, *kinds: bytes) -> Box:
    box = child(file, parent, *kinds)
    if box is None:
        raise DamagedIndexError(f"it has no box {'/'.join(kind.decode() for kind in kinds)}")
    return box


def _time_scale(file: ContainerFile, box: Box) -> int:
    version, _, at = full_box(file, box)
    (scale,) = file.unpack(">I", at + (16 if version == 1 else 8))
    if not scale:
        raise DamagedIndexError("its time scale is 0")
    return int(scale)


def _video_tracks(file: ContainerFile, moov: Box) -> Iterator[_Track]:
    for trak in boxes(file, moov.begin, moov.end):
        hdlr = child(file, trak, b"mdia", b"hdlr") if trak.kind == b"trak" else None
        if hdlr is None or file.unpack(">4s", hdlr.begin + 8)[0] != b"vide":
            continue
        version, _, at = full_box(file, _needed(file, trak, b"tkhd"))
        (track_id,) = file.unpack(">I", at + (16 if version == 1 else 8))
        scale = _time_scale(file, _needed(file, trak, b"mdia", b"mdhd"))
        stbl = _needed(file, trak, b"mdia", b"minf", b"stbl")
        elst = child(file, trak, b"edts", b"elst")
        yield _Track(track_id, scale, stbl, tuple(_edits(file, elst)) if elst else ())


def _edits(file: ContainerFile, elst: Box) -> Iterator[_Edit]:
    version, _, at = full_box(file, elst)
    (count,) = file.unpack(">I", at)
    form, width = (">Qq", 20) if version == 1 else (">Ii", 12)
    if count * width > elst.end - at:
        raise DamagedIndexError(f"its edit list is said to have {count} entries and does not fit")
    for number in range(min(count, 10_000)):
        duration, start = file.unpack(form, at + 4 + number * width)
        if start >= 0:  # Others are pauses.
            yield _Edit(duration or None, start)


def _defaults(file: ContainerFile, mvex: Box, track_id: int) -> tuple[int, int]:
    for box in boxes(file, mvex.begin, mvex.end):
        if box.kind == b"trex":
            track, _, duration, size = file.unpack(">IIII", full_box(file, box)[2])
            if track == track_id:
                return duration, size
    return 0, 0


def _joined(first: Samples, second: Samples) -> Samples:
    names = ("sizes", "ends", "durations", "shifts")
    return Samples(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in names))


def _index(file: ContainerFile, track: _Track, samples: Samples, movie_scale: int | None) -> VideoIndex:
    """Build the index; `movie_scale` is the unit of edit lists, None for fragments, whose edit lists players ignore."""
    there = samples.sizes > 0
    faults = []
    beyond = int((there & (samples.ends > file.size)).sum())
    if beyond:
        faults.append(
            f"the file is cut short: {beyond} of the {int(there.sum())} frames of its index lie beyond its end"
        )
    times = (np.cumsum(samples.durations) - samples.durations + samples.shifts)[there]
    times.sort(kind="stable")
    if movie_scale is None or not track.edits:
        return VideoIndex(len(times), _seconds(times, track.time_scale), tuple(faults))
    shown = [_shown(times, edit, track.time_scale, movie_scale) for edit in track.edits]
    num_frames = sum(len(part) for part in shown)
    one = _seconds(shown[0], track.time_scale) if len(shown) == 1 else None
    return VideoIndex(num_frames, one, tuple(faults))


def _shown(times: Int64, edit: _Edit, scale: int, movie_scale: int) -> Int64:
    begin = np.searchsorted(times, edit.start)
    if edit.duration is None:
        return times[begin:]
    # A tick of the movie is coarser than one of the track: a frame that begins within the last one may be shown or not.
    length = (edit.duration - 1) * scale // movie_scale
    return times[begin : np.searchsorted(times, edit.start + max(length, 0), side="right")]


def _seconds(times: Int64, scale: int) -> npt.NDArray[np.float64] | None:
    return (times - times[0]) / scale if len(times) else None
