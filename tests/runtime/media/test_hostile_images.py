from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.hostile_images import (
    gif,
    healthy_images,
    hostile_images,
    jpeg,
    png,
    sample_picture,
    tiff,
)
from support.properties import examples
from yolact_runtime.errors import MediaError
from yolact_runtime.media import image_decoding
from yolact_runtime.media.images import read_image

HEALTHY = healthy_images()


def _read_file(path: Path) -> np.ndarray | None:
    try:
        return read_image(path)
    except MediaError as error:
        reason = str(error)
    assert reason.startswith(f"cannot read {path}: ")
    return None


def _read(suffix: str, content: bytes) -> np.ndarray | None:
    """The image in a file of this content, or None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(content)
        return _read_file(path)


WHOLE = {suffix: _read(suffix, content) for suffix, content in HEALTHY.items()}


@pytest.mark.parametrize("suffix", HEALTHY)
def test_what_is_whole_is_read(suffix: str) -> None:
    image = WHOLE[suffix]
    assert image is not None
    assert (image.dtype, image.shape) == (np.uint8, (37, 53, 3))
    expected = sample_picture().astype(float)
    if suffix in {".gif", ".pgm", ".sixteen.png"}:
        expected = np.repeat(expected[:, :, 1:2] - (expected[:, :, 1:2] % 4 if suffix == ".gif" else 0), 3, axis=2)
    if suffix == ".gif":
        expected /= 2
    elif ".tif" in suffix and suffix != ".tif":
        expected = expected[:, :, ::-1]
    assert np.abs(image - expected).mean() < 6


@examples(300)
@given(suffix=st.sampled_from(sorted(HEALTHY)), fraction=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_short_is_refused_or_all_there(suffix: str, fraction: float) -> None:
    content = HEALTHY[suffix]
    image = _read(suffix, content[: int(fraction * len(content))])
    if image is not None:
        np.testing.assert_array_equal(image, WHOLE[suffix])


def test_every_cut_of_a_jpeg_2000_is_refused(tmp_path: Path) -> None:
    # OpenCV 4.10 crashes at some of them.
    content = HEALTHY[".jp2"]
    for length in range(1, len(content), 7):
        (tmp_path / "a.jp2").write_bytes(content[:length])
        with pytest.raises(MediaError, match=r"cut short|damaged|not an image"):
            read_image(tmp_path / "a.jp2")


@examples(300)
@given(suffix=st.sampled_from(sorted(HEALTHY)), data=st.data())
def test_changed_bytes_give_an_image_or_a_refusal(suffix: str, data: st.DataObject) -> None:
    content = bytearray(HEALTHY[suffix])
    # Headers are where it hurts; pixels are most of a file.
    place = st.integers(0, 60) | st.integers(0, len(content) - 1)
    for position in data.draw(st.lists(place, min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    image = _read(suffix, bytes(content))
    if image is not None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.size


@examples(100)
@given(head=st.sampled_from([content[:16] for content in HEALTHY.values()]), tail=st.binary(max_size=200))
def test_noise_behind_a_signature(head: bytes, tail: bytes) -> None:
    _read(".png", head + tail)


def test_every_hostile_file_is_refused_at_once_or_read_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused, read = set(), set()
    for kind, path in hostile_images(tmp_path, seed=3, cuts=3, flips=3):
        (refused if _read_file(path) is None else read).add(kind)
    assert len(refused) >= 13
    assert read == {"bytes changed"}
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_whose_pixels_stop_before_its_end_marker(tmp_path: Path) -> None:
    photo = jpeg(sample_picture())
    path = tmp_path / "a.jpg"
    path.write_bytes(photo[: (photo.index(b"\xff\xda") + len(photo)) // 2] + b"\xff\xd9")
    with pytest.raises(MediaError, match=r"a JPEG image, damaged: Corrupt JPEG data: premature end"):
        read_image(path)


def test_a_thumbnail_does_not_stand_for_the_end_of_a_photograph(tmp_path: Path) -> None:
    photo, path = jpeg(sample_picture()), tmp_path / "a.jpg"
    thumbnail = jpeg(sample_picture(8, 8))
    whole = photo[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + photo[2:]
    path.write_bytes(whole)
    assert read_image(path).shape == (37, 53, 3)
    path.write_bytes(whole[:-2])
    with pytest.raises(MediaError, match="the end-of-image marker is missing"):
        read_image(path)


def test_what_follows_an_image_does_no_harm(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png", ".gif", ".webp"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(HEALTHY[suffix] + bytes(64))
        np.testing.assert_array_equal(read_image(path), WHOLE[suffix])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "a.gif",
            gif([np.zeros((4, 4), np.uint8)] * 3),
            r"a GIF image with 3 pictures, of which only one would be read",
        ),
        ("a.tif", tiff(np.zeros((4, 4), np.uint8), pages=2), r"a TIFF image with 2 pictures"),
    ],
)
def test_several_pictures_in_a_file(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MediaError, match=reason):
        read_image(tmp_path / name)


def test_the_preview_of_a_page_is_no_page(tmp_path: Path) -> None:
    path, picture = tmp_path / "a.tif", sample_picture()
    path.write_bytes(tiff(picture, tags=((254, 1),), pages=2))
    np.testing.assert_array_equal(read_image(path), picture[:, :, ::-1])


def test_directories_that_form_a_ring(tmp_path: Path) -> None:
    content = bytearray(tiff(sample_picture()))
    (entries,) = struct.unpack_from("<H", content, 8)
    struct.pack_into("<I", content, 10 + 12 * entries, 8)
    (tmp_path / "a.tif").write_bytes(content)
    assert read_image(tmp_path / "a.tif").shape == (37, 53, 3)


def test_an_image_for_which_there_is_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, side = tmp_path / "a.png", 8200
    rows = zlib.compress(bytes((side + 1) * side))
    path.write_bytes(png(np.zeros((1, 1), np.uint8), size=(side, side), compressed=rows))
    monkeypatch.setattr(image_decoding, "_free_memory", lambda: 300_000_000)
    with pytest.raises(MediaError, match=r"8200 x 8200 pixels take 403\.4 MB of memory, and 300\.0 MB are free"):
        read_image(path)

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_decoding, "_free_memory", lambda: 1 << 40)
    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MediaError, match="not enough memory for 8200 x 8200"):
        read_image(path)


def test_a_still_gif_without_a_decoder_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV before 4.11 reads GIF as video only."""
    path = tmp_path / "a.gif"
    path.write_bytes(HEALTHY[".gif"])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    monkeypatch.setattr(cv2, "haveImageReader", lambda *_: False)
    np.testing.assert_array_equal(read_image(path), WHOLE[".gif"])


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    path = tmp_path / "a\udce9.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(60))
    with pytest.raises(MediaError, match="a HEIC image, damaged or of a kind"):
        read_image(path)


def test_a_jpeg_whose_decoder_lost_its_way_is_refused(tmp_path: Path) -> None:
    """After damaged bits the decoder is done too early, and says only that it skipped the rest."""
    content = jpeg(sample_picture(160, 240))
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(20):
        damaged = bytearray(content)
        for place in rng.integers(700, len(content) - 200, 16):
            damaged[place] ^= int(rng.integers(1, 256))
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(damaged)
        try:
            read_image(path)
        except MediaError as error:
            refused += 1
            assert "a JPEG image, damaged: " in str(error)  # noqa: PT017 - the other outcome
    assert refused >= 16


@pytest.mark.parametrize("padding", [b"\0" * 500, b"\xff" * 500, b"\x12\x34\x56"])
def test_what_cameras_pad_their_jpeg_with_does_no_harm(tmp_path: Path, padding: bytes) -> None:
    content = jpeg(sample_picture(160, 240))
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "b.jpg").write_bytes(content[:-2] + padding + content[-2:])
    assert (read_image(tmp_path / "a.jpg") == read_image(tmp_path / "b.jpg")).all()
