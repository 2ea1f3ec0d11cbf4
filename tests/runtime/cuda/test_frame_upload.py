"""Frames in ordinary memory: uploaded part by part while the rest is still copied."""

from __future__ import annotations

import numpy as np
import pytest

from support.device_network import HostNetwork, replay, tensor_specs
from support.host_gpu import HostDriver, host_gpu
from support.scenes import DEFAULT_PROTOTYPE, Thing, camera_frames, raw_outputs, small_manifest
from support.tools import needs_tool
from yolact_runtime import CameraFrame, Segmenter, SegmenterOptions
from yolact_runtime.cuda import frame_slot
from yolact_runtime.cuda.device_path import DevicePath

pytestmark = [needs_tool("g++"), pytest.mark.usefixtures("kernel_cache")]
OPTIONS = SegmenterOptions(min_confidence=0.1, frames_in_flight=1)


def frames() -> list[CameraFrame]:
    """All formats, with odd sides, gaps, rows from below, columns from behind, and every other pixel."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (40, 70, 3), np.uint8)
    odd = [CameraFrame(noise[::-1], "bgr"), CameraFrame(noise[:, ::-1], "bgr"), CameraFrame(noise[::2, ::3], "bgr")]
    return [*odd, *camera_frames(random, 20, 34), *camera_frames(random, 9, 7), CameraFrame(noise[:1, :1], "rgb")]


@pytest.mark.parametrize("band_bytes", [1, 50, 700, 1 << 20])
@pytest.mark.parametrize("integrated", [False, True])
def test_every_frame_arrives_whole(band_bytes: int, integrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_slot, "_BAND_BYTES", band_bytes)
    with host_gpu(integrated=integrated) as device:
        network = HostNetwork(
            device,
            tensor_specs(small_manifest(), DEFAULT_PROTOTYPE.shape),  # type: ignore[arg-type]  # three numbers
            replay([raw_outputs(small_manifest(), [Thing((0.2, 0.2, 0.8, 0.8))])]),
        )
        with Segmenter(small_manifest(), network, None, OPTIONS) as segmenter:
            path, driver = segmenter.frame_path, device.driver
            assert isinstance(path, DevicePath)
            assert isinstance(driver, HostDriver)
            for frame in frames():
                with driver.recording() as calls:
                    slot = path.start(frame)
                assert slot.finish() == 1
                size = frame.layout.num_bytes
                there = driver.view(slot.memory.arrays["frame"].pointer, (size,), np.uint8)
                assert (there == np.concatenate([np.ravel(plane) for plane in frame.planes()])).all()
                path.give_back(slot)
                uploads = [str(name) for name in calls].count("cuMemcpyHtoDAsync")
                if integrated:
                    assert uploads == 0
                elif band_bytes == 1:
                    assert uploads == sum(len(plane) for plane in frame.planes())
                else:
                    assert 1 <= uploads <= 2 * size // band_bytes + 1
