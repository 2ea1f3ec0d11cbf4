"""Every image is looked at once before the work begins."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.recorder import Recorder
from support.training_data import square, write_set
from yolact_calibration.data import image_check
from yolact_calibration.data.annotated_images import AnnotatedImages
from yolact_calibration.errors import DatasetError
from yolact_calibration.labels.coco import CocoAnnotations
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.media.images import write_image


def small_set(folder: Path, count: int = 6) -> AnnotatedImages:
    annotations, images = write_set(folder, [[{"segmentation": square(4, 4, 9)}]] * count)
    return AnnotatedImages.open(CocoAnnotations.from_file(annotations), images)


def test_bad_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    data = small_set(tmp_path / "a")
    (data.folder / "1.png").write_bytes(b"")
    write_image(data.folder / "2.png", np.zeros((64, 48, 3), np.uint8))
    for name in ("3.png", "5.png"):
        (data.folder / name).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"4 of the 6 images of .* cannot be used: ") as caught:
        data.check()
    message = str(caught.value)
    assert f"cannot read {data.folder / '1.png'}: the file is empty" in message
    assert f"{data.folder / '2.png'} is 48 x 64 pixels, its annotations say 64 x 64" in message
    assert message.index("1.png") < message.index("2.png") < message.index("3.png") < message.index("; and 1 more")
    assert "\n" not in message


def test_every_image_is_decoded_once_and_progress_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_set(tmp_path / "a", 40)
    seen: list[str] = []
    threads: set[str] = set()

    def read(self: ImageReader, path: Path) -> Any:
        seen.append(path.name)
        threads.add(threading.current_thread().name)
        return one(self, path)

    one = ImageReader.read
    monkeypatch.setattr(ImageReader, "read", read)
    told = Recorder()
    digest = data.check(told)
    assert sorted(seen) == sorted(f"{number}.png" for number in range(40))
    assert told.of("progress") == [f"checked {number}/40" for number in range(1, 41)]
    assert threading.main_thread().name not in threads
    assert digest == data.check()


def test_whoever_stops_looking_stops_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_set(tmp_path / "a", 60)
    seen: list[Path] = []
    read = ImageReader.read
    monkeypatch.setattr(ImageReader, "read", lambda self, path: seen.append(path) or read(self, path))
    monkeypatch.setattr(image_check.os, "cpu_count", lambda: 2)

    class Impatient(Recorder):
        def progress(self, items: Iterable[Any], label: str, total: int | None = None) -> Generator[Any, None, None]:
            for number, item in enumerate(items):
                if number == 3:
                    raise KeyboardInterrupt
                yield item

    with pytest.raises(KeyboardInterrupt):
        data.check(Impatient())
    assert len(seen) < 20
