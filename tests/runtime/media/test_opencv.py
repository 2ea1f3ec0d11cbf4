from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

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


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # type: ignore[arg-type]  # makes the import fail
    with pytest.raises(MissingDependencyError, match=r"yolact-deploy\[video\]"):
        read_image(tmp_path / "a.png")
