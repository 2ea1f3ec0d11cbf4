"""Kinds of picture files that OpenCV would decode to something else, in silence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hostile_images import sample_picture, tiff, with_chunk
from support.properties import examples
from yolact_runtime.errors import MediaError
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import read_image

BGR = sample_picture()
RGB = np.ascontiguousarray(BGR[:, :, ::-1])
GRAY = np.ascontiguousarray(BGR[:, :, 1])
HALF = np.full((*GRAY.shape, 1), 128, np.uint8)


def _twelve(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Twelve bits, whose eight-bit form is exactly `samples`."""
    return samples.astype(np.uint16) << 4 | samples.astype(np.uint16) >> 4


def _read(folder: Path, content: bytes, name: str = "a") -> npt.NDArray[np.uint8]:
    path, told = folder / name, []
    path.write_bytes(content)
    frame = ImageReader(warn=told.append).read(path)
    assert told == []
    return frame


@pytest.mark.parametrize("order", ["<", ">"])
def test_where_zero_is_white(tmp_path: Path, order: Literal["<", ">"]) -> None:
    white_is_zero, twelve = (262, 0), 4095 - _twelve(GRAY)
    packed = np.packbits((twelve[:, :, None] >> np.arange(11, -1, -1) & 1).astype(np.uint8).reshape(len(GRAY), -1), 1)
    for content in (
        tiff(255 - GRAY, order=order, tags=[white_is_zero]),
        tiff(65535 - GRAY.astype(np.uint16) * 257, order=order, tags=[white_is_zero]),
        tiff(twelve, order=order, tags=[white_is_zero, (341, 4095)]),
        tiff(twelve, order=order, tags=[white_is_zero], bits=12, pixels=packed.tobytes()),
    ):
        np.testing.assert_array_equal(_read(tmp_path, content)[:, :, 1], GRAY)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alpha", [0, 1, 2])
def test_transparency_changes_no_colour(tmp_path: Path, order: Literal["<", ">"], alpha: int) -> None:
    extra, colour = (338, alpha), (262, 2)
    deep = np.dstack([RGB, HALF]).astype(np.uint16) * 257
    np.testing.assert_array_equal(_read(tmp_path, tiff(np.dstack([RGB, HALF]), order=order, tags=[extra, colour])), BGR)
    np.testing.assert_array_equal(_read(tmp_path, tiff(deep, order=order, tags=[extra, colour])), BGR)
    gray = tiff(np.dstack([GRAY[:, :, None], HALF]), order=order, tags=[extra])
    np.testing.assert_array_equal(_read(tmp_path, gray)[:, :, 1], GRAY)


def test_depth_is_that_of_the_colours_whatever_transparency_has(tmp_path: Path) -> None:
    full = np.full((*GRAY.shape, 1), 65535, np.uint16)
    tags = [(262, 2), (338, 2), (341, (4095, 4095, 4095, 65535))]
    np.testing.assert_array_equal(_read(tmp_path, tiff(np.dstack([_twelve(RGB), full]), tags=tags)), BGR)
    for kind, bits, samples, expected in (
        (6, b"\x0c\x0c\x0c\x10", np.dstack([_twelve(RGB), full]), BGR),
        (4, b"\x0c\x10", np.dstack([_twelve(GRAY), full]), np.repeat(GRAY[:, :, None], 3, 2)),
    ):
        np.testing.assert_array_equal(_read(tmp_path, with_chunk(_png(samples, kind), b"sBIT", bits)), expected)


def _png(samples: npt.NDArray[np.uint16], kind: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(RGB.astype(np.uint16), tags=[(284, 2)]), "PlanarConfiguration 2"),
        (tiff(GRAY.astype(np.int8)), "its samples have a sign"),
        (tiff(RGB, tags=[(262, 8)]), "its colours are CIE L*a*b*"),
        (tiff(GRAY.astype(np.uint16), tags=[(262, 32803)]), "its colours are those of a colour filter"),
        (tiff(np.dstack([RGB, HALF]).astype(np.uint16), tags=[(262, 5)]), "its colours are CMYK with 16 bits"),
        (tiff(GRAY.astype(np.uint16), tags=[(262, 3)]), "its colours are those of a palette with 16 bits"),
        (tiff(RGB, tags=[(262, 32845)]), "its colours are of kind 32845"),
        (tiff(RGB, tags=[(254, 1), (330, 8)]), "its first page is a preview"),
        (tiff(RGB, tags=[(50706, 1)]), "it is a camera's raw file (DNG)"),
        (tiff(RGB, tags=[(32997, 5)]), "5 pictures, of which only one would be read"),
        (tiff(GRAY, bits=4), "(1 x 4 bits a pixel, compression 1)"),
        (tiff(GRAY, tags=[(259, 60001)]), "the compression 60001; write it with Deflate"),
    ],
)
def test_what_opencv_takes_for_something_else_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read_image(path)
    assert reason in str(caught.value)


def test_a_preview_before_the_picture_is_not_taken_for_it(tmp_path: Path) -> None:
    preview, picture = tiff(RGB[::4, ::4], tags=[(254, 1)]), tiff(RGB)
    # The end of the preview's directory names the picture's, whose positions move along.
    at = 8 + 2 + 12 * struct.unpack_from("<H", preview, 8)[0]
    joined = preview[:at] + struct.pack("<I", len(preview)) + preview[at + 4 :] + _moved(picture, len(preview) - 8)
    path = tmp_path / "a.tif"
    path.write_bytes(joined)
    with pytest.raises(MediaError, match="its first page is a preview"):
        read_image(path)
    # Alone, it is what there is to see.
    assert _read(tmp_path, preview).shape == RGB[::4, ::4].shape


def _moved(file: bytes, by: int) -> bytes:
    """The directory and pixels of a TIFF with one page, for another place in a file."""
    content = bytearray(file[8:])
    (entries,) = struct.unpack_from("<H", content, 0)
    for at in range(2, 2 + 12 * entries, 12):
        tag, kind, count, value = struct.unpack_from("<HHII", content, at)
        size = count * (4 if kind == 4 else 2)
        if size > 4:
            struct.pack_into("<I", content, at + 8, value + by)
            if tag == 273:
                for number in range(count):
                    place = value - 8 + 4 * number
                    struct.pack_into("<I", content, place, struct.unpack_from("<I", content, place)[0] + by)
    return bytes(content)


DEFLATED = zlib.compress(RGB.tobytes())


@examples(100)
@given(at=st.integers(0, len(DEFLATED) - 1), change=st.integers(1, 255), compression=st.sampled_from([8, 32946]))
def test_a_damaged_byte_of_a_deflated_tiff_is_noticed(
    tmp_path_factory: Any, at: int, change: int, compression: int
) -> None:
    pixels = bytearray(DEFLATED)
    pixels[at] ^= change
    path = tmp_path_factory.getbasetemp() / "deflated.tif"
    path.write_bytes(tiff(RGB, tags=[(259, compression)], pixels=DEFLATED))
    np.testing.assert_array_equal(read_image(path), BGR)
    path.write_bytes(tiff(RGB, tags=[(259, compression)], pixels=bytes(pixels)))
    try:
        frame = read_image(path)
    except MediaError:
        return
    # Bits of the header that say how it was compressed change nothing.
    np.testing.assert_array_equal(frame, BGR)


def test_an_unknown_tag_is_no_damage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(GRAY, tags=[(65000, 3)]))
    np.testing.assert_array_equal(read_image(path)[:, :, 1], GRAY)
    assert capfd.readouterr().err == ""


def _webp(orientation: int, *, prefix: bytes = b"") -> bytes:
    """Without loss, with an orientation in its EXIF."""
    plain = cv2.imencode(".webp", BGR, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    exif = prefix + b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    height, width = GRAY.shape
    extended = struct.pack("<I", 8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts: list[tuple[bytes, bytes]] = [(b"VP8X", extended), (b"EXIF", exif)]
    chunks = [kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in parts]
    body = b"WEBP" + chunks[0] + plain[12:] + chunks[1]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_webp_is_turned_upright_by_every_opencv(tmp_path: Path, prefix: bytes) -> None:
    turned: dict[int, Any] = {
        1: BGR,
        2: BGR[:, ::-1],
        3: BGR[::-1, ::-1],
        4: BGR[::-1],
        5: BGR.transpose(1, 0, 2),
        6: np.rot90(BGR, -1),
        7: np.rot90(BGR.transpose(1, 0, 2), 2),
        8: np.rot90(BGR),
        9: BGR,
    }
    for orientation, expected in turned.items():
        np.testing.assert_array_equal(_read(tmp_path, _webp(orientation, prefix=prefix)), expected, str(orientation))
