"""Of the modules that run frames on the simulated GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.host_gpu import host_gpu, share_kernels
from yolact_plugins.driver.driver import Device


@pytest.fixture(scope="module")
def kernel_cache() -> Iterator[None]:
    """Kernels are compiled once, and not for each test."""
    with pytest.MonkeyPatch.context() as patch:
        share_kernels(patch)
        yield


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A simulated GPU with the properties of a test's parameters; at the end everything was given back."""
    with host_gpu(**getattr(request, "param", {})) as device:
        yield device
