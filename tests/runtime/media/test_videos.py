from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from yolact_runtime.errors import MediaError
from yolact_runtime.media.images import IMAGE_SUFFIXES
from yolact_runtime.media.videos import VIDEO_SUFFIXES, VideoReader, VideoWriter

Frame = npt.NDArray[np.uint8]


def _frame(height: int = 20, width: int = 30) -> Frame:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_suffixes_are_lower_case_and_do_not_overlap() -> None:
    assert not IMAGE_SUFFIXES & VIDEO_SUFFIXES
    for suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        assert suffix == suffix.lower()
        assert suffix.startswith(".")


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
