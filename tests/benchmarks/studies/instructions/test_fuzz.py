"""Random frames as machine code: what every launch leaves is what the host build leaves."""

from __future__ import annotations

import numpy as np
import pytest

from support.disassembler import DISASSEMBLER, needs_disassembler
from support.tools import needs_tool
from yolact_benchmarks.measure.scenes import yolact_manifest
from yolact_benchmarks.studies.instructions.execution import ExecutionError
from yolact_benchmarks.studies.instructions.frame import Kernels
from yolact_benchmarks.studies.instructions.fuzz import RandomFrame, check_frame, require_near

pytestmark = needs_tool("g++")

SEEDS = range(24)


def test_the_random_frames_are_of_all_kinds() -> None:
    frames = [RandomFrame.of(seed) for seed in SEEDS]
    for name in ("dtype", "nms", "rescored", "min_confidence", "crop_margin", "noise"):
        assert len({getattr(frame, name) for frame in frames}) > 1, name
    assert any(frame.height % 32 and frame.width % 32 for frame in frames)
    frame = frames[0]
    outputs = frame.outputs(yolact_manifest(frame.side, frame.classes))
    assert all(np.isfinite(array).all() and array.dtype == frame.dtype for array in outputs.values())


@pytest.mark.parametrize(
    ("kernel", "array", "found", "message"),
    [
        ("mask_soft_f32", "soft", [0.5, np.float32(0.2500001)], ""),
        ("mask_soft_f32", "soft", [0.5, 0.2501], r"leaves 0.25\d+ in soft\[1\], the host build 0.25; 1 differ"),
        ("fast_nms_merge", "detection_confidence", [0.5, np.float32(0.25000003)], "1 differ"),
        ("fast_nms_class", "kept_key", [0.25, 0.5], ""),
        ("fast_nms_class", "kept_key", [0.25, 0.25], "1 differ"),
        ("fast_nms_class", "overlap", [0.25, 0.5], "2 differ"),
    ],
)
def test_only_kernels_with_exponentials_may_differ_and_only_in_last_bits(
    kernel: str, array: str, found: list[float], message: str
) -> None:
    values = np.array(found, np.float32), np.array([0.5, 0.25], np.float32)
    if not message:
        require_near(kernel, array, *values)
        return
    with pytest.raises(ExecutionError, match=message):
        require_near(kernel, array, *values)


@pytest.fixture(scope="module", params=["sm_75", "sm_87", "sm_90", "sm_110"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    assert DISASSEMBLER is not None
    return Kernels.compiled(request.param, DISASSEMBLER)


@needs_disassembler
def test_machine_code_leaves_what_the_host_build_leaves(kernels: Kernels) -> None:
    for seed in SEEDS:
        assert check_frame(RandomFrame.of(seed), kernels) >= 10, seed
