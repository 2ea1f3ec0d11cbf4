from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from yolact_runtime.errors import MediaError, MissingDependencyError
from yolact_runtime.media.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    VideoReader,
    VideoWriter,
    encode_image,
    read_image,
    text_coverage,
    write_image,
)

Frame = npt.NDArray[np.uint8]


def _frame(height: int = 20, width: int = 30) -> Frame:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- images -----------------------------------------------------------------------------------------------------------


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
        (b"hello", "not an image that OpenCV can decode"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an image that OpenCV can decode"),
        (b"\xff\xd8\xff", "not an image that OpenCV can decode"),
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


@pytest.mark.parametrize("version", [4, 5])
def test_opencv_is_silenced_in_the_way_of_its_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int
) -> None:
    levels: list[int] = []
    monkeypatch.delattr(cv2, "setLogLevel", raising=False)
    monkeypatch.delattr(cv2.utils, "logging", raising=False)
    if version == 4:
        monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    else:
        monkeypatch.setattr(cv2.utils, "logging", SimpleNamespace(setLogLevel=levels.append), raising=False)
    write_image(tmp_path / "a.png", _frame())
    assert levels == [0]


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # type: ignore[arg-type]  # makes the import fail
    with pytest.raises(MissingDependencyError, match=r"yolact-deploy\[video\]"):
        read_image(tmp_path / "a.png")


def test_suffixes_are_lower_case_and_do_not_overlap() -> None:
    assert not IMAGE_SUFFIXES & VIDEO_SUFFIXES
    for suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")


# --- videos -----------------------------------------------------------------------------------------------------------


def _write_video(path: Path, levels: list[int], size: tuple[int, int] = (32, 48), fps: float = 12.0) -> None:
    with VideoWriter(path, fps) as writer:
        for level in levels:
            writer.write(np.full((*size, 3), level, np.uint8))


def test_a_video_comes_back_frame_by_frame(tmp_path: Path) -> None:
    levels = [0, 60, 120, 180, 240]
    _write_video(tmp_path / "a.mp4", levels)
    assert _names(tmp_path) == ["a.mp4"]
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert reader.fps == pytest.approx(12, rel=0.01)
        assert reader.num_frames == 5
        frames = list(reader)
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 5
    np.testing.assert_allclose([frame.mean() for frame in frames], levels, atol=6)


def test_frames_belong_to_the_caller(tmp_path: Path) -> None:
    _write_video(tmp_path / "a.mp4", [0, 240])
    with VideoReader(tmp_path / "a.mp4") as reader:
        first, second = reader
    assert not np.shares_memory(first, second)
    assert first.mean() < 10 < 230 < second.mean()


def test_a_failed_video_leaves_no_file_and_keeps_an_old_one(tmp_path: Path) -> None:
    _write_video(tmp_path / "a.mp4", [0])
    old = (tmp_path / "a.mp4").read_bytes()

    def fail_in_the_middle() -> None:
        with VideoWriter(tmp_path / "a.mp4", 12) as writer:
            writer.write(_frame(32, 48))
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert _names(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == old


def test_a_video_has_its_name_only_once_it_is_complete(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 12) as writer:
        writer.write(_frame(32, 48))
        assert "a.mp4" not in _names(tmp_path)
    assert _names(tmp_path) == ["a.mp4"]


def test_a_video_without_frames_is_not_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 12):
        pass
    assert _names(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_files_that_are_no_videos(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"cannot read .*a\.mp4"), VideoReader(tmp_path / "a.mp4") as reader:
        list(reader)


def test_a_video_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"cannot read .*missing\.mp4: no such file"):
        VideoReader(tmp_path / "missing.mp4")


def test_a_video_cut_short(tmp_path: Path) -> None:
    _write_video(tmp_path / "a.mp4", [0, 100, 200])
    content = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cannot read .*cut\.mp4"), VideoReader(tmp_path / "cut.mp4") as reader:
        list(reader)


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("height", [8, 12, 20, 48])
@pytest.mark.parametrize("text", ["cat 0.90", "Wg|yj", "i", "?"])
def test_letters_are_covered_and_nothing_is_cut_off(text: str, height: int) -> None:
    coverage = text_coverage(text, height)
    assert coverage.dtype == np.float32
    assert 0 <= coverage.min() < coverage.max() <= 1
    assert coverage.max() > 0.4  # thin letters of eight pixels fall between two columns
    # The same line drawn with spaces around covers as much: no part of a letter lies outside the canvas.
    padded = text_coverage(f" {text} ", height)
    assert coverage.sum() >= 0.97 * padded.sum()
    assert height <= coverage.shape[0] <= 2 * height + 4


def test_characters_that_the_font_lacks_do_not_fail() -> None:
    assert text_coverage("猫 é", 12).max() > 0.5
    assert text_coverage("", 12).size == 0
