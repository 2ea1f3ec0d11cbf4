"""Detection of file formats by their first bytes; names and suffixes are used only if the bytes are inconclusive."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["HEAD_BYTES", "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "FileFormat", "FileKind", "format_of"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HEAD_BYTES = 1024
"""Number of bytes that :func:`format_of` needs."""

IMAGE_SUFFIXES = _words(
    ".avif .bmp .dib .exr .gif .hdr .heic .heif .jfif .jp2 .jpe .jpeg .jpg .jxl "
    ".pam .pbm .pfm .pgm .pic .png .pnm .ppm .ras .sr .tif .tiff .webp"
)
"""Suffixes of files that are expected to be images; their content decides."""

VIDEO_SUFFIXES = _words(
    ".264 .265 .3gp .asf .avi .flv .h264 .h265 .hevc .m2ts .m4v .mjpeg .mjpg .mkv "
    ".mov .mp4 .mpeg .mpg .mts .ogg .ogv .ts .webm .wmv"
)
"""Suffixes of files that are expected to be videos."""


class FileKind(enum.Enum):
    """Possible uses of a file."""

    IMAGE = "image"
    VIDEO = "video"
    ARCHIVE = "archive"
    OTHER = "other"


@dataclass(frozen=True)
class FileFormat:
    """A known file format.

    Attributes:
        name: Name with its article, for messages: ``"a JPEG image"``.
        kind: Possible use of such a file.
    """

    name: str
    kind: FileKind


JPEG = FileFormat("a JPEG image", FileKind.IMAGE)
PNG = FileFormat("a PNG image", FileKind.IMAGE)
GIF = FileFormat("a GIF image", FileKind.IMAGE)
WEBP = FileFormat("a WebP image", FileKind.IMAGE)
TIFF = FileFormat("a TIFF image", FileKind.IMAGE)
BMP = FileFormat("a BMP image", FileKind.IMAGE)
PNM = FileFormat("a portable anymap (PBM, PGM, PPM or PAM)", FileKind.IMAGE)
PFM = FileFormat("a portable float map", FileKind.IMAGE)
AVIF = FileFormat("an AVIF image", FileKind.IMAGE)
HEIC = FileFormat("a HEIC image", FileKind.IMAGE)
JPEG_2000 = FileFormat("a JPEG 2000 image", FileKind.IMAGE)
JPEG_XL = FileFormat("a JPEG XL image", FileKind.IMAGE)
OPEN_EXR = FileFormat("an OpenEXR image", FileKind.IMAGE)
RADIANCE = FileFormat("a Radiance HDR image", FileKind.IMAGE)
SUN_RASTER = FileFormat("a Sun raster image", FileKind.IMAGE)
RAW_PHOTO = FileFormat("a camera's raw file", FileKind.IMAGE)
ISO_VIDEO = FileFormat("an MP4 or QuickTime video", FileKind.VIDEO)
NUMPY_ARCHIVE = FileFormat("a NumPy archive", FileKind.ARCHIVE)
APPLE_DOUBLE = FileFormat("an AppleDouble companion, which macOS writes beside files", FileKind.OTHER)
GIT_LFS_POINTER = FileFormat("a Git LFS pointer; fetch the file itself with git lfs pull", FileKind.OTHER)
TEXT = FileFormat("text", FileKind.OTHER)

_MAGIC: tuple[tuple[bytes, FileFormat], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0\x10\0\0\0CR", RAW_PHOTO),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0\x08\0\0\0", TIFF),
    (b"MM\0+\0\x08\0\0", TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", JPEG_2000),
    (b"\xff\x4f\xff\x51", JPEG_2000),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JPEG_XL),
    (b"\xff\x0a", JPEG_XL),
    (b"v/1\x01", OPEN_EXR),
    (b"#?RADIANCE", RADIANCE),
    (b"#?RGBE", RADIANCE),
    (b"\x59\xa6\x6a\x95", SUN_RASTER),
    (b"\x1a\x45\xdf\xa3", FileFormat("a Matroska or WebM video", FileKind.VIDEO)),
    (b"\0\0\x01\xba", FileFormat("an MPEG program stream", FileKind.VIDEO)),
    (b"\0\0\x01\xb3", FileFormat("an MPEG video stream", FileKind.VIDEO)),
    (b"FLV\x01", FileFormat("an FLV video", FileKind.VIDEO)),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", FileFormat("an ASF or WMV video", FileKind.VIDEO)),
    (b"OggS", FileFormat("an Ogg stream", FileKind.VIDEO)),
    (b"DKIF", FileFormat("an IVF video", FileKind.VIDEO)),
    (b"YUV4MPEG2", FileFormat("a YUV4MPEG2 video", FileKind.VIDEO)),
    (b"\0\x05\x16\x07", APPLE_DOUBLE),
    (b"\0\x05\x16\0", APPLE_DOUBLE),
    (b"version https://git-lfs", GIT_LFS_POINTER),
    (b"%PDF-", FileFormat("a PDF document", FileKind.OTHER)),
    (b"\x93NUMPY", FileFormat("a NumPy array; numpy.savez makes an archive of it", FileKind.OTHER)),
    (b"PK\x03\x04", FileFormat("a ZIP archive", FileKind.OTHER)),
    (b"\x1f\x8b", FileFormat("a gzip archive", FileKind.OTHER)),
    (b"\x89HDF", FileFormat("an HDF5 file", FileKind.OTHER)),
    (b"8BPS", FileFormat("a Photoshop document", FileKind.OTHER)),
    (b"\0\0\x01\0", FileFormat("an icon", FileKind.OTHER)),
    (b"\xd0\xcf\x11\xe0", FileFormat("an OLE document", FileKind.OTHER)),
    (b"<!DOCTYPE", FileFormat("an HTML page", FileKind.OTHER)),
    (b"<!doctype", FileFormat("an HTML page", FileKind.OTHER)),
    (b"<html", FileFormat("an HTML page", FileKind.OTHER)),
    (b"<svg", FileFormat("an SVG drawing", FileKind.OTHER)),
    (b"<?xml", FileFormat("an XML document", FileKind.OTHER)),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), HEIC),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P "), FileFormat("an MP4 with sound alone", FileKind.OTHER)),
    b"crx ": RAW_PHOTO,
}
_STREAM_SUFFIXES = frozenset({".264", ".265", ".h264", ".h265", ".hevc"})
_ISO_BOXES = frozenset({b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
_TS_PACKET = 188


def format_of(head: bytes, suffix: str = "") -> FileFormat | None:
    """Detect the format of a file.

    Args:
        head: First bytes of the file: :data:`HEAD_BYTES`, or the whole file.
        suffix: File name suffix with the dot; it decides between formats with the same first bytes.

    Returns:
        The format; None if it is unknown.
    """
    suffix = suffix.lower()
    if head[:2] == b"BM" and len(head) >= 18 and head[14:18] in _BMP_HEADERS:
        return BMP
    if head[:1] == b"P" and head[1:2] in b"1234567Ff" and head[2:3] in {b" ", b"\t", b"\r", b"\n", b"#"}:
        return PFM if head[1:2] in b"Ff" else PNM
    for magic, file_format in _MAGIC:
        if head.startswith(magic):
            return _by_suffix(file_format, suffix)
    return _container(head) or _stream(head, suffix) or (TEXT if _is_text(head) else None)


_BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _by_suffix(file_format: FileFormat, suffix: str) -> FileFormat:
    if file_format is JPEG and suffix in {".mjpeg", ".mjpg"}:
        return FileFormat("a Motion JPEG stream", FileKind.VIDEO)
    if file_format.name == "a ZIP archive" and suffix == ".npz":
        return NUMPY_ARCHIVE
    return file_format


def _container(head: bytes) -> FileFormat | None:
    """Detect formats whose magic number is not at the very beginning."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        size = min(int.from_bytes(head[:4], "big"), len(head))
        # "mif1" stands for any image: the compatible brands say which.
        others = [head[at : at + 4] for at in range(16, size, 4)]
        if brand in {b"mif1", b"msf1"} and b"avif" in others:
            return AVIF
        return _BRANDS.get(brand, ISO_VIDEO)
    if head[4:8] in _ISO_BOXES:
        return ISO_VIDEO
    if head[:4] in {b"RIFF", b"RF64"}:
        form = head[8:12]
        if form == b"WEBP":
            return WEBP
        if form in {b"AVI ", b"AVIX"}:
            return FileFormat("an AVI video", FileKind.VIDEO)
    return None


def _stream(head: bytes, suffix: str) -> FileFormat | None:
    """Detect streams without a header."""
    # Transport streams of cameras begin every packet with four bytes of time.
    for first, step in ((0, _TS_PACKET), (4, _TS_PACKET + 4)):
        marks = head[first : first + 4 * step : step]
        if len(marks) == 4 and set(marks) == {0x47}:
            return FileFormat("an MPEG transport stream", FileKind.VIDEO)
    if suffix in _STREAM_SUFFIXES and head.lstrip(b"\0")[:1] == b"\x01" and head[:2] == b"\0\0":
        return FileFormat("an H.264 or H.265 stream", FileKind.VIDEO)
    return None


def _is_text(head: bytes) -> bool:
    if not head or b"\0" in head:
        return False
    try:
        # The last character may be incomplete.
        head[:-4].decode("utf-8") if len(head) == HEAD_BYTES else head.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return min(head) >= 7
