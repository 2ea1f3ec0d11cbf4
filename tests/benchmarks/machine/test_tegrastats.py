"""Lines as the tool prints them on the machines named.

The format is that of NVIDIA's documentation of the tool (Jetson Linux Developer Guide, "tegrastats Utility") and of
logs that users of Jetson boards have posted publicly; the figures here are made up.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolact_benchmarks.machine.tegrastats import Tegrastats, parse_tegrastats, total_power_w

# JetPack 5: sensors that are off read -256, and the clock of the GPU is in brackets.
AGX_ORIN = (
    "RAM 5211/30536MB (lfb 4713x4MB) SWAP 0/15268MB (cached 0MB) CPU [12%@1728,0%@1728,4%@1728,0%@1728,off,off,off,off,"
    "7%@729,0%@729,0%@729,0%@729] EMC_FREQ 3%@2133 GR3D_FREQ 61%@[611,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@45.593C "
    "Tboard@34C SOC2@42.343C Tdiode@36.25C SOC0@42.375C CV1@-256C GPU@43.1C tj@45.593C SOC1@41.468C CV2@-256C "
    "VDD_GPU_SOC 6412mW/5120mW VDD_CPU_CV 1203mW/1100mW VIN_SYS_5V0 4525mW/4400mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 702mW/690mW NC 0mW/0mW"
)
# JetPack 6: a time stamp, lower-case sensors, one rail for everything.
ORIN_NX = (
    "11-14-2025 22:54:33 RAM 4300/15656MB (lfb 1x4MB) SWAP 113/7828MB (cached 0MB) CPU [6%@1510,8%@1510,4%@1510,"
    "1%@1510,0%@729,0%@729,off,off] EMC_FREQ 0%@3199 GR3D_FREQ 45%@[917] NVDEC off NVJPG off VIC off OFA off APE 200 "
    "cpu@52.468C soc2@50.375C soc0@50.312C gpu@51.5C tj@52.468C soc1@51.031C VDD_IN 9872mW/8123mW "
    "VDD_CPU_GPU_CV 3912mW/3021mW VDD_SOC 2301mW/2210mW"
)
# JetPack 7: three clusters, a GPU that may read below zero when idle, and the input of the board.
THOR = (
    "08-02-2026 10:02:11 RAM 21034/125772MB (lfb 3x4MB) SWAP 0/0MB (cached 0MB) CPU [3%@2601,0%@2601,1%@972,0%@972,"
    "0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,0%@972,2%@972] EMC_FREQ 1%@4266 GR3D_FREQ "
    "0%@[315,315,315] NVENC0_FREQ off tj@48.406C soc012@47.187C cpu@46.156C soc345@48.406C gpu@45.2C "
    "VDD_GPU -392mW/110mW VDD_CPU_SOC_MSS 6512mW/6400mW VIN_SYS_5V0 6523mW/6500mW VIN 23312mW/22900mW"
)


def test_agx_orin() -> None:
    sample = parse_tegrastats(AGX_ORIN)
    assert sample is not None
    assert (sample.ram_mb, sample.ram_total_mb) == (5211, 30536)
    assert sample.core_load == (0.12, 0, 0.04, 0, 0.07, 0, 0, 0)
    assert sample.core_mhz == (1728 + 729) / 2
    assert (sample.gpu_load, sample.gpu_mhz) == (0.61, 611)
    assert sample.temperature_c["GPU"] == 43.1
    assert "CV0" not in sample.temperature_c
    assert sample.rail_mw["VDD_GPU_SOC"] == 6412
    # VDDQ_VDD2_1V8AO is inside VIN_SYS_5V0.
    assert total_power_w(sample.rail_mw) == (12.14, "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0")


def test_orin_nx() -> None:
    sample = parse_tegrastats(ORIN_NX)
    assert sample is not None
    assert len(sample.core_load) == 6
    assert (sample.gpu_load, sample.gpu_mhz, sample.temperature_c["tj"]) == (0.45, 917, 52.468)
    assert total_power_w(sample.rail_mw) == (9.872, "VDD_IN")


def test_thor() -> None:
    sample = parse_tegrastats(THOR)
    assert sample is not None
    assert (sample.ram_mb, len(sample.core_load), sample.gpu_mhz) == (21034, 14, 315)
    assert sample.rail_mw["VDD_GPU"] == -392
    assert total_power_w(sample.rail_mw) == (23.312, "VIN")
    inside = {name: mw for name, mw in sample.rail_mw.items() if name != "VIN"}
    total = total_power_w(inside)
    assert total is not None
    assert total[0] == pytest.approx(12.643)


def test_an_older_gpu_field_and_a_line_cut_short() -> None:
    sample = parse_tegrastats("RAM 1/2MB (lfb 1x4MB) CPU [off,off] GR3D_FREQ 0%@0 GR3D2_FREQ 0%@0")
    assert sample is not None
    assert (sample.core_load, sample.core_mhz, sample.gpu_mhz, sample.rail_mw) == ((), None, 0, {})
    cut = parse_tegrastats(ORIN_NX[:60])
    assert cut is not None
    assert cut.gpu_load is None
    assert total_power_w(cut.rail_mw) is None


def test_the_running_tool_gives_the_power_of_this_moment(tmp_path: Path) -> None:
    tool = tmp_path / "tegrastats"
    tool.write_text(f"#!/bin/sh\necho '{AGX_ORIN}'\necho noise\necho '{ORIN_NX}'\nexec sleep 60\n")
    tool.chmod(0o755)
    with Tegrastats(str(tool)) as running:
        while running.read_w() != 9.872:
            pass
    assert running.process.returncode is not None


@given(st.text(max_size=200))
def test_any_other_text_says_nothing_or_little(line: str) -> None:
    sample = parse_tegrastats(line)
    assert sample is None or isinstance(sample.rail_mw, dict)
    assert parse_tegrastats("") is None
