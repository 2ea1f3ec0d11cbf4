"""A module with the functions of ``pynvml`` that the benchmarks ask: what they return is given, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

__all__ = ["FakeNvml"]


class _NvmlError(Exception):
    pass


class FakeNvml:
    """Each list is played back, its last value for ever; None raises, as for a GPU that lacks the figure."""

    NVMLError = _NvmlError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    def __init__(
        self,
        power_mw: Sequence[int] | None = (100_000,),
        energy_mj: Sequence[int] | None = (1000,),
        clock_mhz: Sequence[int] = (1500,),
        reasons: Sequence[int] = (0,),
        has_driver: bool = True,
    ) -> None:
        self._lists = {
            name: None if values is None else list(values)
            for name, values in {
                "power": power_mw,
                "energy": energy_mj,
                "clock": clock_mhz,
                "reasons": reasons,
            }.items()
        }
        self._has_driver = has_driver
        self.is_open = False

    def _next(self, name: str) -> Any:
        values = self._lists[name]
        if values is None:
            raise _NvmlError("Not Supported")
        return values.pop(0) if len(values) > 1 else values[0]

    def nvmlInit(self) -> None:  # noqa: N802
        if not self._has_driver:
            raise _NvmlError("Driver Not Loaded")
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, gpu: int) -> bytes:  # noqa: N802
        return b"NVIDIA Test"

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:  # noqa: N802
        return int(self._next("power"))

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:  # noqa: N802
        return int(self._next("energy"))

    def nvmlDeviceGetClockInfo(self, gpu: int, which: int) -> int:  # noqa: N802
        return int(self._next("clock"))

    def nvmlDeviceGetTemperature(self, gpu: int, which: int) -> int:  # noqa: N802
        return 55

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=512_000_000)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: int) -> int:  # noqa: N802
        return int(self._next("reasons"))
