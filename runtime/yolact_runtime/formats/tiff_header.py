"""The header of a TIFF file: its first page, the number of pages, and whether its pixels are in the file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yolact_runtime.formats.image_header import FLOAT_SAMPLES, DamagedImageError, ImageHeader
from yolact_runtime.formats.tiff_pixels import check_deflated, check_places

__all__ = ["exif_orientation", "read_tiff_header"]

_TYPE_CODES = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4"}
_TYPE_CODES |= {16: "u8", 17: "i8", 18: "u8"}
_MOST_PAGES = 100_000
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS = 254, 256, 257, 258, 259, 262
_ORIENTATION = 274
_STRIP_OFFSETS, _SAMPLES, _STRIP_BYTES, _MAX_SAMPLE, _PLANAR = 273, 277, 279, 281, 284
_TILE_OFFSETS, _TILE_BYTES, _SUB_PAGES, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _S_MAX_SAMPLE = 324, 325, 330, 338, 339, 341
_DEPTH, _DNG_VERSION = 32997, 50706
_PREVIEW_OR_MASK = 0b101
# Maximum expansion of a byte of the file to bytes of pixels, by compression; others have no limit here.
_RATIO = {1: 1, 5: 4096, 8: 1032, 32946: 1032, 32773: 64}
_DEFLATE = {8, 32946}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOUR_NAMES = {
    _PALETTE: "those of a palette",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    32803: "those of a colour filter, as a sensor gives them",
    34892: "linear raw ones of a camera",
}
_COMPRESSION_NAMES = {34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"}
_COMMON_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946})
"""Compressions that every libtiff decodes. For others that it was built without, it silently returns black pixels."""
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2

Tags = dict[int, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class _Layout:
    """Sizes and formats that differ between TIFF and BigTIFF, and byte order."""

    order: str
    is_big: bool

    def offset(self, content: memoryview, at: int) -> int:
        """Return the file position stored at `at`."""
        value: int = struct.unpack_from(self.order + ("Q" if self.is_big else "I"), content, at)[0]
        return value


def read_tiff_header(content: memoryview) -> ImageHeader:
    """Read a header; see :func:`~yolact_runtime.formats.header_reader.read_image_header`.

    Pages that are marked as previews or masks of others are not counted.

    Raises:
        DamagedImageError: The file is damaged or truncated.
    """
    layout = _layout(content)
    at = layout.offset(content, 8 if layout.is_big else 4)
    seen: set[int] = set()
    first: Tags | None = None
    pictures = 0
    while at and at not in seen and len(seen) < _MOST_PAGES:
        seen.add(at)
        tags, at = _directory(content, at, layout, wanted=None if first is None else {_SUBFILE})
        pictures += not _number(tags, _SUBFILE, 0) & _PREVIEW_OR_MASK
        first = tags if first is None else first
    if first is None:
        raise DamagedImageError("damaged: it has no page")
    return _header(content, first, pictures)


def exif_orientation(exif: memoryview) -> int:
    """Return the orientation, 1 to 8, from EXIF data, which is a TIFF without pixels; 1 if it is not stated."""
    if bytes(exif[:6]) == b"Exif\0\0":
        exif = exif[6:]
    try:
        layout = _layout(exif)
        tags, _ = _directory(exif, layout.offset(exif, 4), layout, {_ORIENTATION})
    except (DamagedImageError, struct.error, IndexError):
        return 1
    orientation = _number(tags, _ORIENTATION, 1)
    return orientation if 1 <= orientation <= 8 else 1


def _layout(content: memoryview) -> _Layout:
    return _Layout("<" if content[0] == 0x49 else ">", 0x2B in bytes(content[2:4]))


def _directory(content: memoryview, at: int, layout: _Layout, wanted: set[int] | None) -> tuple[Tags, int]:
    """Return the tags of a page, as views of `content`, and the position of the next page."""
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
            # Values that are not needed to read the pixels may be damaged.
            if tag in {_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES, _BITS}:
                raise DamagedImageError(f"cut short: the values of tag {tag} lie beyond the end of the file")
            continue
        tags[tag] = np.frombuffer(content, dtype, int(count), value)
    return tags, layout.offset(content, at + size * entries)


def _header(content: memoryview, tags: Tags, pictures: int) -> ImageHeader:
    width, height = _number(tags, _WIDTH, 0), _number(tags, _HEIGHT, 0)
    bits = _number(tags, _BITS, 1)
    pixels_bytes = width * height * bits * _number(tags, _SAMPLES, 1) // 8
    compression = _number(tags, _COMPRESSION, 1)
    _check_pixels(content, tags, compression)
    ratio = _RATIO.get(compression, 0)
    return ImageHeader(
        width,
        height,
        bits if bits <= 8 or bits > 16 else 16,
        _white(tags, bits),
        num_pictures=max(pictures, 1) * max(_number(tags, _DEPTH, 1), 1),
        min_bytes=pixels_bytes // ratio if ratio else 0,
        packed_bits=bits if 8 < bits < 16 else 0,
        not_read=_not_read(tags, bits, pictures),
        is_negative=bits > 8 and _number(tags, _COLOURS, _MIN_IS_BLACK) == _MIN_IS_WHITE,
        exchanged=_without_darkening(content, tags) if bits == 8 else (),
        variant=_variant(tags, bits, compression),
    )


def _variant(tags: Tags, bits: int, compression: int) -> str:
    name = _COMPRESSION_NAMES.get(compression, f"{compression}")
    return f"{_number(tags, _SAMPLES, 1)} x {bits} bits a pixel, compression {name}"


def _check_pixels(content: memoryview, tags: Tags, compression: int) -> None:
    """Raise DamagedImageError if pixels lie beyond the end of the file, or do not match their checksum."""
    for offsets, lengths in ((_STRIP_OFFSETS, _STRIP_BYTES), (_TILE_OFFSETS, _TILE_BYTES)):
        if offsets in tags and lengths in tags and len(tags[offsets]) == len(tags[lengths]):
            places = [*zip(map(int, tags[offsets].tolist()), map(int, tags[lengths].tolist()), strict=True)]
            check_places(places, len(content))
            if compression in _DEFLATE:
                check_deflated(content, places)


def _not_read(tags: Tags, bits: int, pictures: int) -> str:
    """Explain why samples are not supported: OpenCV would silently misinterpret them."""
    sample_format = _number(tags, _SAMPLE_FORMAT, _UNSIGNED)
    if _DNG_VERSION in tags:
        return "it is a camera's raw file (DNG); convert it, and use the resulting picture"
    if _number(tags, _SUBFILE, 0) & _PREVIEW_OR_MASK and (pictures or _SUB_PAGES in tags):
        return (
            "its first page is a preview or a mask, which would be read instead of the picture; write the picture alone"
        )
    if sample_format == _FLOAT:
        return FLOAT_SAMPLES
    if sample_format == _SIGNED:
        return "its samples have a sign; write it with unsigned samples of 8 or 16 bits"
    if bits > 16:
        return f"its samples have {bits} bits; write it with 8 bits, or with 16 and --bit-depth"
    compression = _number(tags, _COMPRESSION, 1)
    if compression not in _COMMON_COMPRESSIONS:
        return (
            f"its pixels have the compression {_COMPRESSION_NAMES.get(compression, compression)}; write it with Deflate"
        )
    colours = _number(tags, _COLOURS, _MIN_IS_BLACK)
    understood = {_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB} | ({_PALETTE, _CMYK, _YCBCR} if bits <= 8 else set())
    if colours not in understood:
        name = _COLOUR_NAMES.get(colours, f"of kind {colours}")
        deep = f" with {bits} bits" if colours in {_PALETTE, _CMYK, _YCBCR} else ""
        return f"its colours are {name}{deep}, which OpenCV misinterprets; write it as RGB or gray"
    if bits > 8 and _number(tags, _SAMPLES, 1) > 1 and _number(tags, _PLANAR, 1) == 2:
        return (
            f"it has {bits} bits and separate colour planes (PlanarConfiguration 2), which OpenCV mixes up; "
            f"write it with PlanarConfiguration 1"
        )
    return ""


def _white(tags: Tags, bits: int) -> int | None:
    """Return the largest value that the number of bits or the sample tags state."""
    if 8 < bits < 16:
        return (1 << bits) - 1
    if bits != 16:
        return None
    # Transparency comes last, and may have more bits than colours.
    colours = max(_number(tags, _SAMPLES, 1) - len(tags.get(_EXTRA_SAMPLES, ())), 1)
    stated = max(_number(tags, tag, 0, colours) for tag in (_S_MAX_SAMPLE, _MAX_SAMPLE))
    # The brightest value of a picture stands for the bits that it takes.
    significant = max(stated.bit_length(), 8)
    return (1 << significant) - 1 if stated and significant < bits else None


def _without_darkening(content: memoryview, tags: Tags) -> tuple[tuple[int, bytes], ...]:
    """Declare unmultiplied colours as multiplied, so that libtiff does not multiply them with transparency."""
    extra = tags.get(_EXTRA_SAMPLES)
    if extra is None or _UNASSOCIATED_ALPHA not in extra:
        return ()
    start = extra.ctypes.data - np.frombuffer(content, np.uint8).ctypes.data
    exchanged = extra.copy()
    exchanged[extra == _UNASSOCIATED_ALPHA] = _ASSOCIATED_ALPHA
    return ((start, exchanged.tobytes()),)


def _number(tags: Tags, tag: int, default: int, most: int | None = None) -> int:
    """Return the largest of the first `most` values of a tag."""
    values = tags.get(tag)
    values = None if values is None else values[:most]
    if values is None or not len(values):
        return default
    largest = float(values.max())
    return int(largest) if 0 <= largest < 2**63 else default
