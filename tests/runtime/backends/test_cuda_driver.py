"""The runtime asks for a GPU as the kernels do, and says what it found as a backend does."""

import pytest

from yolact_runtime.backends.cuda_driver import find_gpu
from yolact_runtime.errors import BackendUnavailableError


def test_no_driver_is_an_unavailable_backend() -> None:
    with pytest.raises(BackendUnavailableError, match=r"no NVIDIA driver here \(libnothere\.so\.1: .*install it"):
        find_gpu("libnothere.so.1")
