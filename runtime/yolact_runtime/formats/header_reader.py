"""Headers of images of all formats, read before any memory of the image's size is allocated."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from yolact_runtime.formats import file_format as formats
from yolact_runtime.formats.anymap_header import anymap_image_header
from yolact_runtime.formats.file_format import FileFormat
from yolact_runtime.formats.image_header import FLOAT_SAMPLES, DamagedImageError, ImageHeader
from yolact_runtime.formats.tiff_header import exif_orientation, read_tiff_header

__all__ = ["count_gif_pictures", "count_png_pictures", "read_image_header"]


def read_image_header(content: memoryview, file_format: FileFormat) -> ImageHeader:
    """Read a header, and walk through the file as far as needed to check that it is complete.

    Args:
        content: Content of the whole file.
        file_format: Format of the file, from :func:`~yolact_runtime.formats.file_format.format_of`.

    Raises:
        DamagedImageError: The file is damaged or truncated.
    """
    readers: dict[FileFormat, Callable[[memoryview], ImageHeader]] = {
        formats.JPEG: _jpeg,
        formats.PNG: _png,
        formats.GIF: _gif,
        formats.WEBP: _webp,
        formats.TIFF: read_tiff_header,
        formats.BMP: _bmp,
        formats.PNM: anymap_image_header,
        formats.AVIF: _avif,
        formats.JPEG_2000: _jpeg_2000,
        formats.SUN_RASTER: _sun_raster,
        formats.PFM: _float,
        formats.RADIANCE: _float,
        formats.OPEN_EXR: _float,
    }
    try:
        return readers.get(file_format, _unknown)(content)
    except (struct.error, IndexError) as error:
        raise DamagedImageError("cut short: the file ends inside its header") from error


def _float(_content: memoryview) -> ImageHeader:
    return ImageHeader(not_read=FLOAT_SAMPLES)


def _unknown(_content: memoryview) -> ImageHeader:
    return ImageHeader()


def _png(content: memoryview) -> ImageHeader:
    # libpng verifies the checksums of chunks.
    width, height, depth = struct.unpack_from(">IIB", content, 16)
    if bytes(content[12:16]) != b"IHDR":
        raise DamagedImageError("damaged: it does not begin with the chunk IHDR")
    significant, pictures, channels = 0, 1, {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(content[25], 1)
    # Transparency comes last, and may have more bits than colours.
    colours = channels - (content[25] in {4, 6})
    at = 8
    while True:
        if at + 12 > len(content):
            raise DamagedImageError(f"cut short: the chunk at byte {at} and the end of the image are missing")
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = bytes(content[at + 4 : at + 8]), at + 12 + length
        if end > len(content):
            raise DamagedImageError(f"cut short: the chunk at byte {at} ends at byte {end} of {len(content)}")
        if kind == b"sBIT" and depth == 16 and length:
            significant = max(content[at + 8 : at + 8 + min(length, colours)])
        elif kind == b"acTL" and length >= 4:
            (pictures,) = struct.unpack_from(">I", content, at + 8)
        elif kind == b"IEND":
            break
        at = end
    # Deflate expands a byte to at most 1032.
    row_bytes = 1 + (width * channels * depth + 7) // 8
    return ImageHeader(
        width,
        height,
        depth if depth == 16 else 8,
        significant_bits=significant if 8 <= significant < depth else 0,
        num_pictures=max(pictures, 1),
        min_bytes=row_bytes * height // 1032,
    )


def count_png_pictures(head: memoryview) -> int:
    """Return the number of pictures that a PNG declares before its pixels; more than one is an animation.

    Args:
        head: The file, or its beginning up to the first pixels.
    """
    at = 8
    while at + 12 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, at)
        if kind == b"acTL" and at + 12 <= len(head):
            return int(struct.unpack_from(">I", head, at + 8)[0])
        if kind == b"IDAT":
            break
        at += 12 + length
    return 1


_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(content: memoryview) -> ImageHeader:
    at, header = 2, ImageHeader()
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            # Decoders search for the next marker, too.
            at += 1
            continue
        marker = content[at + 1]
        if marker == 0xFF or marker == 0 or marker in _NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in {0xD9, 0xDA}:
            break
        if marker in _START_OF_FRAME:
            bits, height, width = struct.unpack_from(">BHH", content, at + 4)
            # A block of 64 pixels takes at least a bit.
            header = ImageHeader(width, height, 8, min_bytes=width * height // 512)
            if bits != 8:
                header = ImageHeader(
                    width, height, not_read=f"it has {bits} bits a sample, which OpenCV does not decode"
                )
        at += 2 + max(struct.unpack_from(">H", content, at + 2)[0], 2)
    if bytes(content[at : at + 2]) != b"\xff\xda":
        raise DamagedImageError("cut short: the file ends before its pixels")
    # Inside the pixels 0xFF is never followed by 0xD9; thumbnails precede the pixels.
    if content.obj.find(b"\xff\xd9", at) < 0:  # type: ignore[attr-defined]
        raise DamagedImageError("cut short: the end-of-image marker is missing")
    return header


def _gif(content: memoryview) -> ImageHeader:
    width, height = struct.unpack_from("<HH", content, 6)
    # The longest string of a 12-bit code has 4096 pixels.
    return ImageHeader(width, height, num_pictures=count_gif_pictures(content), min_bytes=width * height // 4096)


def count_gif_pictures(content: memoryview) -> int:
    """Count the pictures of a GIF; more than one is an animation.

    Raises:
        DamagedImageError: The file is damaged or truncated.
    """
    try:
        at = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
        pictures = 0
        while content[at] != 0x3B:
            if content[at] == 0x2C:
                pictures += 1
                flags = content[at + 9]
                at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            elif content[at] == 0x21:
                at += 2
            else:
                raise DamagedImageError(f"damaged: no block of a GIF begins at byte {at}")
            while content[at]:
                at += 1 + content[at]
            at += 1
    except IndexError as error:
        raise DamagedImageError("cut short: the file ends before the image does") from error
    return pictures


def _webp(content: memoryview) -> ImageHeader:
    (size,) = struct.unpack_from("<I", content, 4)
    if size + 8 > len(content):
        raise DamagedImageError(f"cut short: its header says {size + 8} bytes, the file has {len(content)}")
    kind = bytes(content[12:16])
    if kind == b"VP8X":
        width = 1 + int.from_bytes(content[24:27], "little")
        height = 1 + int.from_bytes(content[27:30], "little")
        pictures = sum(kind == b"ANMF" for kind, _ in _webp_chunks(content, 8 + size)) if content[20] & 2 else 1
        # OpenCV 4 ignores it.
        exif = next((part for kind, part in _webp_chunks(content, 8 + size) if kind == b"EXIF"), None)
        orientation = 1 if exif is None else exif_orientation(exif)
        return ImageHeader(width, height, num_pictures=max(pictures, 1), orientation=orientation)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", content, 21)
        return ImageHeader(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", content, 26)
    return ImageHeader(width & 0x3FFF, height & 0x3FFF)


def _webp_chunks(content: memoryview, end: int) -> Iterator[tuple[bytes, memoryview]]:
    at = 12
    while at + 8 <= end:
        (length,) = struct.unpack_from("<I", content, at + 4)
        yield bytes(content[at : at + 4]), content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _bmp(content: memoryview) -> ImageHeader:
    if struct.unpack_from("<I", content, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", content, 18)
    else:
        width, height = struct.unpack_from("<ii", content, 18)
    return ImageHeader(abs(width), abs(height))


def _avif(content: memoryview) -> ImageHeader:
    head: bytes = bytes(content[:8192])
    width = height = 0
    for match in re.finditer(rb"ispe\0\0\0\0", head):
        w, h = struct.unpack_from(">II", head, match.end())
        width, height = max(width, w), max(height, h)
    at = head.find(b"pixi\0\0\0\0")
    bits = head[at + 9] if 0 <= at < len(head) - 9 else 8
    pictures = 2 if head[8:12] == b"avis" else 1
    # The image may be a grid of tiles, or rotated; its size is only a lower limit, and not compared.
    return ImageHeader(
        width, height, 16 if bits > 8 else 8, (1 << bits) - 1 if 8 < bits < 16 else None, num_pictures=pictures
    )


_START_OF_TILE_PART, _END_OF_CODESTREAM, _LEAST_MARKER = 0xFF90, 0xFFD9, 0xFF30


def _jpeg_2000(content: memoryview) -> ImageHeader:
    head = bytes(content[:4096])
    at = head.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise DamagedImageError("damaged: no image begins in its first 4096 bytes")
    _require_whole_codestream(content, at + 2)
    right, bottom, left, top = struct.unpack_from(">IIII", head, at + 8)
    bits = (head[at + 42] & 0x7F) + 1
    if head[at + 42] & 0x80 or bits > 16:
        return ImageHeader(right - left, bottom - top, not_read=f"its samples have a sign, or {bits} bits")
    white = (1 << bits) - 1 if 8 < bits < 16 else None
    return ImageHeader(max(right - left, 0), max(bottom - top, 0), 16 if bits > 8 else 8, white)


def _require_whole_codestream(content: memoryview, at: int) -> None:
    """Walk over the segments of a JPEG 2000 codestream to its end; a decoder may crash if the end is missing.

    Args:
        content: Content of the file.
        at: Position of the first segment.

    Raises:
        DamagedImageError: The codestream is truncated.
    """
    while True:
        (marker,) = struct.unpack_from(">H", content, at)
        if marker == _END_OF_CODESTREAM:
            return
        (length,) = struct.unpack_from(">H", content, at + 2)
        if marker == _START_OF_TILE_PART:
            (length,) = struct.unpack_from(">I", content, at + 6)
            # The last tile part may omit its length: it ends with the codestream.
            if not length and content.obj.rfind(b"\xff\xd9", at) < 0:  # type: ignore[attr-defined]
                raise DamagedImageError("cut short: the end-of-codestream marker is missing")
            if not length:
                return
            length -= 2
        elif marker < _LEAST_MARKER or length < 2:
            raise DamagedImageError(f"damaged: no segment of a codestream begins at byte {at}")
        at += 2 + length
        if at + 2 > len(content):
            raise DamagedImageError(f"cut short: its codestream continues at byte {at} of {len(content)}")


def _sun_raster(content: memoryview) -> ImageHeader:
    width, height = struct.unpack_from(">II", content, 4)
    return ImageHeader(width, height)
