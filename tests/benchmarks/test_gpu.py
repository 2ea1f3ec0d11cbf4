"""The measurements on a GPU, on a GPU of host memory: that they run and say what they should; figures mean nothing."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.device_network import replay, tensor_specs
from support.fake_tensorrt import FakeTensorRt, add_engine, put_in_place
from support.host_gpu import host_gpu, share_kernels
from support.kernel_host import COMPILER
from support.scenes import DEFAULT_PROTOTYPE, Thing, raw_outputs, small_manifest, write_bundle
from yolact_benchmarks import gpu
from yolact_benchmarks.gpu_stages import moved_bytes
from yolact_benchmarks.replay_network import ReplayNetwork
from yolact_plugins.gpu import find_gpu
from yolact_runtime.cuda import DevicePath
from yolact_runtime.errors import YolactError
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no g++: the kernels cannot be run on the host")
THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]


@pytest.fixture(autouse=True)
def small_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    share_kernels(monkeypatch)
    # A model as large as a real one would take minutes here.
    monkeypatch.setattr(gpu, "COCO_550", small_manifest())
    monkeypatch.setattr(gpu, "make_outputs", lambda count, *_, **__: raw_outputs(small_manifest(), THINGS[:count]))


def no_peer(*_: object) -> Callable[[int], list[float]]:
    return lambda repeats: [1000.0] * repeats


def test_everything_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolact_benchmarks.gpu_stages._COPY_BYTES", 1 << 16)
    options = argparse.Namespace(sizes="160x120", instances="2", repeats=1, frames=3, bundle=None)
    with host_gpu() as device:
        results: dict[str, Any] = gpu.measure(device, options, no_peer)
    (row,) = results["scenes"]
    assert row["found"] == 2
    assert list(row["stages_us"]) == ["upload", "preprocess", "network", "candidates", "nms", "masks", "download"]
    assert row["dense_torch_us"] == 1000.0
    assert results["growth"] == {
        "frames": 3,
        "gpu_bytes_lost": 0,
        "host_bytes_grown": results["growth"]["host_bytes_grown"],
    }
    assert "2 instances at 160 x 120: a call " in capsys.readouterr().out


def test_the_floor_counts_every_byte_once() -> None:
    manifest = small_manifest()
    frame = np.zeros((60, 80, 3), np.uint8)
    with host_gpu() as device:
        network = ReplayNetwork(device, manifest, raw_outputs(manifest, THINGS))
        with Segmenter(manifest, network, None, SegmenterOptions(min_confidence=0.3, frames_in_flight=1)) as segmenter:
            path = segmenter.frame_path
            assert isinstance(path, DevicePath)
            slot = path.start(frame)
            found = moved_bytes(slot, slot.finish())
            path.give_back(slot)
    assert found["preprocess"] == 60 * 80 * 3 + 3 * 32 * 48 * 4
    assert found["candidates"] == 90 * 4 * 4
    assert found["masks"] > 3 * 8 * 12 * 4


def test_a_bundle_is_measured_beside_its_engine_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m.bundle", THINGS)
    add_engine(bundle)
    tensors = tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape)  # type: ignore[arg-type]  # three numbers
    with host_gpu() as device:
        put_in_place(monkeypatch, FakeTensorRt(device, tensors, replay([raw_outputs(small_manifest(), THINGS)])))
        (row,) = gpu._measure_bundle(bundle, "40x30", repeats=1)
        assert (row["backend"], row["graph"], row["frame"]) == ("tensorrt", True, [30, 40])
        assert row["over_network"] > 0
        with pytest.raises(YolactError, match="not on an engine"):
            gpu._measure_bundle(bundle / "model.fp32.onnx", "40x30", repeats=1)


def test_growth_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_GROWTH_BYTES", -1)
    with pytest.raises(YolactError, match="memory grew over 1 frames"), host_gpu() as device:
        gpu._search_growth(device, 1)


def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_device() -> None:
        find_gpu("libnothere.so.1")

    monkeypatch.setattr(gpu, "Device", no_device)
    assert gpu.main(["--results", str(tmp_path)]) == 5
    assert "error: there is no NVIDIA driver here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
