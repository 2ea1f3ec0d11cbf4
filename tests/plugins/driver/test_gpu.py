"""The driver is asked with ctypes; a machine without one gives a reason and no crash."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import pytest

from yolact_plugins.driver import gpu
from yolact_plugins.driver.gpu import Gpu, cuda_extra, find_gpu
from yolact_plugins.errors import CudaUnavailableError, NoDriverError


def test_no_driver() -> None:
    with pytest.raises(CudaUnavailableError, match=r"no NVIDIA driver here \(libnothere\.so\.1: .*install it"):
        find_gpu("libnothere.so.1")


@pytest.mark.parametrize("sign", ["none", "file", "device", "another maker's"])
def test_no_driver_on_a_machine_with_a_gpu_is_another_matter(
    sign: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    devices = tmp_path / "devices"
    # A network card of NVIDIA is no sign.
    for name, vendor, kind in (("0", "0x15b3", "0x020000"), ("1", "0x10de", "0x020000"), ("2", "0x8086", "0x030000")):
        (devices / name).mkdir(parents=True)
        (devices / name / "vendor").write_text(f"{vendor}\n")
        (devices / name / "class").write_text(f"{kind}\n")
    if sign == "device":
        (devices / "1" / "class").write_text("0x030200\n")
    monkeypatch.setattr(gpu, "_PCI_DEVICES", devices)
    monkeypatch.setattr(gpu, "_SIGNS", (tmp_path if sign == "file" else tmp_path / "nothing",))
    with pytest.raises(CudaUnavailableError) as error:
        find_gpu("libnothere.so.1")
    assert isinstance(error.value, NoDriverError) == (sign in {"none", "another maker's"})


def test_a_library_that_is_no_driver() -> None:
    with pytest.raises(
        CudaUnavailableError, match=r"libc\.so\.6 is not an NVIDIA driver: it lacks the function cuInit"
    ):
        find_gpu("libc.so.6")


def test_this_machine_gives_a_gpu_or_a_reason() -> None:
    try:
        answer = find_gpu().compute_capability
    except CudaUnavailableError as error:
        answer = str(error)
    assert re.search(r"driver|^\d+\.\d$", answer)


class _Driver:
    """Answers as a driver does, through the same pointers: there is none to ask here."""

    _name = "libcuda.so.1"

    def __init__(self, count: int = 1, status: int = 0) -> None:
        self.count, self.status = count, status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12060
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 7}[attribute]
        return 0

    def cuGetErrorName(self, status: int, name: Any) -> int:  # noqa: N802
        name._obj.value = b"CUDA_ERROR_NO_DEVICE"
        return 0


def _use(driver: _Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: driver)
    assert ctypes.CDLL("x") is driver


def test_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(_Driver(), monkeypatch)
    assert find_gpu() == Gpu("Orin", "8.7", "12.6")


def test_a_driver_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(_Driver(status=100), monkeypatch)
    with pytest.raises(CudaUnavailableError, match=r"cuInit returned CUDA error 100 \(CUDA_ERROR_NO_DEVICE\); does"):
        find_gpu()


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(_Driver(count=0), monkeypatch)
    with pytest.raises(CudaUnavailableError, match="shows no GPU; is CUDA_VISIBLE_DEVICES"):
        find_gpu()


@pytest.mark.parametrize(
    ("version", "extra"), [("12.6", "cuda12"), ("12.9", "cuda12"), ("13.0", "cuda"), ("14.1", "cuda")]
)
def test_the_extra_of_a_cuda(version: str, extra: str) -> None:
    assert cuda_extra(version) == extra


def test_the_extra_for_this_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(_Driver(), monkeypatch)
    assert cuda_extra() == "cuda12"
    _use(_Driver(count=0), monkeypatch)
    assert cuda_extra() == "cuda"
