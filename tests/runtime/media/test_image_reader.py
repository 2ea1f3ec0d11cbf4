from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from support.hostile_images import png, sample_picture, tiff, with_chunk
from support.scenes import small_manifest
from yolact_plugins.command_line import CommandParser
from yolact_runtime.cpu.bit_depth import to_eight_bits
from yolact_runtime.cpu.preprocess import as_bgr
from yolact_runtime.errors import MediaError, UsageError
from yolact_runtime.media.image_reader import ImageReader, add_bit_depth_option, reader_for_model
from yolact_runtime.media.images import read_image

Samples = npt.NDArray[np.uint16]
GRAY = sample_picture()[:, :, 1].astype(np.uint16)
TWELVE: Samples = (GRAY << 4) | (GRAY >> 4)
"""Twelve bits, whose eight-bit form is exactly ``GRAY``."""
EXPECTED = np.repeat(GRAY.astype(np.uint8)[:, :, None], 3, axis=2)


def _pack(samples: Samples) -> bytes:
    """Two samples of twelve bits in three bytes; rows end at a byte."""
    rows = np.pad(samples, ((0, 0), (0, samples.shape[1] % 2))).astype(np.uint32)
    first, second = rows[:, ::2], rows[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)
    return b"".join(row.tobytes()[: -(-samples.shape[1] * 12 // 8)] for row in packed.reshape(len(packed), -1))


def _pgm(samples: Samples, white: int) -> bytes:
    height, width = samples.shape
    return b"P5\n# a comment\n%d %d\n%d\n" % (width, height, white) + samples.astype(">u2").tobytes()


STATED = {
    "sbit.png": with_chunk(png(TWELVE), b"sBIT", b"\x0c"),
    "sbit-scaled.png": with_chunk(png(TWELVE << 4 | TWELVE >> 8), b"sBIT", b"\x0c"),
    "max.tif": tiff(TWELVE, tags=((281, 4095),)),
    "smax.tif": tiff(TWELVE, tags=((341, 4095),), order=">"),
    "brightest.tif": tiff(TWELVE, tags=((281, int(TWELVE.max())),)),
    "packed.tif": tiff(TWELVE, bits=12, pixels=_pack(TWELVE), order=">"),
    "a.pgm": _pgm(TWELVE, 4095),
}


@pytest.mark.parametrize("name", STATED)
def test_what_a_file_states_decides(tmp_path: Path, name: str) -> None:
    path, told = tmp_path / name, []
    path.write_bytes(STATED[name])
    for reader in (ImageReader(warn=told.append), ImageReader(None, 10, told.append)):
        assert np.abs(reader.read(path).astype(int) - EXPECTED).max() <= 1
    np.testing.assert_array_equal(read_image(path), ImageReader().read(path))
    assert told == []


def test_a_largest_value_below_255(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 3 1 100\n" + bytes([0, 50, 100]))
    assert read_image(path)[0, :, 0].tolist() == [0, 128, 255]
    path.write_bytes(b"P5 3 1 100\n" + bytes([0, 50, 101]))
    with pytest.raises(MediaError):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_what_nobody_states_is_sixteen_bits_and_one_warning(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{letter}{suffix}" for letter in "ab"]
    for path in paths:
        cv2.imwrite(str(path), TWELVE)
    told: list[str] = []
    reader = ImageReader(warn=told.append)
    for path in paths:
        np.testing.assert_array_equal(reader.read(path)[:, :, 0], to_eight_bits(TWELVE, 16))
    assert told == [
        f"{paths[0]} has 16-bit samples, but none above {TWELVE.max()}, and does not state how many bits are "
        f"significant: it is read as 16 bits, and may be far too dark. If the camera has 12 bits, add --bit-depth "
        f"12; if not, --bit-depth 16"
    ]
    told.clear()
    for reader in (ImageReader(12, None, told.append), ImageReader(None, 12, told.append)):
        np.testing.assert_array_equal(reader.read(paths[0]), EXPECTED)
        # A frame of a program is scaled in the very same way.
        np.testing.assert_array_equal(reader.read(paths[0]), as_bgr(TWELVE, 12))
    assert told == []
    np.testing.assert_array_equal(read_image(paths[0], 12), EXPECTED)


def test_bright_and_black_pictures_of_sixteen_bits_raise_no_doubt(tmp_path: Path) -> None:
    told: list[str] = []
    reader = ImageReader(warn=told.append)
    for samples in (GRAY * np.uint16(257), np.zeros_like(GRAY)):
        (tmp_path / "a.png").write_bytes(png(samples))
        assert (reader.read(tmp_path / "a.png")[:, :, 0] == samples // 257).all()
    assert told == []


def test_values_beyond_the_bit_depth_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(GRAY * np.uint16(257)))
    reason = r"cannot read .*a\.png: it has the value \d+, beyond 4095, the largest of "
    with pytest.raises(MediaError, match=reason + "--bit-depth 12: is that right"):
        read_image(tmp_path / "a.png", 12)
    with pytest.raises(
        MediaError, match=reason + "12 bits, as the model states them: say what it has with --bit-depth"
    ):
        ImageReader(None, 12).read(tmp_path / "a.png")
    (tmp_path / "b.pgm").write_bytes(_pgm(TWELVE, 1023))
    with pytest.raises(MediaError, match="beyond 1023, the largest that its header allows"):
        read_image(tmp_path / "b.pgm")


def test_an_option_overrules_what_files_state_and_says_so_once(tmp_path: Path) -> None:
    told: list[str] = []
    reader = ImageReader(14, None, told.append)
    for name in ("max.tif", "a.pgm"):
        (tmp_path / name).write_bytes(STATED[name])
        np.testing.assert_array_equal(reader.read(tmp_path / name), as_bgr(TWELVE, 14))
    assert told == [
        f"{tmp_path / 'max.tif'} states that 4095 is its largest value; --bit-depth 14 overrides it, for this and all "
        f"other files"
    ]


def test_sbit_with_low_bits_that_are_all_zero_is_doubtful(tmp_path: Path) -> None:
    path, told = tmp_path / "a.png", []
    path.write_bytes(with_chunk(png(GRAY << 4), b"sBIT", b"\x0c"))
    reader = ImageReader(warn=told.append)
    np.testing.assert_array_equal(reader.read(path), as_bgr(GRAY << 4, 12))
    assert told == [
        f"{path} states 12 significant bits and has no value above {GRAY.max() << 4}: it is read as 12 bits. If it is "
        f"a dark picture on a scale of 16 bits, add --bit-depth 16"
    ]


@pytest.mark.parametrize(("bit_depth", "warnings"), [(16, 0), (12, 0), (13, 1)])
def test_an_option_ends_the_doubt_about_sbit(tmp_path: Path, bit_depth: int, warnings: int) -> None:
    (tmp_path / "a.png").write_bytes(with_chunk(png(GRAY << 4), b"sBIT", b"\x0c"))
    told: list[str] = []
    frame = ImageReader(bit_depth, None, told.append).read(tmp_path / "a.png")
    np.testing.assert_array_equal(frame, as_bgr(GRAY << 4, bit_depth))
    assert len(told) == warnings


def test_the_reader_of_a_model(tmp_path: Path) -> None:
    manifest = small_manifest()
    told: list[str] = []
    assert reader_for_model(None, manifest, told.append).usual_bit_depth is None
    spec = type(manifest.input)(**{**vars(manifest.input), "bit_depth": 12})
    manifest = type(manifest)(**{**vars(manifest), "input": spec})
    (tmp_path / "a.png").write_bytes(png(TWELVE))
    np.testing.assert_array_equal(reader_for_model(None, manifest, told.append).read(tmp_path / "a.png"), EXPECTED)
    assert told == []
    assert reader_for_model(10, manifest, told.append).bit_depth == 10
    assert told == [f"{manifest.name} was calibrated with images of 12 bits; --bit-depth 10 overrides it"]


def test_the_option() -> None:
    parser = CommandParser("tool", "A tool.")
    add_bit_depth_option(parser.general)
    assert parser.parse_args([]).bit_depth is None
    with pytest.raises(UsageError, match="bit_depth is the number of significant bits"):
        ImageReader(parser.parse_args(["--bit-depth", "20"]).bit_depth)


def test_another_process_reads_alike_and_warns_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(TWELVE))
    # A function of this test cannot be pickled: it stays behind.
    copy = pickle.loads(pickle.dumps(ImageReader(12, None, lambda _: None)))
    np.testing.assert_array_equal(copy.read(tmp_path / "a.png"), EXPECTED)
