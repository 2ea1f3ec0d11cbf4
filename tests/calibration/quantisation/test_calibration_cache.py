from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from support.activations import SPEC, TENSORS, make_frames, small_network, write_frames
from yolact_calibration.errors import CalibrationError, DatasetError
from yolact_calibration.quantisation import calibration_cache
from yolact_calibration.quantisation.calibration_cache import Calibration, cache_folder, calibrate
from yolact_calibration.quantisation.calibration_images import CalibrationImages, find_calibration_images
from yolact_calibration.quantisation.observer import observe
from yolact_runtime.media.images import write_image


@pytest.fixture
def images(tmp_path: Path) -> CalibrationImages:
    return find_calibration_images([str(write_frames(tmp_path / "images", 9))])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def run(images: CalibrationImages, cache: Path, **changes: object) -> Calibration:
    arguments = {"model": small_network(), "tensors": TENSORS, "spec": SPEC} | changes
    return calibrate(arguments["model"], arguments["tensors"], images, arguments["spec"], cache=cache)  # type: ignore[arg-type]


def test_the_second_call_makes_no_pass(images: CalibrationImages, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def observe_slowly(*arguments: Any, **options: Any) -> Any:
        now[0] += 60
        return observe(*arguments, **options)

    monkeypatch.setattr(calibration_cache, "observe", observe_slowly)
    monkeypatch.setattr(calibration_cache, "time", SimpleNamespace(monotonic=lambda: now[0]))
    first = run(images, cache)
    second = run(images, cache)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.histograms == second.histograms == observe(small_network(), TENSORS, images, SPEC)
    assert first.digest == second.digest
    assert second.num_images == 9
    assert (first.seconds, second.seconds) == (60, 0)
    assert first.warnings == images.warnings
    assert json.loads(json.dumps(second.document())) == {
        "num_images": 9,
        "digest": first.digest,
        "image_digest": images.digest(),
        "seconds": round(second.seconds, 3),
        "num_cached": 9,
        "warnings": list(images.warnings),
        "from_cache": True,
    }


def test_an_entry_depends_on_all_that_decides_about_the_values(
    images: CalibrationImages, cache: Path, tmp_path: Path
) -> None:
    run(images, cache)
    others = find_calibration_images([str(write_frames(tmp_path / "others", 10))])
    changes = [
        run(images, cache, model=small_network(seed=1)),
        run(images, cache, tensors=TENSORS[:-1]),
        run(images, cache, spec=dataclasses.replace(SPEC, mean_bgr=(0.0, 0.0, 0.0))),
        run(images, cache, spec=dataclasses.replace(SPEC, channel_order="BGR")),
        run(others, cache),
    ]
    assert [found.from_cache for found in changes] == [False] * 5
    assert len({found.digest for found in changes}) == 5


def test_an_entry_depends_on_nothing_else(images: CalibrationImages, cache: Path, tmp_path: Path) -> None:
    run(images, cache)
    described = small_network()
    onnx.helper.set_model_props(described, {"yolact_manifest": "{}"})
    described.producer_version = "2"
    for node in described.graph.node:
        node.metadata_props.add(key="yolact.part", value="mine")
    path = tmp_path / "model.onnx"
    path.write_bytes(described.SerializeToString())
    for number, image in enumerate(images.images):
        image.path.rename(tmp_path / "images" / f"{99 - number}.png")
    renamed = find_calibration_images([str(tmp_path / "images")])
    assert run(renamed, cache, model=described).from_cache
    assert run(renamed, cache, model=path).from_cache
    assert run(renamed, cache, model=path.read_bytes()).from_cache
    assert run(renamed, cache, tensors=TENSORS[::-1]).from_cache


def test_a_damaged_entry_is_reported_and_replaced(images: CalibrationImages, cache: Path) -> None:
    expected = run(images, cache)
    (entry,) = cache.iterdir()
    content = entry.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 8]) + content[middle + 1 :]
    for damaged in (content[:middle], b"", b"junk", flipped):
        entry.write_bytes(damaged)
        found = run(images, cache)
        assert not found.from_cache
        assert found.histograms == expected.histograms
        assert found.warnings[-1].startswith(f"{entry} is damaged")
        assert run(images, cache).from_cache


def test_a_cache_that_takes_no_files_is_done_without(images: CalibrationImages, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = run(images, tmp_path / "file" / "cache")
    assert found.num_images == 9
    assert "cannot save the calibration" in found.warnings[-1]


def test_values_that_are_not_finite_stay_an_error(images: CalibrationImages, cache: Path) -> None:
    for _ in range(2):
        with pytest.raises(CalibrationError, match='first of all "conv1"'):
            run(images, cache, model=small_network(gain=1e38))


def test_images_that_change_on_the_way_are_noticed(images: CalibrationImages, cache: Path) -> None:
    write_image(images.images[3].path, make_frames(1, seed=9)[0])
    with pytest.raises(DatasetError, match="images changed"):
        run(images, cache)
    assert list(cache.iterdir()) == []


def test_the_folder_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "yolact-deploy" / "calibration"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "yolact-deploy" / "calibration"


_CALIBRATE = """
import sys, time
from pathlib import Path
from support.activations import SPEC, TENSORS, small_network
from support.recorder import Recorder
from yolact_calibration.quantisation.calibration_cache import calibrate
from yolact_calibration.quantisation.calibration_images import find_calibration_images

class Slow(Recorder):
    def progress(self, items, label, total):
        for done, item in enumerate(items, 1):
            yield item
            print(done, flush=True)
            time.sleep(0.05)

images = find_calibration_images([sys.argv[1]])
calibrate(small_network(), TENSORS, images, SPEC, cache=Path(sys.argv[2]), reporter=Slow(),
          save_every_s=float(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("kill", "save_every_s"), [(signal.SIGKILL, "0"), (signal.SIGINT, "1000")], ids=["killed", "interrupted"]
)
def test_a_pass_that_was_ended_goes_on_with_the_same_result(
    kill: signal.Signals, save_every_s: str, images: CalibrationImages, cache: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _CALIBRATE, str(tmp_path / "images"), str(cache), save_every_s]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != b"4\n":
            assert process.poll() is None
        os.kill(process.pid, kill)
    found = run(images, cache)
    assert 4 <= found.num_cached < 9
    assert found.histograms == run(images, tmp_path / "fresh").histograms
    assert np.all([histogram.num_values for histogram in found.histograms.values()])
