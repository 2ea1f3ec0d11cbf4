from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from yolact_benchmarks.frames import drawn_frames, read_frames
from yolact_runtime.errors import MediaError
from yolact_runtime.media import write_image


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
    frames, paths = read_frames([str(tmp_path)])
    assert (len(frames.frames), paths[1].name, frames.name) == (32, "01.png", "6x4")
    write_image(tmp_path / "00.png", np.zeros((5, 6, 3), np.uint8))
    assert read_frames([str(tmp_path)])[0].name == "2 sizes"


def test_no_picture_is_said(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="holds no image"):
        read_frames([str(tmp_path)])
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match="no picture there"):
        read_frames([str(tmp_path)])
