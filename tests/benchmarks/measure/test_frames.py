from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from support.recorder import Recorder
from yolact_benchmarks.measure.frames import camera_frames, drawn_frames, read_frames
from yolact_runtime.errors import MediaError
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import write_image


def test_drawn_frames_are_always_the_same_and_take_turns() -> None:
    one, other = drawn_frames(128, 72, count=2), drawn_frames(128, 72, count=2)
    assert (one.name, one.source) == ("128x72", "drawn scenes, seeds 0 to 1")
    assert [frame.shape for frame in one.frames] == [(72, 128, 3)] * 2
    assert all(np.array_equal(a, b) for a, b in zip(one.frames, other.frames, strict=True))
    cycle = one.cycle()
    first, second, third = next(cycle), next(cycle), next(cycle)
    assert first is third
    assert not np.array_equal(first, second)


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    for i in range(40):
        write_image(tmp_path / f"{i:02d}.png", np.full((4, 6, 3), i, np.uint8))
    frames, paths = read_frames([str(tmp_path)], ImageReader())
    assert (len(frames.frames), paths[1].name, frames.name) == (32, "01.png", "6x4")
    write_image(tmp_path / "00.png", np.zeros((5, 6, 3), np.uint8))
    assert read_frames([str(tmp_path)], ImageReader())[0].name == "2 sizes"


class Camera:
    """``cv2.VideoCapture`` of a camera that gives so many frames."""

    def __init__(self, left: int) -> None:
        self.left, self.is_open = left, True

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's name
        return self.left > 0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (False, None) if self.left < 0 else (True, np.full((6, 8, 3), self.left, np.uint8))

    def release(self) -> None:
        self.is_open = False


@pytest.mark.parametrize(
    ("left", "message"), [(0, "there is no camera 1"), (9, r"camera 1 delivered 9 frames and then none; 37 are needed")]
)
def test_a_camera_that_gives_nothing(monkeypatch: pytest.MonkeyPatch, left: int, message: str) -> None:
    camera = Camera(left)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: camera)
    with pytest.raises(MediaError, match=message):
        camera_frames(1)
    assert not camera.is_open


def test_what_a_camera_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(100)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: camera)
    frames = camera_frames(0)
    assert (len(frames.frames), frames.name, frames.source) == (32, "8x6", "camera 0, 32 frames")
    assert frames.frames[0][0, 0, 0] == 94
    assert not camera.is_open


def test_no_picture_is_said(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="contains no image"):
        read_frames([str(tmp_path)], ImageReader())
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match="no picture there"):
        read_frames([str(tmp_path)], ImageReader())


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    for i in range(40):
        write_image(tmp_path / f"{i:02d}.png", np.full((4, 6, 3), i, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    told = Recorder()
    read_frames([str(tmp_path)], ImageReader(), told)
    assert told.lines == [
        "1 file is left out: 1 that is neither image nor video (notes.txt)",
        "the first 32 of 40 pictures are used",
    ]
