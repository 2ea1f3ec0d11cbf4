from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hostile_images import healthy_images
from yolact_runtime.formats.file_format import IMAGE_SUFFIXES, VIDEO_SUFFIXES, FileKind, format_of

KINDS = [
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "", "a JPEG image", "image"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", ".mjpeg", "a Motion JPEG stream", "video"),
    (b"II+\0\x08\0\0\0" + bytes(8), "", "a TIFF image", "image"),
    (b"MM\0+\0\x08\0\0" + bytes(8), "", "a TIFF image", "image"),
    (b"\0\0\0\x1cftypM4A \0\0\0\0", "", "an MP4 with sound alone", "other"),
    (b"P7\nWIDTH 2\n", "", "a portable anymap (PBM, PGM, PPM or PAM)", "image"),
    (b"P1 # bits\n2 2 1 0 0 1\n", "", "a portable anymap (PBM, PGM, PPM or PAM)", "image"),
    (b"PF\n2 2\n-1.0\n", "", "a portable float map", "image"),
    (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "", "an AVIF image", "image"),
    (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "", "an AVIF image", "image"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "", "a HEIC image", "image"),
    (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "", "a camera's raw file", "image"),
    (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", ".jpg", "an MP4 or QuickTime video", "video"),
    (b"\0\0\x30\0moov", "", "an MP4 or QuickTime video", "video"),
    (b"\0\0\0\x01mdat", "", "an MP4 or QuickTime video", "video"),
    (b"RIFF\x10\0\0\0AVI LIST", "", "an AVI video", "video"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "", "a WebP image", "image"),
    (b"\x1a\x45\xdf\xa3\x01\0\0\0", "", "a Matroska or WebM video", "video"),
    (b"\0\0\x01\xba\x44", "", "an MPEG program stream", "video"),
    ((b"\x47" + bytes(187)) * 6, "", "an MPEG transport stream", "video"),
    ((bytes(4) + b"\x47" + bytes(187)) * 6, ".m2ts", "an MPEG transport stream", "video"),
    (b"FLV\x01\x05", "", "an FLV video", "video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "", "an ASF or WMV video", "video"),
    (b"OggS\0\2", "", "an Ogg stream", "video"),
    (b"\0\0\0\x01\x67\x42", ".h264", "an H.264 or H.265 stream", "video"),
    (b"\0\0\x01\x40\x01", ".hevc", "an H.264 or H.265 stream", "video"),
    (b"PK\x03\x04\x14\0", ".npz", "a NumPy archive", "archive"),
    (b"PK\x03\x04\x14\0", ".zip", "a ZIP archive", "other"),
    (b"\0\5\x16\7\0\2\0\0", ".jpg", "an AppleDouble companion, which macOS writes beside files", "other"),
    (b'{"images": []}', ".json", "text", "other"),
    ("ä".encode() * 600, ".txt", "text", "other"),
]


@pytest.mark.parametrize(("head", "suffix", "name", "kind"), KINDS)
def test_a_format_is_known_by_its_first_bytes(head: bytes, suffix: str, name: str, kind: str) -> None:
    found = format_of(head[:1024], suffix)
    assert found is not None
    assert (found.name, found.kind) == (name, FileKind(kind))


@pytest.mark.parametrize("head", [b"", b"\0", b"\xff\xd8", b"BM", b"BMW drives fast", b"\0\0\0\x01\x67", bytes(1024)])
def test_what_begins_like_nothing_known_is_no_image(head: bytes) -> None:
    found = format_of(head)
    assert found is None or found.kind is FileKind.OTHER


@given(head=st.binary(max_size=1100), suffix=st.sampled_from(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES | {""})))
def test_any_bytes_have_a_format_or_none(head: bytes, suffix: str) -> None:
    found = format_of(head[:1024], suffix)
    assert found is None or found.name


def test_every_healthy_image_is_one_whatever_its_name() -> None:
    for content in healthy_images().values():
        for suffix in ("", ".txt", ".mp4"):
            found = format_of(content[:1024], suffix)
            assert found is not None
            assert found.kind is FileKind.IMAGE


def test_a_bitmap_is_more_than_two_letters() -> None:
    header = b"BM" + bytes(12) + struct.pack("<I", 40)
    found = format_of(header)
    assert found is not None
    assert found.name == "a BMP image"


def test_suffixes_are_lower_case_and_do_not_overlap() -> None:
    assert not IMAGE_SUFFIXES & VIDEO_SUFFIXES
    for suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")
