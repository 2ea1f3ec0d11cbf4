"""The structure of Matroska and WebM files: consecutive elements, each of which states its length.

There is no index of frames. But elements state exactly where they end: an element that ends beyond the file, or is
followed by bytes that are not an element, is a sign that frames are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from yolact_runtime.formats.container_file import MAX_FRAMES, ContainerFile, DamagedIndexError, VideoIndex

__all__ = ["is_matroska", "read_matroska_index"]

_EBML, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_TOP = frozenset(
    {0x114D9B74, 0x1549A966, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
)
"""Elements of a segment: SeekHead, Info, Tracks, Cluster, Cues, Attachments, Chapters, Tags; Void and CRC-32."""
_GROUP, _BLOCK, _SIMPLE_BLOCK = 0xA0, 0xA1, 0xA3
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, _SIMPLE_BLOCK, _GROUP, 0xAF, 0xEC, 0xBF})
_ENTRY, _NUMBER, _TYPE, _CODEC = 0xAE, 0xD7, 0x83, 0x86
_ONE_A_BLOCK = frozenset({b"V_VP8", b"V_VP9", b"V_AV1"})
"""Codecs with one shown frame per block; VP8 also has hidden frames, which it marks."""


@dataclass(frozen=True)
class _Element:
    """An element; `end` is None if the file does not state it, as in a recording that was written to a pipe."""

    kind: int
    begin: int
    end: int | None


@dataclass(frozen=True)
class _Track:
    number: int
    codec: bytes


class _Walk:
    """A walk over all elements that counts the shown frames of the first video track."""

    def __init__(self, file: ContainerFile) -> None:
        self._file = file
        self._track: _Track | None = None
        self._num_frames = 0
        self._num_elements = 0

    def run(self, segment: _Element) -> VideoIndex:
        """Walk over a segment to its end, or to the first bytes that are not an element."""
        end = self._file.size if segment.end is None else segment.end
        if end > self._file.size:
            return VideoIndex(faults=(f"the file is cut short: it should have {end} bytes and has {self._file.size}",))
        try:
            for element in self._elements(segment.begin, end, _TOP, "segment"):
                if element.kind == _TRACKS:
                    self._track = self._track or next(self._video_tracks(element), None)
                elif element.kind == _CLUSTER and element.end is not None:
                    self._cluster(element.begin, element.end)
                elif element.kind in {_SIMPLE_BLOCK, _GROUP}:
                    self._block(element)
        except DamagedIndexError as error:
            return VideoIndex(faults=(f"the file is cut short or damaged: {error}",))
        counted = self._track is not None and self._track.codec in _ONE_A_BLOCK
        return VideoIndex(self._num_frames if counted else None)

    def _cluster(self, begin: int, end: int) -> None:
        for element in self._elements(begin, end, _IN_CLUSTER, "cluster"):
            if element.kind in {_SIMPLE_BLOCK, _GROUP}:
                self._block(element)

    def _elements(self, begin: int, end: int, kinds: frozenset[int], parent: str) -> Iterator[_Element]:
        """Yield the children of an element.

        A cluster of unknown length is entered, so its children follow like the segment's.
        """
        live = False
        while begin < end:
            element = self.element(begin)
            known = kinds | _IN_CLUSTER if live else kinds
            if element.kind not in known:
                raise DamagedIndexError(f"byte {begin} belongs to no element of a {parent}")
            if element.end is None:
                if element.kind != _CLUSTER:
                    raise DamagedIndexError(f"the element at byte {begin} has no length")
                live = True
            elif element.end > end:
                raise DamagedIndexError(
                    f"the element at byte {begin} ends at byte {element.end}, its {parent} at {end}"
                )
            yield element
            begin = element.begin if element.end is None else element.end

    def element(self, at: int) -> _Element:
        """Return the element that begins at a position."""
        self._num_elements += 1
        if self._num_elements > 4 * MAX_FRAMES:
            raise DamagedIndexError(f"it has more than {4 * MAX_FRAMES} elements")
        head = self._file.read(at, 12)
        kind, width = _number(head, keep_mark=True)
        size, more = _number(head[width:], keep_mark=False)
        if not width or not more:
            raise DamagedIndexError(f"byte {at} belongs to no element, or the last one is cut")
        unknown = size == (1 << 7 * more) - 1
        return _Element(kind, at + width + more, None if unknown else at + width + more + size)

    def _video_tracks(self, tracks: _Element) -> Iterator[_Track]:
        for entry in self._inside(tracks):
            if entry.kind != _ENTRY:
                continue
            values = {part.kind: self._content(part) for part in self._inside(entry)}
            if int.from_bytes(values.get(_TYPE, b""), "big") == 1:
                yield _Track(int.from_bytes(values.get(_NUMBER, b""), "big"), values.get(_CODEC, b"").rstrip(b"\0"))

    def _block(self, element: _Element) -> None:
        if element.kind == _GROUP:
            found = next((part for part in self._inside(element) if part.kind == _BLOCK), None)
            if found is None:
                return
            element = found
        head = self._file.read(element.begin, 16)
        number, width = _number(head, keep_mark=False)
        if self._track is None or number != self._track.number:
            return
        first = head[width + 3 : width + 4]
        self._num_frames += 0 if self._track.codec == b"V_VP8" and first and not first[0] & 0x10 else 1

    def _inside(self, element: _Element) -> Iterator[_Element]:
        begin, end = element.begin, element.end if element.end is not None else element.begin
        while begin < end:
            part = self.element(begin)
            if part.end is None or part.end > end:
                raise DamagedIndexError(f"the element at byte {begin} does not end inside its parent")
            yield part
            begin = part.end

    def _content(self, element: _Element) -> bytes:
        return self._file.read(element.begin, min((element.end or element.begin) - element.begin, 64))


def is_matroska(head: bytes) -> bool:
    """Return whether a file that begins with `head`, at least 4 bytes, is Matroska or WebM."""
    return head[:4] == _EBML.to_bytes(4, "big")


def read_matroska_index(file: ContainerFile) -> VideoIndex:
    """Walk over the file's elements. Frames are counted for VP8, VP9 and AV1 only."""
    walk = _Walk(file)
    at = 0
    while at < file.size:
        try:
            element = walk.element(at)
        except DamagedIndexError as error:
            return VideoIndex(faults=(f"the file is cut short or damaged: {error}",))
        if element.kind == _SEGMENT:
            return walk.run(element)
        if element.end is None or element.kind not in {_EBML, 0xEC}:
            break
        at = element.end
    return VideoIndex(faults=("the file is cut short or damaged: it holds no segment",))


def _number(content: bytes, keep_mark: bool) -> tuple[int, int]:
    """Decode a number of variable length; return it and its length in bytes, 0 if there is none.

    Names keep the bit that marks the length.
    """
    if not content or not content[0]:
        return 0, 0
    width = 9 - content[0].bit_length()
    if len(content) < width:
        return 0, 0
    value = int.from_bytes(content[:width], "big")
    return value if keep_mark else value & ((1 << 7 * width) - 1), width
