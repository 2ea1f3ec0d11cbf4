from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.fake_nvml import FakeNvml
from yolact_benchmarks.machine.nvml import Nvml
from yolact_benchmarks.machine.power import InaRails, IntegratingMeter, NvmlMeter, RaplMeter, find_meters


def sensor(root: Path, number: int, name: str, files: dict[str, Any]) -> None:
    folder = root / "sys/class/hwmon" / f"hwmon{number}"
    folder.mkdir(parents=True)
    for file, value in {"name": name, **files}.items():
        (folder / file).write_text(f"{value}\n")


def orin_nx(root: Path) -> Path:
    """As Documentation/hwmon/ina3221.rst of the kernel describes the files: mV, mA, and a sum that is no channel."""
    rails = {"VDD_IN": (5008, 1960), "VDD_CPU_GPU_CV": (5000, 780), "VDD_SOC": (5000, 460)}
    files: dict[str, Any] = {}
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        files |= {f"in{channel}_label": label, f"in{channel}_input": millivolts, f"curr{channel}_input": milliamperes}
    sensor(root, 1, "ina3221", {**files, "in7_label": "sum of shunt voltages", "in7_input": 3})
    sensor(root, 0, "tmp451", {"temp1_input": 41000})
    return root


def test_the_rails_of_an_orin(tmp_path: Path) -> None:
    rails = InaRails.find(orin_nx(tmp_path))
    assert rails is not None
    assert rails.read_mw() == {"VDD_IN": 5008 * 1.96, "VDD_CPU_GPU_CV": 3900, "VDD_SOC": 2300}
    assert rails.read_w() == pytest.approx(9.81568)
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    assert rails.read_w() == pytest.approx(6.2)


def test_the_input_of_a_thor(tmp_path: Path) -> None:
    sensor(tmp_path, 2, "ina238", {"power1_input": 23_312_000})
    sensor(tmp_path, 3, "ina3221", {"in1_label": "VDD_GPU", "in1_input": 12000, "curr1_input": 400})
    rails = InaRails.find(tmp_path)
    assert rails is not None
    assert rails.read_w() == pytest.approx(23.312)


def test_power_becomes_energy() -> None:
    watts: list[float | None] = [10.0, 20.0, None, 20.0]
    seconds = iter([0.0, 2.0, 3.0, 4.0])
    meter = IntegratingMeter("x", lambda: watts.pop(0), lambda: next(seconds))
    assert [meter.joules() for _ in range(4)] == [0.0, 30.0, None, 70.0]


def test_a_counter_that_begins_anew(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    folder.mkdir(parents=True)
    for file, value in (("name", "package-0"), ("max_energy_range_uj", 10_000_000), ("energy_uj", 9_000_000)):
        (folder / file).write_text(str(value))
    meter = RaplMeter(folder)
    (folder / "energy_uj").write_text("9500000")
    assert meter.joules() == 0.5
    (folder / "energy_uj").write_text("1000000")
    assert meter.joules() == 2.0
    assert [one.name for one in find_meters(tmp_path).meters] == ["processor package-0 (RAPL)"]
    (folder / "energy_uj").write_text("?")
    assert meter.joules() is None


def test_a_gpu_that_counts_and_one_that_does_not() -> None:
    library = FakeNvml(power_mw=[200_000], energy_mj=[5000, 5000, 7500])
    gpu = Nvml(library=library)
    meter = NvmlMeter(gpu)
    assert [meter.joules(), meter.joules()] == [5.0, 7.5]
    old = Nvml(library=FakeNvml(power_mw=[200_000], energy_mj=None))
    assert old.joules() is None
    assert NvmlMeter(old).joules() == 0.0


def test_nothing_to_read_is_said_and_is_not_zero(tmp_path: Path) -> None:
    meters = find_meters(tmp_path, no_gpu="the package nvidia-ml-py is not installed")
    assert meters.meters == ()
    assert meters.read() == {}
    assert [reason.split(":")[0] for reason in meters.missing] == ["NVML", "INA", "RAPL"]
    silent = find_meters(tmp_path, Nvml(library=FakeNvml(power_mw=None, energy_mj=None)))
    assert "reports neither energy nor power" in silent.missing[0]
