"""Energy meters of the machine: NVIDIA's driver, the INA sensors of a Jetson, the RAPL counters of Intel and AMD.

A meter counts joules from an origin of its own. A figure that the machine does not measure is missing, never zero.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from yolact_benchmarks.machine.nvml import Nvml
from yolact_benchmarks.machine.tegrastats import Tegrastats, total_power_w

__all__ = ["EnergyMeter", "InaRails", "IntegratingMeter", "Meters", "NvmlMeter", "RaplMeter", "find_meters"]

_INA_DRIVERS = {"ina3221", "ina3221x", "ina238", "ina2xx", "ina226"}
_NUM_CHANNELS = 3


class EnergyMeter(Protocol):
    """Interface of a counter of joules."""

    @property
    def name(self) -> str:
        """Human-readable name of the measured quantity, also used in records: ``"VDD_IN (INA3221)"``."""

    def joules(self) -> float | None:
        """Return the energy since the meter's own origin, in joules; None if this reading failed."""


class IntegratingMeter:
    """Meter that integrates power readings by the trapezoidal rule; its accuracy depends on how often it is read.

    Args:
        name: Human-readable name of the measured quantity.
        read_w: Function that returns the present power in watts, or None if the sensor does not answer.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self, name: str, read_w: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._read_w = read_w
        self._clock = clock
        self._joules = 0.0
        self._last: tuple[float, float] | None = None

    def joules(self) -> float | None:
        """Return the energy since the first reading, in joules; None if the sensor does not answer now."""
        watts, now = self._read_w(), self._clock()
        if watts is None:
            return None
        if self._last is not None:
            self._joules += (watts + self._last[1]) / 2 * (now - self._last[0])
        self._last = (now, watts)
        return self._joules


@dataclasses.dataclass(frozen=True)
class InaRails:
    """Power rails of a Jetson, from the kernel's sensors (Documentation/hwmon/ina3221.rst).

    An INA3221 has three channels with a voltage in mV and a current in mA; an INA238, which measures Thor's input, has
    one with its power in microwatts.

    Attributes:
        folders: Folders of the sensors, ``/sys/class/hwmon/hwmon*``.
    """

    folders: tuple[Path, ...]

    @classmethod
    def find(cls, root: Path = Path("/")) -> InaRails | None:
        """Find the sensors of this machine; return None if there are none that can be read."""
        found = [f for f in sorted((root / "sys/class/hwmon").glob("hwmon*")) if _word(f / "name") in _INA_DRIVERS]
        rails = cls(tuple(found))
        return rails if found and rails.read_mw() else None

    def read_mw(self) -> dict[str, float]:
        """Read the present power of each rail in milliwatts, by the name of the rail; unreadable rails are left out."""
        return {rail: milliwatts for folder in self.folders for rail, milliwatts in _rails(folder)}

    def read_w(self) -> float | None:
        """Read the present power of the whole module in watts; None if no rail can be read."""
        total = total_power_w(self.read_mw())
        return None if total is None else total[0]


def _rails(folder: Path) -> Iterator[tuple[str, float]]:
    microwatts = _number(folder / "power1_input")
    if microwatts is not None:
        yield _word(folder / "in1_label") or _word(folder / "label") or "VIN", microwatts / 1e3
        return
    for channel in range(1, _NUM_CHANNELS + 1):
        label = _word(folder / f"in{channel}_label")
        millivolts, milliamperes = _number(folder / f"in{channel}_input"), _number(folder / f"curr{channel}_input")
        if label and millivolts is not None and milliamperes is not None:
            yield label, millivolts * milliamperes / 1e3


class NvmlMeter:
    """Energy counter of a GPU, or the integral of its power if it has no counter."""

    def __init__(self, gpu: Nvml) -> None:
        self.name = f"{gpu.name} (NVML)"
        counts = gpu.joules() is not None
        self._source: Callable[[], float | None] = (
            gpu.joules if counts else IntegratingMeter(self.name, lambda: gpu.sample().power_w).joules
        )

    def joules(self) -> float | None:
        """Return the energy of the board in joules; None if this reading failed."""
        return self._source()


class RaplMeter:
    """RAPL counter of a CPU package (Documentation/power/powercap), in microjoules; it wraps around at its range.

    Args:
        folder: Folder ``/sys/class/powercap/intel-rapl:0``; the name is the same for AMD.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"processor {_word(folder / 'name') or folder.name} (RAPL)"
        self._folder = folder
        self._range = _number(folder / "max_energy_range_uj") or 0.0
        self._last = _number(folder / "energy_uj")
        self._total = 0.0

    def joules(self) -> float | None:
        """Return the energy of the package since the meter was created, in joules; None if this reading failed."""
        now = _number(self._folder / "energy_uj")
        if now is None or self._last is None:
            return None
        passed = now - self._last
        self._total += passed if passed >= 0 else passed + self._range
        self._last = now
        return self._total / 1e6


@dataclasses.dataclass(frozen=True)
class Meters:
    """Energy meters of this machine. Call :meth:`close` at the end.

    Attributes:
        meters: Meters that answer. They may overlap: the module of a Jetson includes its GPU.
        missing: Reasons why other meters are unavailable, for records.
        tool: Running process of ``tegrastats``, if it is the only source of the module's power.
    """

    meters: tuple[EnergyMeter, ...]
    missing: tuple[str, ...]
    tool: Tegrastats | None = None

    def close(self) -> None:
        """Stop the process of ``tegrastats``, if one is running."""
        if self.tool is not None:
            self.tool.close()

    def read(self) -> dict[str, float | None]:
        """Read all meters; return joules by name, each from the meter's own origin."""
        return {meter.name: meter.joules() for meter in self.meters}


def find_meters(root: Path = Path("/"), gpu: Nvml | None = None, no_gpu: str = "no NVIDIA GPU") -> Meters:
    """Find every energy meter that answers.

    Args:
        root: Root of the file system that ``/sys`` is read from.
        gpu: Open GPU, or None.
        no_gpu: Reason why there is no GPU, for :attr:`Meters.missing`.
    """
    meters: list[EnergyMeter] = []
    missing = []
    if gpu is None:
        missing.append(f"NVML: {no_gpu}")
    elif (meter := NvmlMeter(gpu)).joules() is None:
        missing.append(f"NVML: {gpu.name} reports neither energy nor power")
    else:
        meters.append(meter)
    tool = None
    rails = InaRails.find(root)
    if rails is not None:
        total = total_power_w(rails.read_mw())
        meters.append(IntegratingMeter(f"{total[1] if total else 'rails'} (INA)", rails.read_w))
    elif program := shutil.which("tegrastats"):
        tool = Tegrastats(program)
        meters.append(IntegratingMeter("module (tegrastats)", tool.read_w))
    else:
        missing.append("INA: no such sensor under /sys/class/hwmon that can be read, and no tegrastats")
    packages = sorted((root / "sys/class/powercap").glob("intel-rapl:?"))
    counters = [RaplMeter(folder) for folder in packages if _number(folder / "energy_uj") is not None]
    if not counters:
        missing.append("RAPL: no counter under /sys/class/powercap that this user may read")
    return Meters((*meters, *counters), tuple(missing), tool)


def _word(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(path: Path) -> float | None:
    word = _word(path)
    try:
        return None if word is None else float(word)
    except ValueError:
        return None
