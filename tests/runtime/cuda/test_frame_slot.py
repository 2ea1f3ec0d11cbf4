"""What a frame in flight makes of the kernels' status word, on a simulated GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support.device_network import HostNetwork, replay, tensor_specs
from support.host_gpu import host_gpu
from support.scenes import DEFAULT_PROTOTYPE, raw_outputs, small_manifest
from support.tools import needs_tool
from yolact_plugins.frame_status import FrameStatus
from yolact_runtime import Segmenter, SegmenterOptions
from yolact_runtime.errors import BackendError

pytestmark = needs_tool("g++")
FRAME = np.zeros((20, 30, 3), np.uint8)
RUN_AGAIN = FrameStatus.ARENA_OVERFLOW | FrameStatus.RUN_OVERFLOW


def test_every_bit_that_no_memory_helps_against_is_an_error_also_one_that_has_no_name() -> None:
    manifest = small_manifest()
    with host_gpu() as device:
        outputs = raw_outputs(manifest, [])
        network = HostNetwork(device, tensor_specs(manifest, DEFAULT_PROTOTYPE.shape), replay([outputs]))  # type: ignore[arg-type]  # three numbers
        with Segmenter(manifest, network, None, SegmenterOptions()) as segmenter:
            path: Any = segmenter.frame_path
            for bit in range(32):
                slot = path.start(FRAME)
                slot.stream.synchronize()
                slot.memory.results["status"][0] = 1 << bit
                if RUN_AGAIN & 1 << bit:
                    # Run again with more memory, which leaves a status of its own.
                    assert slot.finish() == 0
                else:
                    with pytest.raises(BackendError, match=r"NaN or infinity|reject this frame \(status"):
                        slot.finish()
                path.give_back(slot)
