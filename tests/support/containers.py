"""Manipulation of video containers: MP4 with edit lists, fragments or variable rate; AVI with dropped frames."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

__all__ = [
    "add_box_after",
    "add_edit_list",
    "drop_avi_frames",
    "fragment",
    "make_hole",
    "make_live_matroska",
    "move_index_to_front",
    "rotate",
    "set_durations",
    "widen_chunk_offsets",
]

Boxes = list[tuple[bytes, bytes]]


def split(content: bytes) -> Boxes:
    """Split content into boxes side by side, as (kind, content without header)."""
    found: Boxes = []
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
            header = 16
        size = size or len(content) - at
        found.append((kind, content[at + header : at + size]))
        at += size
    return found


def join(boxes: Boxes) -> bytes:
    """Join boxes to bytes; mdat keeps its position only if everything before it does."""
    return b"".join(struct.pack(">I4s", len(content) + 8, kind) + content for kind, content in boxes)


def edit(content: bytes, path: Sequence[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """Change the content of the first box at a path of kinds."""
    boxes = split(content)
    for number, (kind, inside) in enumerate(boxes):
        if kind == path[0]:
            boxes[number] = (kind, change(inside) if len(path) == 1 else edit(inside, path[1:], change))
            break
    else:
        raise AssertionError(f"no box {path[0]!r}")
    return join(boxes)


def find(content: bytes, *path: bytes) -> bytes:
    """Return the content of the first box at a path of kinds."""
    for kind in path:
        content = next(inside for name, inside in split(content) if name == kind)
    return content


_STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


def add_edit_list(content: bytes, edits: Sequence[tuple[int, int]]) -> bytes:
    """Add an edit list of (duration in ms, start) to the track of an MP4 file whose index follows its frames."""
    assert content.index(b"mdat") < content.index(b"moov")
    table = struct.pack(">II", 0, len(edits)) + b"".join(struct.pack(">Ii4s", *e, b"\0\1\0\0") for e in edits)
    edts = (b"edts", join([(b"elst", table)]))

    def change(trak: bytes) -> bytes:
        boxes = [box for box in split(trak) if box[0] != b"edts"]
        return join([boxes[0], edts, *boxes[1:]])

    return _tail(content, lambda moov: edit(moov, (b"moov", b"trak"), change))


def _tail(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change ``moov`` and what follows it; nothing before moves."""
    at = content.index(b"moov") - 4
    return content[:at] + change(content[at:])


def set_durations(content: bytes, durations: Sequence[int]) -> bytes:
    """Give every frame of an MP4 file, whose index follows its frames, a duration of its own."""
    table = struct.pack(">II", 0, len(durations)) + b"".join(struct.pack(">II", 1, d) for d in durations)
    without = _tail(
        content,
        lambda moov: edit(
            moov, (b"moov", b"trak"), lambda trak: join([box for box in split(trak) if box[0] != b"edts"])
        ),
    )
    return _tail(without, lambda moov: edit(moov, (*_STBL, b"stts"), lambda _: table))


def rotate(content: bytes) -> bytes:
    """Request a quarter turn clockwise, as a phone held upright does."""
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return _tail(
        content, lambda moov: edit(moov, (b"moov", b"trak", b"tkhd"), lambda tkhd: tkhd[:40] + matrix + tkhd[76:])
    )


def widen_chunk_offsets(content: bytes) -> bytes:
    """Write positions in 64 bits, as in files of more than 4 GB."""

    def change(stbl: bytes) -> bytes:
        boxes = split(stbl)
        for number, (kind, table) in enumerate(boxes):
            if kind == b"stco":
                offsets = struct.unpack(f">{(len(table) - 8) // 4}I", table[8:])
                boxes[number] = (b"co64", table[:8] + struct.pack(f">{len(offsets)}Q", *offsets))
        return join(boxes)

    return _tail(content, lambda moov: edit(moov, _STBL, change))


def make_hole(content: bytes, begin: float, end: float) -> bytes:
    """Fill a part of an MP4 file's frames with zeros, from one share of their bytes to another."""
    at = content.index(b"mdat") + 4
    size = len(find(content, b"mdat"))
    begin_at, end_at = at + int(begin * size), at + int(end * size)
    return content[:begin_at] + bytes(end_at - begin_at) + content[end_at:]


def move_index_to_front(content: bytes) -> bytes:
    """Move ``moov`` before ``mdat``, as for streaming on the web."""
    at = content.index(b"moov") - 4
    moov = content[at:]
    (size,) = struct.unpack_from(">I", moov)
    moov, rest = moov[:size], moov[size:]
    begin = struct.unpack_from(">I", content)[0]

    def shift(table: bytes) -> bytes:
        offsets = struct.unpack(f">{(len(table) - 8) // 4}I", table[8:])
        return table[:8] + struct.pack(f">{len(offsets)}I", *(offset + size for offset in offsets))

    return content[:begin] + edit(moov, (*_STBL, b"stco"), shift) + content[begin:at] + rest


def add_box_after(content: bytes, kind: bytes, inside: bytes, size: int | None = None) -> bytes:
    """Append a box, whose size may be false."""
    return content + struct.pack(">I4s", len(inside) + 8 if size is None else size, kind) + inside


def fragment(content: bytes, per_fragment: int) -> bytes:
    """Split the frames into movie fragments, as cameras and streams write them."""
    moov = find(content, b"moov")
    stbl = find(moov, b"trak", b"mdia", b"minf", b"stbl")
    samples = list(_samples(content, stbl))
    _, run_length, duration = struct.unpack_from(">III", find(stbl, b"stts"), 4)
    assert run_length == len(samples)
    empty = [
        (kind, table if kind == b"stsd" else bytes(12 if kind == b"stsz" else 8))
        for kind, table in split(stbl)
        if kind in {b"stsd", b"stts", b"stsc", b"stsz", b"stco"}
    ]
    trex = struct.pack(">6I", 0, 1, 1, duration, 0, 0)
    new = edit(join([(b"moov", moov)]), _STBL, lambda _: join(empty))
    new = edit(new, (b"moov", b"trak"), lambda trak: join([box for box in split(trak) if box[0] != b"edts"]))
    new = edit(new, (b"moov",), lambda inside: inside + join([(b"mvex", join([(b"trex", trex)]))]))
    parts = [join([(b"ftyp", find(content, b"ftyp"))]), new]
    for number, begin in enumerate(range(0, len(samples), per_fragment)):
        parts.append(_moof(samples[begin : begin + per_fragment], number, begin, begin * duration))
    return b"".join(parts)


def _samples(content: bytes, stbl: bytes) -> list[bytes]:
    """Return the frames of a track with one chunk, or with chunks of equal numbers of frames."""
    table = find(stbl, b"stsz")
    sizes = struct.unpack(f">{(len(table) - 12) // 4}I", table[12:])
    chunks = find(stbl, b"stco")
    offsets = struct.unpack(f">{(len(chunks) - 8) // 4}I", chunks[8:])
    runs = find(stbl, b"stsc")
    (_, in_chunk, _) = struct.unpack_from(">III", runs, 8)
    found, number = [], 0
    for offset in offsets:
        for _ in range(in_chunk if len(runs) == 20 else len(sizes)):
            if number < len(sizes):
                found.append(content[offset : offset + sizes[number]])
                offset += sizes[number]
                number += 1
    return found


def _moof(samples: list[bytes], number: int, first: int, time: int) -> bytes:
    def made(offset: int) -> bytes:
        key, other = 0x02000000, 0x01010000
        entries = b"".join(
            struct.pack(">II", len(sample), key if first + k == 0 or first % 12 == k else other)
            for k, sample in enumerate(samples)
        )
        trun = struct.pack(">IIi", 0x000601, len(samples), offset) + entries
        traf = [
            (b"tfhd", struct.pack(">II", 0x020000, 1)),
            (b"tfdt", struct.pack(">II", 0, time)),
            (b"trun", trun),
        ]
        return join([(b"moof", join([(b"mfhd", struct.pack(">II", 0, number + 1)), (b"traf", join(traf))]))])

    return made(len(made(0)) + 8) + join([(b"mdat", b"".join(samples))])


def drop_avi_frames(content: bytes, numbers: Sequence[int]) -> bytes:
    """Insert an empty chunk behind some frames of an AVI file, which shows the frame longer, as recorders do."""
    movi = content.index(b"movi")
    (size,) = struct.unpack_from("<I", content, movi - 4)
    at, end = movi + 4, movi - 4 + 4 + size
    chunks, entries, count = [], [], 0
    position = 4
    while at < end:
        kind, length = struct.unpack_from("<4sI", content, at)
        whole = content[at : at + 8 + length + length % 2]
        for chunk in [whole] + ([struct.pack("<4sI", b"00dc", 0)] if kind == b"00dc" and count in numbers else []):
            if chunk[2:4] == b"dc":
                entries.append(
                    struct.pack("<4sIII", b"00dc", 16 if not count else 0, position, len(chunk) - 8 and length)
                )
            chunks.append(chunk)
            position += len(chunk)
        count += kind == b"00dc"
        at += len(whole)
    body = b"movi" + b"".join(chunks)
    index = b"".join(entries)
    head = bytearray(content[: movi - 8])
    strh = head.index(b"strh") + 8
    struct.pack_into("<I", head, strh + 32, len(entries))
    tail = struct.pack("<4sI", b"idx1", len(index)) + index
    new = bytes(head) + struct.pack("<4sI", b"LIST", len(body)) + body + tail
    return new[:4] + struct.pack("<I", len(new) - 8) + new[8:]


def make_live_matroska(content: bytes) -> bytes:
    """Mark the length as unknown, as in a file written to a pipe; for files whose lengths have 8 bytes."""
    new = bytearray(content)
    at = new.index(b"\x18\x53\x80\x67") + 4
    assert new[at] == 1
    new[at : at + 8] = b"\x01" + b"\xff" * 7
    return bytes(new)
