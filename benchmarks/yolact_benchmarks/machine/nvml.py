"""One NVIDIA GPU as its driver reports it: clocks, throttling, memory, power. Needs the package ``nvidia-ml-py``.

Figures that a GPU does not provide, as on many laptops and Jetsons, are None.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["GpuSample", "Nvml"]

# Benign throttle reasons: the GPU is idle, or its clock was set on request. The bits are those of nvml.h.
_HARMLESS = 0x1 | 0x2
_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clock",
}


@dataclasses.dataclass(frozen=True)
class GpuSample:
    """State of a GPU at one moment; None marks figures that it does not provide.

    Attributes:
        clock_mhz: Clock of the multiprocessors, MHz.
        temperature_c: Temperature of the chip, degrees Celsius.
        power_w: Power of the board, watts.
        memory_mb: Memory used by all processes, MB.
        throttle: Reasons for a reduced clock, benign ones excluded; empty if there are none.
    """

    clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    memory_mb: float | None = None
    throttle: tuple[str, ...] | None = None


class Nvml:
    """NVIDIA's management library, open for one GPU. Call :meth:`close` at the end.

    Args:
        index: Index of the GPU.
        library: Module with the functions of ``pynvml``; None imports it.

    Raises:
        OSError: There is no driver or no such GPU, or the package is missing; the message says which.
    """

    def __init__(self, index: int = 0, library: Any = None) -> None:
        if library is None:
            try:
                library = importlib.import_module("pynvml")
            except ImportError as error:
                raise OSError("the package nvidia-ml-py is not installed (pip install nvidia-ml-py)") from error
        self._library = library
        try:
            library.nvmlInit()
            self._gpu = library.nvmlDeviceGetHandleByIndex(index)
        except library.NVMLError as error:
            raise OSError(f"no NVIDIA driver, or no GPU {index}: {error}") from error
        name = self._ask(lambda: library.nvmlDeviceGetName(self._gpu))
        self.name = name.decode() if isinstance(name, bytes) else str(name or f"GPU {index}")

    def sample(self) -> GpuSample:
        """Read the present state of the GPU."""
        library, gpu = self._library, self._gpu
        power = self._ask(lambda: library.nvmlDeviceGetPowerUsage(gpu))
        memory = self._ask(lambda: library.nvmlDeviceGetMemoryInfo(gpu).used)
        return GpuSample(
            clock_mhz=self._ask(lambda: library.nvmlDeviceGetClockInfo(gpu, library.NVML_CLOCK_SM)),
            temperature_c=self._ask(lambda: library.nvmlDeviceGetTemperature(gpu, library.NVML_TEMPERATURE_GPU)),
            power_w=None if power is None else power / 1e3,
            memory_mb=None if memory is None else round(memory / 1e6, 1),
            throttle=self._throttle(),
        )

    def joules(self) -> float | None:
        """Return the energy in joules since the driver was loaded; None if the GPU does not count it (before Volta)."""
        millijoules = self._ask(lambda: self._library.nvmlDeviceGetTotalEnergyConsumption(self._gpu))
        return None if millijoules is None else millijoules / 1e3

    def close(self) -> None:
        """Shut the library down."""
        self._ask(self._library.nvmlShutdown)

    def _throttle(self) -> tuple[str, ...] | None:
        # Drivers before CUDA 12.4 only have the second, older name.
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            function = getattr(self._library, name, None)
            bits = None if function is None else self._ask(functools.partial(function, self._gpu))
            if bits is not None:
                return tuple(text for bit, text in _REASONS.items() if bits & bit & ~_HARMLESS)
        return None

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except self._library.NVMLError:
            return None
