"""The plugin that lets the kernel tests run on a GPU, tried on the simulated one: what it would notice there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from support.host_gpu import host_gpu, share_kernels
from support.kernel_host import poisoned
from support.on_device import DeviceKernels, byte_span
from support.tools import needs_tool
from yolact_plugins.driver.driver import Stream

pytestmark = needs_tool("g++")


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceKernels]:
    share_kernels(monkeypatch)
    with host_gpu() as device, Stream(device) as stream:
        kernels = DeviceKernels(device, stream, "mask_views")
        yield kernels
        kernels.close()


def test_bytes_between_rows_travel_with_an_array() -> None:
    memory = np.arange(40, dtype=np.uint8)
    view = np.lib.stride_tricks.as_strided(memory, (3, 4), (10, 1))
    span = byte_span(view)
    assert span.tolist() == list(range(24))
    span[10] = 99
    assert view[1, 0] == 99
    assert byte_span(np.zeros((0, 4), np.float32)).size == 0
    assert byte_span(np.zeros((2, 3), np.float32)).size == 24


def dense(masks: DeviceKernels, out: np.ndarray, grid: tuple[int, int] = (2, 1)) -> None:  # type: ignore[type-arg]
    """One mask of the left half of a frame of 4 x 64 pixels, whose bits are one word a column."""
    arena, offset, count = np.full(32, 2**4 - 1, np.uint32), np.array([0, 32], np.int64), np.array([1], np.int32)
    window = np.array([[0, 0, 0, 0, 0, 1, 0, 32]], np.int32)
    arguments = [arena, window, offset, count, np.int32(4), np.int32(64), out]
    masks("mask_dense", grid, (256,), arguments)


def test_a_kernel_computes_on_the_device(masks: DeviceKernels) -> None:
    out = poisoned((1, 4, 64), np.uint8)
    before = DeviceKernels.num_launches
    dense(masks, out)
    assert (out[..., :32] == 1).all()
    assert (out[..., 32:] == 0).all()
    assert DeviceKernels.num_launches == before + 1


def test_what_is_written_beside_an_argument_is_noticed(masks: DeviceKernels) -> None:
    with pytest.raises(AssertionError, match="mask_dense wrote outside its argument 6"):
        dense(masks, poisoned((1, 3, 64), np.uint8))


def test_an_empty_grid_is_nothing(masks: DeviceKernels) -> None:
    out = poisoned((1, 4, 64), np.uint8)
    dense(masks, out, (0, 1))
    assert (out == 0xCD).all()
