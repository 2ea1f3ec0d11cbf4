from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hostile_images import sample_picture
from support.properties import examples
from yolact_runtime.errors import MediaError
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import read_image

RGB = sample_picture()[:, :, ::-1]
GRAY = np.ascontiguousarray(RGB[:, :, 1])
HEIGHT, WIDTH = GRAY.shape


def _text(samples: npt.NDArray[Any], end: bytes = b"") -> bytes:
    return b"".join(b" ".join(b"%d" % value for value in row.reshape(-1)) + end + b"\n" for row in samples)


def _raw(samples: npt.NDArray[Any], white: int) -> bytes:
    return samples.astype(">u2" if white > 255 else "u1").tobytes()


def _pam(samples: npt.NDArray[Any], white: int, kind: str = "", lines: str = "", end: str = "\n") -> bytes:
    depth = samples.shape[2] if samples.ndim == 3 else 1
    named = f"TUPLTYPE {kind}{end}" if kind else ""
    head = f"P7{end}{lines}WIDTH {WIDTH}{end}HEIGHT {HEIGHT}{end}DEPTH {depth}{end}MAXVAL {white}{end}{named}ENDHDR\n"
    return head.encode() + _raw(samples, white)


def _scaled(white: int) -> npt.NDArray[Any]:
    return np.rint(RGB / 255 * white).astype(np.uint16)


@pytest.mark.parametrize("white", [1, 3, 100, 200, 254, 255, 511, 1023, 4095, 65535])
def test_every_kind_of_every_depth_is_the_same_picture(tmp_path: Path, white: int) -> None:
    colours, gray = _scaled(white), _scaled(white)[:, :, 1]
    half = np.full((HEIGHT, WIDTH, 1), white // 2, np.uint16)
    size = b"%d %d\n%d\n" % (WIDTH, HEIGHT, white)
    in_colour = {
        "p6": b"P6 " + size + _raw(colours, white),
        "p3": b"P3 " + size + _text(colours),
        "rgb": _pam(colours, white, "RGB"),
        "rgba": _pam(np.dstack([colours, half]), white, "RGB_ALPHA"),
        "comment": _pam(colours, white, "RGB", "# ENDHDR\n"),
        "windows": _pam(colours, white, "RGB", end="\r\n"),
    }
    in_gray = {
        "p5": b"P5 " + size + _raw(gray, white),
        "p2": b"P2 " + size + _text(gray),
        "p2 comments": b"P2#c\n" + size + _text(gray, b" # 9 9 9"),
        "nameless": _pam(gray, white),
        "gray": _pam(gray, white, "GRAYSCALE"),
        "graya": _pam(np.dstack([gray, half]), white, "GRAYSCALE_ALPHA"),
        "many comments": b"P5\n" + b"# a line of somebody's program\n" * 500 + size + _raw(gray, white),
    }
    path = tmp_path / "a.pnm"
    for files, picture in ((in_colour, colours), (in_gray, np.repeat(gray[:, :, None], 3, axis=2))):
        expected = np.floor(picture[:, :, ::-1] / white * 255 + 0.5)
        for name, content in files.items():
            path.write_bytes(content)
            np.testing.assert_array_equal(ImageReader(16 if white == 65535 else None).read(path), expected, name)


def test_bitmaps(tmp_path: Path) -> None:
    black = (GRAY < 128).astype(np.uint8)
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    digits = [b"".join(b"%d" % bit for bit in row) for row in black]
    path = tmp_path / "a.pbm"
    for content in (
        b"P4\n" + size + np.packbits(black, axis=1).tobytes(),
        b"P1\n" + size + _text(black),
        b"P1\n" + size + b"# no spaces\n" + b"\n".join(digits),
        _pam(1 - black, 1, "BLACKANDWHITE"),
        _pam(np.dstack([1 - black, black]), 1, "BLACKANDWHITE_ALPHA"),
    ):
        path.write_bytes(content)
        np.testing.assert_array_equal(read_image(path)[:, :, 0], (1 - black) * 255)


def test_what_programs_write_behind_the_largest_value(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    for space in (b"\r\n", b"\n# by a program\n"):
        path.write_bytes(b"P5 %d %d 255%s" % (WIDTH, HEIGHT, space) + GRAY.tobytes())
        np.testing.assert_array_equal(read_image(path)[:, :, 1], GRAY)
    large = np.resize(GRAY, (1100, 1000))
    path.write_bytes(b"P5 1000 1100 255\r\n" + large.tobytes())
    np.testing.assert_array_equal(read_image(path)[:, :, 1], large)
    # A first sample of "#" is a sample.
    samples = GRAY.copy()
    samples[0, :3] = (0x23, 0x0A, 0x23)
    path.write_bytes(b"P5 %d %d 255\n" % (WIDTH, HEIGHT) + samples.tobytes())
    np.testing.assert_array_equal(read_image(path)[:, :, 1], samples)


ONE = b"P5 2 2 255\n" + bytes(4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (ONE + ONE, "2 pictures, of which only one would be read"),
        (b"P2 2 2 255\n1 2 3 4\nP2 2 2 255\n1 2 3 4", "several pictures"),
        (b"P1 2 2\n0110P1 2 2\n0110", "several pictures"),
        (ONE[:-1], "cut short: 2 x 2 pixels take 15 bytes, it has 14"),
        (b"P2 2 2 255\n1 2          3  ", "cut short: 4 samples are needed, it has 3"),
        (b"P2 2 2 255\n1 2 x 4", "damaged: 4 samples are needed, and 2 of them are followed by something else"),
        (b"P2 2 2 255\n1 2 -3 4", "2 of them are followed by something else"),
        (b"P2 2 2 255\n1 2 300 4", "it has the value 300, beyond 255"),
        (b"P2 2 2 100\n1 2 101 4", "it has the value 101, beyond 100"),
        (b"P2 2 2 4095\n1 2 99999 4", "it has the value 99999, beyond 4095"),
        (b"P2 2 2 4095\n1 2 999999999999999999999 4", "a sample is larger than 65535"),
        (b"P2 2 2 255\n                ", "cut short: 4 samples are needed, it has 0"),
        (b"P1 2 2\n01 2 1", "damaged"),
        (b"P1 2 2\n0 1 0      ", "cut short: 4 samples are needed, it has 3"),
        (b"P5 0 2 255\n", "its header says 0 x 2 pixels"),
        (b"P5 2 2 65536\n" + bytes(8), "the largest value in its header is 65536"),
        (b"P5 2 2 0\n" + bytes(8), "the largest value in its header is 0"),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 3\nMAXVAL 255\nENDHDR\n" + bytes(12), "no TUPLTYPE that says what they are"),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 4\nMAXVAL 9\nTUPLTYPE CMYK\nENDHDR\n" + bytes(16), "its samples are CMYK"),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 2\nMAXVAL 9\nTUPLTYPE RGB\nENDHDR\n" + bytes(8), "its TUPLTYPE RGB has 3"),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nENDHDR\n" + bytes(8), "names width, height, depth and maxval"),
        (b"P7\nWIDTH two\nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nENDHDR\n" + bytes(8), "a number in the header of a PAM"),
        (b"P7\nWIDTH 2\n", "the header of a PAM has no end"),
        (b"P6 # no more", "its header has no width, height and largest value"),
    ],
)
def test_anymaps_that_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.pnm"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read_image(path)
    assert reason in str(caught.value)


@examples(150)
@given(data=st.data())
def test_any_bytes_behind_a_magic_number_are_a_picture_or_refused(data: st.DataObject, tmp_path_factory: Any) -> None:
    head = data.draw(st.sampled_from([b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7\nWIDTH 1\nDEPTH 1\nMAXVAL 1\n"]))
    size = data.draw(st.sampled_from([b"", b" 2 2 ", b" 2 2 9 ", b" 2#\n2 300\n", b"HEIGHT 1\nTUPLTYPE RGB\nENDHDR\n"]))
    body = data.draw(st.one_of(st.binary(max_size=40), st.text("0123456789 #\nP-", max_size=40).map(str.encode)))
    path = tmp_path_factory.getbasetemp() / "any.pnm"
    path.write_bytes(head + size + body)
    try:
        frame = read_image(path)
    except MediaError:
        return
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
