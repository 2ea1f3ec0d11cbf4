from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from yolact_runtime.errors import MediaError
from yolact_runtime.media.images import encode_image, read_image, write_image

Frame = npt.NDArray[np.uint8]


def _frame(height: int = 20, width: int = 30) -> Frame:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_an_image_comes_back_blue_first(tmp_path: Path, suffix: str) -> None:
    frame = _frame()
    write_image(tmp_path / f"a{suffix}", frame)
    back = read_image(tmp_path / f"a{suffix}")
    assert (back == frame).all()
    assert back.dtype == np.uint8
    assert (cv2.imread(str(tmp_path / f"a{suffix}")) == frame).all()
    assert _names(tmp_path) == [f"a{suffix}"]


def test_an_image_in_memory_is_what_the_file_holds(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", _frame())
    assert encode_image(_frame(), ".png") == (tmp_path / "a.png").read_bytes()


def test_jpeg_gets_smaller_with_its_quality() -> None:
    sizes = [len(encode_image(_frame(90, 120), suffix, jpeg_quality=30)) for suffix in (".jpg", ".JPEG")]
    assert max(sizes) < len(encode_image(_frame(90, 120), ".jpg")) / 2


@pytest.mark.parametrize("suffix", [".xyz", ""])
def test_a_format_that_cannot_be_encoded(suffix: str) -> None:
    with pytest.raises(MediaError, match="cannot encode an image"):
        encode_image(_frame(), suffix)


@pytest.mark.parametrize("channels", [(), (4,)])
def test_gray_is_repeated_and_alpha_dropped(tmp_path: Path, channels: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (9, 7, *channels), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    expected = image[:, :, :3] if channels else np.repeat(image[:, :, None], 3, axis=2)
    assert (read_image(tmp_path / "a.png") == expected).all()


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 5, 3), 0x8000, np.uint16))
    image = read_image(tmp_path / "a.png")
    assert (image.dtype, image.shape) == (np.uint8, (4, 5, 3))
    assert (image == 128).all()


def test_names_beyond_ascii(tmp_path: Path) -> None:
    path = tmp_path / "Bär 猫 #1.png"
    write_image(path, _frame())
    assert (read_image(path) == _frame()).all()


def _jpeg_on_its_side() -> bytes:
    """Left half black, right half white, with the EXIF orientation 6: to be turned clockwise."""
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = 255
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(_jpeg_on_its_side())
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (16, 8, 3)
    assert image[:6].mean() < 20
    assert image[-6:].mean() > 235


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello", "named like an image, but not an image that OpenCV can decode: it is text"),
        (bytes(40), "named like an image, but not an image of a known format"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "a PNG image, damaged: it does not begin with the chunk IHDR"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image, cut short: the file ends inside its header"),
        (b"\xff\xd8\xff", "a JPEG image, cut short: the file ends before its pixels"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(MediaError, match=rf"cannot read .*a\.png: {reason}"):
        read_image(tmp_path / "a.png")


def test_an_image_larger_than_opencv_allows(tmp_path: Path) -> None:
    # A portable pixmap of 40000 x 40000 that consists of its header: OpenCV raises instead of returning nothing.
    (tmp_path / "a.ppm").write_bytes(b"P6 40000 40000 255\n" + bytes(100))
    with pytest.raises(MediaError, match=r"cannot read .*a\.ppm"):
        read_image(tmp_path / "a.ppm")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot read .*missing\.png: No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(MediaError, match=r"cannot read .*: Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_a_format_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=f"cannot write .*{name}"):
        write_image(tmp_path / name, _frame())
    assert _names(tmp_path) == []
