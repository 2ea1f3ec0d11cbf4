"""Output of NVIDIA's ``tegrastats``, which every Jetson has: memory, clocks, temperatures, and power by rail.

The format of the tool is not documented as stable. The parser reads what JetPack 5, 6 and 7 print on Orin and Thor:
``NAME value`` and ``NAME@value`` in any order. Values missing from a line are None; unknown ones are ignored.
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
# The present value and, after the slash, the mean since the tool was started. Thor's idle GPU may read below zero.
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (-?\d+)mW(?:/(-?\d+)mW)?")
_OFF_C = -256.0
"""Reading of a sensor whose component is powered down."""

_WHOLE = ("VDD_IN", "VIN", "VDD_TOTAL", "POM_5V_IN")
"""Rails that supply the whole module, on boards that measure one."""
_INSIDE = {"VDDQ_VDD2_1V8AO", "NC"}
"""Rails not to add up: on AGX Orin, the first is fed by VIN_SYS_5V0, which includes it; NC is not connected."""


@dataclasses.dataclass(frozen=True)
class TegraSample:
    """One line of the tool's output.

    Attributes:
        ram_mb: Used memory, MB.
        ram_total_mb: Total memory, MB.
        core_load: Load of each online core, 0 to 1.
        core_mhz: Median clock of the online cores, MHz.
        gpu_load: Load of the GPU, 0 to 1.
        gpu_mhz: Clock of the GPU's first cluster, MHz; 0 if it is powered down.
        temperature_c: Temperature by sensor, degrees Celsius; sensors that are powered down are left out.
        rail_mw: Present power by rail, milliwatts.
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
    """Parse a line of output; return None if it holds none of the known values."""
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
    """Return the power of the whole module in watts, and the rails that it is computed from; None without rails.

    A rail that supplies the whole module is used alone. On boards without one (AGX Orin), the rails add up: NVIDIA's
    guide lists VDD_GPU_SOC, VDD_CPU_CV and VIN_SYS_5V0 as the module's.
    """
    for name in _WHOLE:
        if name in rail_mw:
            return rail_mw[name] / 1e3, name
    beside = {name: mw for name, mw in rail_mw.items() if name not in _INSIDE}
    return (sum(beside.values()) / 1e3, " + ".join(beside)) if beside else None


class Tegrastats:
    """A running process of ``tegrastats``, whose output is read by a thread. A context manager; :meth:`close` ends it.

    Args:
        program: Path of the program.
        interval_ms: Time between two lines of output, milliseconds.

    Raises:
        OSError: The program cannot be started.
    """

    def __init__(self, program: str = "tegrastats", interval_ms: int = 100) -> None:
        command = [program, "--interval", str(interval_ms)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._watts: float | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def read_w(self) -> float | None:
        """Return the power of the whole module by the last line, in watts; None before the first line."""
        return self._watts

    def close(self) -> None:
        """Stop the process. May be called again."""
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
