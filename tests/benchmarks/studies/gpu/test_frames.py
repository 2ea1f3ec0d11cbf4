"""Measurements on a GPU, on the simulated one: that they run and say what they should; figures mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.host_gpu import host_gpu, share_kernels
from support.scenes import Thing, raw_outputs, small_manifest
from support.tools import needs_tool
from yolact_benchmarks.measure import gpu_stages
from yolact_benchmarks.measure.gpu_stages import moved_bytes, time_replays
from yolact_benchmarks.measure.replay_network import ReplayNetwork
from yolact_benchmarks.studies.gpu import frames, growth
from yolact_benchmarks.studies.gpu.frames import Scene, measure_scene, scaled_manifest
from yolact_benchmarks.studies.gpu.stage_options import DRIVER_VARIABLE, NOT_MEASURED, Scale, open_device
from yolact_plugins.driver.driver import Stream
from yolact_plugins.driver.memory import DeviceBuffer
from yolact_runtime.cuda.device_path import DevicePath
from yolact_runtime.errors import UsageError
from yolact_runtime.segmenter import Segmenter, SegmenterOptions

pytestmark = needs_tool("g++")
THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
SMALL = Scale(0.001)


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    share_kernels(monkeypatch)
    monkeypatch.setenv(DRIVER_VARIABLE, "support.host_gpu:HostDriver")
    return iter([None])


def test_a_scene_is_measured_from_kernels_to_calls() -> None:
    given: list[int] = []

    def peer(outputs: dict[str, Any], *sides: Any) -> Callable[[], int]:
        del sides
        return lambda: given.append(len(outputs)) or 7  # type: ignore[func-returns-value]

    with host_gpu() as device:
        row = measure_scene(device, scaled_manifest(SMALL), Scene(3, 0.1, 60, 80), SMALL, peer)
    assert (row["found"], row["dense"]["found"]) == (3, 7)
    assert set(given) == {4}
    parts = ["upload", "preprocess", "candidates", "nms", "masks", "download", "copy of stored outputs"]
    assert list(row["gpu_us"]) == [*parts, "whole", "whole, launched piece by piece"]
    assert list(row["kernels_us"]) == [
        "preprocess_f32",
        *("candidates_score_f32", "candidates_gather_f32", "fast_nms_overlap", "fast_nms_class", "fast_nms_merge"),
        *("mask_soft_f32", "mask_bits", "mask_runs_write", "mask_results"),
    ]
    # The simulated clock gives every work between two events a millisecond.
    assert row["postprocess_us"] == 4000
    calls = ["call", "call with a frame buffer"]
    assert list(row["host_us"]) == [*calls, "copy of the frame to pinned memory", "instances from runs"]
    assert row["postprocess_call_us"] > 0
    json.dumps(row, allow_nan=False)


def test_half_outputs_and_no_pytorch_with_cuda() -> None:
    with host_gpu() as device:
        row = measure_scene(device, scaled_manifest(SMALL), Scene(1, 0.4, 60, 80, "float16"), SMALL)
    assert row["dense"] == {"not_measured": "there is no PyTorch with CUDA here"}
    assert "mask_soft_f16" in row["kernels_us"]


def test_the_mask_iou_network_is_measured_kernel_by_kernel() -> None:
    scene = Scene(2, 0.1, 60, 80, rescored=True)
    with host_gpu() as device:
        row = measure_scene(device, scaled_manifest(SMALL, rescored=True), scene, SMALL)
    layers = [f"mask_iou_layer{layers}" for layers in ("s_1_2", "_3", "_4", "s_5_6")]
    assert list(row["kernels_us"])[-5:] == [*layers, "mask_results"]
    assert (row["rescored"], row["found"]) == (True, 2)


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
    assert found["upload"] == 60 * 80 * 3
    assert found["preprocess"] == 60 * 80 * 3 + 3 * 32 * 48 * 4
    # Regressions, logits of three classes and the background, three coefficients; and the prototypes.
    assert found["candidates"] == (90 * (4 + 4 + 3) + 3 * 8 * 12) * 4
    assert found["masks"] > 3 * 8 * 12 * 4
    # Gigabytes a second are bytes a nanosecond: 14,400 bytes at 0.5 over the bus are 28.8 us.
    floor = frames._floor(found, 1000.0, 0.5)
    assert floor["upload"] == pytest.approx(28.8)
    assert floor["candidates"] == pytest.approx(5.112e-3)


def test_replays_run_what_was_captured_so_many_times() -> None:
    with host_gpu() as device, Stream(device) as stream, DeviceBuffer(device, 4) as buffer:
        calls = []

        def work(on: Stream) -> None:
            calls.append(on)
            buffer.fill(1, on)

        # One millisecond for each launch of a graph that holds ten runs.
        assert time_replays(stream, work, repeats=3, inner=10) == 100.0
    assert len(calls) == 10


def test_scenes_shrink_with_the_scale_and_the_most_telling_come_first() -> None:
    whole = frames._scenes(Scale())
    assert whole[:2] == [Scene(100, 0.025, 1080, 1920), Scene(1, 0.45, 1080, 1920)]
    assert {(scene.height, scene.dtype) for scene in whole} == {
        *((height, "float32") for height in (720, 1080, 2160)),
        (1080, "float16"),
    }
    assert next(scene for scene in whole if scene.rescored) == Scene(100, 0.025, 1080, 1920, rescored=True)
    assert {(scene.count, scene.area) for scene in whole} == {
        *((count, 0.025) for count in (1, 10, 100)),
        (1, 0.45),
        (20, 0.3),
    }
    assert len(frames._scenes(SMALL)) == 2


def test_no_scene_begins_after_its_time(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert frames.main(["--rows", str(rows), "--scale", "0.001", "--seconds", "0"]) == NOT_MEASURED
    first, *skipped = [json.loads(line) for line in rows.read_text().splitlines()]
    assert set(first) == {"stage", "run", "copy_gb_per_s", "upload_gb_per_s"}
    assert [row["not_measured"] for row in skipped] == ["out of time"] * 2


def test_growth_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert growth.main(["--scale", "0.001", "--frames", "3000"]) == 0
    assert [json.loads(line)["frames"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]
    monkeypatch.setattr(growth, "GPU_LIMIT_BYTES", -1)
    assert growth.main(["--scale", "0.001", "--frames", "1000"]) == 1
    assert "memory grew over 1 frames: 0 bytes on the GPU" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nothing", "no.module:Driver", "support.host_gpu:Nobody"])
def test_a_driver_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(DRIVER_VARIABLE, name)
    with pytest.raises(UsageError, match=f"{DRIVER_VARIABLE}={name} is not a driver"):
        open_device()


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5, float("nan")])
def test_a_scale_is_a_share(factor: float) -> None:
    with pytest.raises(UsageError, match="must be greater than 0 and at most 1"):
        Scale(factor)


def test_bandwidth_by_copies() -> None:
    with host_gpu() as device:
        # Two milliseconds for reading and writing as many bytes: the simulated clock again.
        assert gpu_stages.copy_gigabytes_per_second(device, 2, 1 << 20) == pytest.approx(2 * (1 << 20) / 1e6)
        assert gpu_stages.upload_gigabytes_per_second(device, 2, 1 << 20) == pytest.approx((1 << 20) / 1e6)
