"""Image files that occur in the field: truncated, damaged, with false headers, or not files at all.

All are made here, byte by byte if OpenCV cannot write them, and are the same for the same seed.
"""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["gif", "healthy_images", "hostile_images", "jpeg", "png", "sample_picture", "tiff", "with_chunk"]

Picture = npt.NDArray[np.uint8]


def sample_picture(height: int = 37, width: int = 53, seed: int = 0) -> Picture:
    """Return an image of soft noise, ``(H, W, 3)`` uint8, so that every format has something to compress."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2).astype(np.uint8)


def healthy_images(seed: int = 0) -> dict[str, bytes]:
    """Return a valid file of :func:`sample_picture` by suffix, for every format that can be written everywhere."""
    picture = sample_picture(seed=seed)
    suffixes = (".jpg", ".png", ".webp", ".bmp", ".ppm", ".jp2", ".tif", ".ras")
    files = {suffix: cv2.imencode(suffix, picture)[1].tobytes() for suffix in suffixes}
    files[".pgm"] = cv2.imencode(".pgm", picture[:, :, 1])[1].tobytes()
    files[".progressive.jpg"] = jpeg(picture, progressive=True)
    files[".strips.tif"] = tiff(picture)
    files[".sixteen.png"] = png(picture.astype(np.uint16)[:, :, 1] * 257)
    files[".sixteen.tif"] = tiff(picture.astype(np.uint16) * 257, order=">")
    files[".gif"] = gif([(picture[:, :, 1] // 4).astype(np.uint8)])
    files[".lossy.webp"] = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 60])[1].tobytes()
    return files


def jpeg(picture: Picture, *, progressive: bool = False) -> bytes:
    """Encode an image as a JPEG file."""
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])[1].tobytes())


def png(
    samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    *,
    size: tuple[int, int] | None = None,
    compressed: bytes | None = None,
) -> bytes:
    """Encode ``(H, W)`` samples as a gray PNG file.

    Args:
        samples: Samples, uint8 or uint16.
        size: Wrong height and width for the header.
        compressed: False content for the pixels.
    """
    height, width = size or samples.shape
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows) if compressed is None else compressed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def with_chunk(file: bytes, kind: bytes, content: bytes) -> bytes:
    """Insert a chunk behind the header of a PNG file."""
    return file[:33] + _chunk(kind, content) + file[33:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(
    picture: npt.NDArray[np.generic],
    *,
    order: Literal["<", ">"] = "<",
    tags: Sequence[tuple[int, int | Sequence[int]]] = (),
    bits: int | None = None,
    pixels: bytes | None = None,
    pages: int = 1,
    rows_per_strip: int = 8,
) -> bytes:
    """Encode samples as an uncompressed TIFF file, ``(H, W)`` or ``(H, W, 3)`` RGB, with its directories before its
    pixels.

    Args:
        picture: Samples of any dtype.
        order: Byte order, ``"<"`` or ``">"``.
        tags: Additional or replaced tags, each with one or several 16-bit values.
        bits: Bits per sample, for packed `pixels`.
        pixels: Packed pixels, one strip.
        pages: Number of pages, all the same.
        rows_per_strip: Number of rows in a strip; ignored with `pixels`.
    """
    height, width = picture.shape[:2]
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if pixels is None:
        data = picture.astype(picture.dtype.newbyteorder(order))
        strips = [data[row : row + rows_per_strip].tobytes() for row in range(0, height, rows_per_strip)]
    else:
        strips, rows_per_strip = [pixels], height
    bits = 8 * picture.dtype.itemsize if bits is None else bits
    values = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [2 if channels == 3 else 1]}
    values |= {277: [channels], 278: [rows_per_strip]} | {
        tag: [value] if isinstance(value, int) else list(value) for tag, value in tags
    }
    if picture.dtype.kind == "f":
        values[339] = [3] * channels
    elif picture.dtype.kind == "i":
        values[339] = [2] * channels
    file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for page in range(pages):
        file += _page(len(file), values, strips, order, is_last=page == pages - 1)
    return file


def _page(start: int, values: dict[int, list[int]], strips: list[bytes], order: str, *, is_last: bool) -> bytes:
    """Return a directory, the values that are too long for it, and its pixels."""
    values = {**values, 273: [0] * len(strips), 279: [len(strip) for strip in strips]}
    long = {273, 279}
    beyond = start + 2 + 12 * len(values) + 4
    sizes = {tag: len(v) * (4 if tag in long else 2) for tag, v in values.items()}
    first_pixel = beyond + sum(size for size in sizes.values() if size > 4)
    values[273] = [first_pixel + sum(map(len, strips[:i])) for i in range(len(strips))]
    directory, extra = struct.pack(order + "H", len(values)), b""
    for tag in sorted(values):
        code, number = ("I", 4) if tag in long else ("H", 3)
        packed = struct.pack(f"{order}{len(values[tag])}{code}", *values[tag])
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(order + "I", beyond + len(extra))
        directory += struct.pack(order + "HHI", tag, number, len(values[tag])) + packed.ljust(4, b"\0")
    pixels = b"".join(strips)
    pixels += bytes(len(pixels) % 2)
    return directory + struct.pack(order + "I", 0 if is_last else first_pixel + len(pixels)) + extra + pixels


def gif(pictures: Sequence[Picture]) -> bytes:
    """Encode ``(H, W)`` gray images with values below 128 as a GIF file; several images make an animation.

    The codes have eight bits, and a new table starts before nine would be needed: there is no compression.
    """
    height, width = pictures[0].shape
    palette = b"".join(bytes([2 * value] * 3) for value in range(128))
    file = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF6, 0, 0) + palette
    for picture in pictures:
        file += b"\x21\xf9\x04\x04\x05\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x07"
        codes = bytearray()
        for place, value in enumerate(picture.ravel().tolist()):
            if place % 100 == 0:
                codes.append(128)
            codes.append(value)
        codes.append(129)
        blocks = [bytes(codes[at : at + 255]) for at in range(0, len(codes), 255)]
        file += b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return file + b"\x3b"


def hostile_images(folder: Path, seed: int = 0, cuts: int = 5, flips: int = 5) -> Iterator[tuple[str, Path]]:
    """Write files that must be refused with an error message or read correctly; yield (kind, path).

    Args:
        folder: Existing folder to write to.
        seed: Random seed.
        cuts: Number of truncated files of each format.
        flips: Number of files with a few changed bytes, of each format.
    """
    rng = np.random.default_rng(seed)
    for suffix, content in healthy_images(seed).items():
        for number in range(cuts):
            length = int(rng.integers(1, len(content)))
            yield "cut short", _write(folder / f"cut-{number}{suffix}", content[:length])
        for number in range(flips):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 1 + number):
                damaged[place] ^= int(rng.integers(1, 256))
            yield "bytes changed", _write(folder / f"flipped-{number}{suffix}", bytes(damaged))
    for name, content in _lies().items():
        yield "header that lies", _write(folder / f"lie-{name}", content)
    for name, content in _strangers().items():
        yield "something else by that name", _write(folder / f"stranger-{name}", content)
    for name, content in _unreadable().items():
        yield "samples or pages that are not read", _write(folder / f"kind-{name}", content)
    yield from _no_files(folder)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _lies() -> dict[str, bytes]:
    """Return small files that claim many pixels, or whose pixels do not match their header."""
    small, photo = np.zeros((4, 4), np.uint8), jpeg(sample_picture())
    frame = photo.index(b"\xff\xc0")
    scan = photo.index(b"\xff\xda")
    middle = (scan + len(photo)) // 2
    bmp = cv2.imencode(".bmp", sample_picture())[1].tobytes()
    return {
        "png-30000.png": png(small, size=(30000, 30000)),
        "png-beyond.png": png(small, size=(2**31 - 1, 2**31 - 1)),
        "png-zlib.png": png(small, compressed=b"\x78\x9c" + bytes(20)),
        "png-half.png": png(sample_picture()[:, :, 0], compressed=zlib.compress(bytes(37 * 54 // 2))),
        "jpeg-65500.jpg": photo[: frame + 5] + struct.pack(">HH", 65500, 65500) + photo[frame + 9 :],
        "jpeg-gray-half.jpg": photo[:middle] + b"\xff\xd9",
        "ppm.ppm": b"P6 30000 30000 255\n" + bytes(100),
        "ppm-beyond.ppm": b"P6 400000 400000 255\n" + bytes(100),
        "bmp.bmp": bmp[:18] + struct.pack("<ii", 30000, 30000) + bmp[26:],
        "tiff.tif": tiff(small, tags=((256, 30000), (257, 30000))),
        "gif.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif([small])[10:],
    }


def _strangers() -> dict[str, bytes]:
    return {
        "empty.png": b"",
        "one-byte.jpg": b"\xff",
        "text.jpg": b"not a picture\n",
        "page.png": b"<!DOCTYPE html><title>404</title>",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "document.png": b"%PDF-1.7\n",
        "archive.png": b"PK\x03\x04" + bytes(40),
        "zeros.png": bytes(5000),
        "._a.jpg": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60),
    }


def _unreadable() -> dict[str, bytes]:
    picture = sample_picture()[:, :, 0]
    photo = jpeg(sample_picture())
    frame = photo.index(b"\xff\xc0")
    return {
        "float.tif": tiff(picture.astype(np.float32)),
        "half.tif": tiff(picture.astype(np.float16)),
        "signed.tif": tiff(picture.astype(np.int16)),
        "wide.tif": tiff(picture.astype(np.uint32)),
        "pages.tif": tiff(picture, pages=3),
        "float.pfm": b"Pf\n2 2\n-1.0\n" + bytes(16),
        "light.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes(16),
        "twelve.jpg": photo[: frame + 4] + b"\x0c" + photo[frame + 5 :],
        "photo.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60),
    }


def _no_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield names in a folder that are not files, or files that must not be read whole."""
    yield "missing", folder / "missing.png"
    (folder / "loop.png").symlink_to(folder / "loop.png")
    yield "loop of links", folder / "loop.png"
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    yield "link to nothing", folder / "dangling.png"
    os.mkfifo(folder / "pipe.png")
    yield "FIFO", folder / "pipe.png"
    (folder / "device.png").symlink_to("/dev/zero")
    yield "device", folder / "device.png"
    (folder / "folder.png").mkdir()
    yield "folder", folder / "folder.png"
    with socket.socket(socket.AF_UNIX) as server:
        # The name of a socket has 107 characters at most.
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{descriptor}/socket.png")
        finally:
            os.close(descriptor)
    yield "socket", folder / "socket.png"
    with (folder / "huge.png").open("wb") as file:
        file.truncate(40 << 30)
    yield "sparse file of 40 GB", folder / "huge.png"
