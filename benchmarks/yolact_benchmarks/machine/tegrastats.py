"""Lines of NVIDIA's ``tegrastats``, which every Jetson has: memory, clocks, temperatures, and power by rail.

The tool has no promised format. What is read here is what JetPack 5, 6 and 7 print on Orin and Thor: ``NAME value`` and
``NAME@value`` in any order. What a line does not have is None, and what is not understood is passed over.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import subprocess
import threading
from collections.abc import Mapping
from types import TracebackType

__all__ = ["TegraSample", "Tegrastats", "parse_tegrastats", "total_power_w"]

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_CORE = re.compile(r"(\d+)%@(\d+)")
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+)(?:,(\d+))*\]?)?")
_TEMPERATURE = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
# Now and, after the slash, the mean since the tool was started. Thor's idle GPU may read a little below zero.
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)mW(?:/(-?\d+)mW)?")
_OFF_C = -256.0
"""A sensor whose part is powered down."""

_WHOLE = ("VDD_IN", "VIN", "VDD_TOTAL", "POM_5V_IN")
"""Rails through which everything flows, where a board measures one."""
_INSIDE = {"VDDQ_VDD2_1V8AO", "NC"}
"""On AGX Orin it is fed by VIN_SYS_5V0, which has it already; NC is not connected."""


@dataclasses.dataclass(frozen=True)
class TegraSample:
    """One line.

    Attributes:
        ram_mb: In use.
        ram_total_mb: There is.
        core_load: By core that is on, 0 to 1.
        core_mhz: Median clock of those.
        gpu_load: 0 to 1.
        gpu_mhz: Of the first cluster; 0 is off.
        temperature_c: By sensor; those that are off are left out.
        rail_mw: Power at this moment, by rail.
    """

    ram_mb: int | None
    ram_total_mb: int | None
    core_load: tuple[float, ...]
    core_mhz: float | None
    gpu_load: float | None
    gpu_mhz: int | None
    temperature_c: Mapping[str, float]
    rail_mw: Mapping[str, int]


def parse_tegrastats(line: str) -> TegraSample | None:
    """What a line says; None where it says nothing of the kind."""
    ram, cpu, gpu = _RAM.search(line), _CPU.search(line), _GPU.search(line)
    cores = [(int(load) / 100, int(mhz)) for load, mhz in _CORE.findall(cpu[1])] if cpu else []
    heat = {name: float(value) for name, value in _TEMPERATURE.findall(line) if float(value) > _OFF_C}
    rails = {name: int(now) for name, now, _ in _RAIL.findall(line)}
    if not (ram or cores or heat or rails):
        return None
    return TegraSample(
        ram_mb=int(ram[1]) if ram else None,
        ram_total_mb=int(ram[2]) if ram else None,
        core_load=tuple(load for load, _ in cores),
        core_mhz=statistics.median(mhz for _, mhz in cores) if cores else None,
        gpu_load=int(gpu[1]) / 100 if gpu else None,
        gpu_mhz=int(gpu[2]) if gpu and gpu[2] else None,
        temperature_c=heat,
        rail_mw=rails,
    )


def total_power_w(rail_mw: Mapping[str, float]) -> tuple[float, str] | None:
    """Watts of the whole module, and which rails they are; None without rails.

    A rail through which everything flows is taken alone. Boards without one (AGX Orin) have rails beside each other,
    which add up: NVIDIA's guide gives VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0 as the module's.
    """
    for name in _WHOLE:
        if name in rail_mw:
            return rail_mw[name] / 1e3, name
    beside = {name: mw for name, mw in rail_mw.items() if name not in _INSIDE}
    return (sum(beside.values()) / 1e3, " + ".join(beside)) if beside else None


class Tegrastats:
    """The tool, running beside us. A context manager; :meth:`close` ends it.

    Args:
        program: Its path.
        interval_ms: Between lines.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, program: str = "tegrastats", interval_ms: int = 100) -> None:
        command = [program, "--interval", str(interval_ms)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._watts: float | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def read_w(self) -> float | None:
        """Watts of the whole module by the last line; None before there is one."""
        return self._watts

    def close(self) -> None:
        """End the tool. May be called again."""
        self.process.terminate()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            sample = parse_tegrastats(line)
            total = None if sample is None else total_power_w(sample.rail_mw)
            if total is not None:
                self._watts = total[0]

    def __enter__(self) -> Tegrastats:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
