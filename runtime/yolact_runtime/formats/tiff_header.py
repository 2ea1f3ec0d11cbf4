"""The header of a TIFF file: its first page, how many there are, and whether its pixels are in the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.formats.image_header import FLOAT_SAMPLES, DamagedImageError, ImageHeader

__all__ = ["read_tiff_header"]

_TYPE_CODES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4"}
_TYPE_CODES |= {16: "u8", 17: "i8", 18: "u8"}
_MOST_PAGES = 100_000
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION = 254, 256, 257, 258, 259
_STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES, _MAX_SAMPLE = 273, 277, 279, 281
_TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT, _S_MAX_SAMPLE = 324, 325, 339, 341
_PREVIEW_OR_MASK = 0b101
# The most pixels' bytes that a byte of the file can hold, by compression; what is not listed has no limit here.
_RATIO = {1: 1, 5: 4096, 8: 1032, 32946: 1032, 32773: 64}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3


@dataclass(frozen=True)
class _Layout:
    """Sizes and formats that differ between TIFF and BigTIFF, and byte order."""

    order: str
    is_big: bool

    def offset(self, content: memoryview, at: int) -> int:
        """A position in the file, as stored at `at`."""
        value: int = struct.unpack_from(self.order + ("Q" if self.is_big else "I"), content, at)[0]
        return value


def read_tiff_header(content: memoryview) -> ImageHeader:
    """See :func:`~yolact_runtime.formats.header_reader.read_image_header`.

    Pages that are marked as previews or masks of others are not counted.

    Raises:
        DamagedImageError: The file is damaged or cut short.
    """
    layout = _Layout("<" if content[0] == 0x49 else ">", 0x2B in bytes(content[2:4]))
    at = layout.offset(content, 8 if layout.is_big else 4)
    seen: set[int] = set()
    first: dict[int, npt.NDArray[np.generic]] | None = None
    pictures = 0
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        tags, at = _directory(content, at, layout, wanted=None if first is None else {_SUBFILE})
        pictures += not _number(tags, _SUBFILE, 0) & _PREVIEW_OR_MASK
        first = tags if first is None else first
    if first is None:
        raise DamagedImageError("damaged: it has no page")
    return _header(first, max(pictures, 1), len(content))


def _directory(
    content: memoryview, at: int, layout: _Layout, wanted: set[int] | None
) -> tuple[dict[int, npt.NDArray[np.generic]], int]:
    """Tags of a page, and where the next page's begin."""
    size, inline, count_format = (20, 8, "Q") if layout.is_big else (12, 4, "H")
    if at + 8 > len(content):
        raise DamagedImageError(f"cut short: a page is described at byte {at} of {len(content)}")
    (entries,) = struct.unpack_from(layout.order + count_format, content, at)
    at += struct.calcsize(count_format)
    if at + size * entries + inline > len(content):
        raise DamagedImageError("cut short: the file ends inside the description of a page")
    tags = {}
    for place in range(at, at + size * entries, size):
        tag, kind = struct.unpack_from(layout.order + "HH", content, place)
        code = _TYPE_CODES.get(kind)
        if code is None or (wanted is not None and tag not in wanted):
            continue
        (count,) = struct.unpack_from(layout.order + ("Q" if layout.is_big else "I"), content, place + 4)
        dtype = np.dtype(layout.order + code)
        value = place + size - inline
        if count * dtype.itemsize > inline:
            value = layout.offset(content, value)
        if value + count * dtype.itemsize > len(content):
            # What is not needed to read the pixels may be broken.
            if tag in {_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES, _BITS}:
                raise DamagedImageError(f"cut short: the values of tag {tag} lie beyond the end of the file")
            continue
        tags[tag] = np.frombuffer(content, dtype, int(count), value)
    return tags, layout.offset(content, at + size * entries)


def _header(tags: dict[int, npt.NDArray[np.generic]], pictures: int, size: int) -> ImageHeader:
    width, height = _number(tags, _WIDTH, 0), _number(tags, _HEIGHT, 0)
    bits, sample_format = _number(tags, _BITS, 1), _number(tags, _SAMPLE_FORMAT, _UNSIGNED)
    for offsets, lengths in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES)):
        if offsets in tags and lengths in tags and len(tags[offsets]) == len(tags[lengths]):
            end = max(
                (int(a) + int(b) for a, b in zip(tags[offsets].tolist(), tags[lengths].tolist(), strict=True)),
                default=0,
            )
            if end > size:
                raise DamagedImageError(f"cut short: its pixels end at byte {end} of {size}")
    pixels_bytes = width * height * bits * _number(tags, _SAMPLES, 1) // 8
    ratio = _RATIO.get(_number(tags, _COMPRESSION, 1), 0)
    return ImageHeader(
        width,
        height,
        bits if bits <= 8 or bits > 16 else 16,
        _white(tags, bits),
        num_pictures=pictures,
        min_bytes=pixels_bytes // ratio if ratio else 0,
        packed_bits=bits if 8 < bits < 16 else 0,
        not_read=_not_read(bits, sample_format),
    )


def _not_read(bits: int, sample_format: int) -> str:
    if sample_format == _FLOAT:
        return FLOAT_SAMPLES
    if sample_format == _SIGNED and bits > 8:
        return "its samples have a sign; write it with unsigned samples of 8 or 16 bits"
    if bits > 16:
        return f"its samples have {bits} bits; write it with 8 bits, or with 16 and --bit-depth"
    return ""


def _white(tags: dict[int, npt.NDArray[np.generic]], bits: int) -> int | None:
    """The largest value, as the number of bits or the sample tags state it."""
    if 8 < bits < 16:
        return (1 << bits) - 1
    if bits != 16:
        return None
    stated = max(_number(tags, _S_MAX_SAMPLE, 0), _number(tags, _MAX_SAMPLE, 0))
    # The brightest value of a picture stands for the bits that it takes.
    significant = max(stated.bit_length(), 8)
    return (1 << significant) - 1 if stated and significant < bits else None


def _number(tags: dict[int, npt.NDArray[np.generic]], tag: int, default: int) -> int:
    values = tags.get(tag)
    if values is None or not len(values):
        return default
    largest = float(values.max())
    return int(largest) if 0 <= largest < 2**63 else default
