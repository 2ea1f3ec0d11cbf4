"""Memory of the host and of the GPU, on a simulated one: whose it is, and for how long."""

from __future__ import annotations

import numpy as np
import pytest

from support.host_gpu import HostDriver, host_gpu
from yolact_plugins.driver.memory import MappedBuffer, PinnedBuffer
from yolact_plugins.errors import CudaError, ShapeError


@pytest.mark.parametrize("kind", [PinnedBuffer, MappedBuffer])
def test_a_lasting_array_keeps_the_memory_past_the_closing(kind: type[PinnedBuffer]) -> None:
    with host_gpu() as device:
        driver = device.driver
        assert isinstance(driver, HostDriver)
        buffer = kind(device, 64)
        with pytest.raises(ShapeError, match="does not fit a buffer of 64 bytes"):
            buffer.lasting_array((65,), np.uint8)
        first, second = buffer.lasting_array((8,), np.uint8), buffer.lasting_array((4, 2), np.int32, 32)
        assert buffer.lasting_array((0, 3), np.uint8).shape == (0, 3)
        part = second[1:]
        buffer.close()
        with pytest.raises(CudaError, match="is closed"):
            buffer.lasting_array((8,), np.uint8)
        del first, second
        part[:] = 3
        assert (part == 3).all()
        assert driver.live_memory() != {}
        del part
        assert driver.live_memory() == {}
