"""Energy meters of the machine: NVIDIA's driver, Jetson's INA sensors, Intel's and AMD's RAPL counters.

A meter counts joules since some moment of its own. What a machine does not measure is not measured here: it is never
taken for zero.
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
    """Counts joules."""

    @property
    def name(self) -> str:
        """What it measures, for people and records: ``"VDD_IN (INA3221)"``."""

    def joules(self) -> float | None:
        """Since some moment; None where this reading failed."""


class IntegratingMeter:
    """Energy from readings of power, by trapezoids: as good as it is read often.

    Args:
        name: What it measures.
        read_w: Power of this moment, watts.
        clock: Seconds.
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
        """Up to now; None where the sensor did not answer."""
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
        folders: Of the sensors, ``/sys/class/hwmon/hwmon*``.
    """

    folders: tuple[Path, ...]

    @classmethod
    def find(cls, root: Path = Path("/")) -> InaRails | None:
        """The sensors of this machine, or None."""
        found = [f for f in sorted((root / "sys/class/hwmon").glob("hwmon*")) if _word(f / "name") in _INA_DRIVERS]
        rails = cls(tuple(found))
        return rails if found and rails.read_mw() else None

    def read_mw(self) -> dict[str, float]:
        """Rail -> milliwatts at this moment; a rail that cannot be read is left out."""
        return {rail: milliwatts for folder in self.folders for rail, milliwatts in _rails(folder)}

    def read_w(self) -> float | None:
        """Watts of the whole module."""
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
    """A GPU's own counter, or its power where it has none."""

    def __init__(self, gpu: Nvml) -> None:
        self.name = f"{gpu.name} (NVML)"
        counts = gpu.joules() is not None
        self._source: Callable[[], float | None] = (
            gpu.joules if counts else IntegratingMeter(self.name, lambda: gpu.sample().power_w).joules
        )

    def joules(self) -> float | None:
        """Of the board."""
        return self._source()


class RaplMeter:
    """The processor's counter (Documentation/power/powercap), in microjoules, which begins anew at its end.

    Args:
        folder: ``/sys/class/powercap/intel-rapl:0``, whose name AMD's driver uses too.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"processor {_word(folder / 'name') or folder.name} (RAPL)"
        self._folder = folder
        self._range = _number(folder / "max_energy_range_uj") or 0.0
        self._last = _number(folder / "energy_uj")
        self._total = 0.0

    def joules(self) -> float | None:
        """Of the package, without what lies beside it."""
        now = _number(self._folder / "energy_uj")
        if now is None or self._last is None:
            return None
        passed = now - self._last
        self._total += passed if passed >= 0 else passed + self._range
        self._last = now
        return self._total / 1e6


@dataclasses.dataclass(frozen=True)
class Meters:
    """What can be measured here.

    Attributes:
        meters: They may overlap: a Jetson's module has its GPU in it.
        missing: Why others are not there, for records.
        tool: Running beside us, where only it tells the power.
    """

    meters: tuple[EnergyMeter, ...]
    missing: tuple[str, ...]
    tool: Tegrastats | None = None

    def close(self) -> None:
        """End what runs beside us."""
        if self.tool is not None:
            self.tool.close()

    def read(self) -> dict[str, float | None]:
        """Joules by meter, each since its own beginning."""
        return {meter.name: meter.joules() for meter in self.meters}


def find_meters(root: Path = Path("/"), gpu: Nvml | None = None, no_gpu: str = "no NVIDIA GPU") -> Meters:
    """Every meter that answers.

    Args:
        root: Of the file system.
        gpu: Open, or None.
        no_gpu: Why there is none.
    """
    meters: list[EnergyMeter] = []
    missing = []
    if gpu is None:
        missing.append(f"NVML: {no_gpu}")
    elif (meter := NvmlMeter(gpu)).joules() is None:
        missing.append(f"NVML: {gpu.name} tells neither energy nor power")
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
