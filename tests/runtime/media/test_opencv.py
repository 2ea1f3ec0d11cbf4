from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from support import containers
from support.videos import write_with_opencv
from yolact_runtime.errors import MissingDependencyError
from yolact_runtime.media.images import read_image, write_image

Frame = npt.NDArray[np.uint8]


def _frame(height: int = 20, width: int = 30) -> Frame:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


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


def test_ffmpeg_inside_of_opencv_is_silent(tmp_path: Path) -> None:
    """In a process of its own: FFmpeg reads its level once, and writes past Python's ``sys.stderr``."""
    path = write_with_opencv(tmp_path / "a.mp4", "mp4v")
    path.write_bytes(containers.make_hole(path.read_bytes(), 0.4, 0.5))
    script = """
        import sys
        from pathlib import Path
        from yolact_runtime.media.video_writer import VideoWriter
        from yolact_runtime.media.videos import VideoReader
        folder = Path(sys.argv[1])
        with VideoReader(folder / "a.mp4") as reader, VideoWriter(folder / "b.webm", 12) as writer:
            for frame in reader:
                writer.write(frame.image)
        print(reader.faults)
    """
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_FFMPEG_LOGLEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "could not be decoded" in done.stdout
    assert done.stderr == ""


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # type: ignore[arg-type]  # makes the import fail
    with pytest.raises(MissingDependencyError, match=r"yolact-deploy\[video\]"):
        read_image(tmp_path / "a.png")
