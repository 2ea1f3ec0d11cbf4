from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

from support.html_checker import read_page
from yolact_calibration.report import provenance as module
from yolact_calibration.report.provenance import (
    describe_machine,
    draw_byline,
    draw_provenance,
    file_entry,
    installed_versions,
    machine_text,
    now_utc,
    provenance,
)


def test_a_page_of_today_tells_everything(tmp_path: Path) -> None:
    (tmp_path / "a <b>.pth").write_bytes(b"weights")
    made = provenance("yolact-finetune 'a <b>.pth'", [file_entry("Checkpoint", tmp_path / "a <b>.pth")])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", made["date"])
    found = read_page(draw_byline(made) + draw_provenance(made, [("Variables", "A=1")]))
    entries = dict(zip(found.texts("dt"), found.texts("dd"), strict=True))
    assert list(entries) == ["Date", "Command", "Checkpoint", "Versions", "Machine", "Variables"]
    assert entries["Command"] == "yolact-finetune 'a <b>.pth'"
    assert entries["Checkpoint"] == f"a <b>.pthSHA-256 {hashlib.sha256(b'weights').hexdigest()}"
    assert f"numpy {np.__version__}" in entries["Versions"]
    assert f"{os.cpu_count()} core" in entries["Machine"]
    assert found.texts("p")[0].startswith("a <b>.pth · 20")


def test_what_is_not_known_is_not_shown() -> None:
    assert draw_byline({}) == draw_provenance({}) == ""
    found = read_page(draw_provenance({"date": now_utc(), "command": "", "files": [{"role": "Model", "name": "a"}]}))
    assert found.texts("dt") == ["Date", "Model"]
    assert found.texts("dd")[1] == "a"


def test_a_bundle_is_known_by_its_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.bundle").mkdir()
    (tmp_path / "m.bundle" / "manifest.json").write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    expected = {"role": "Model", "name": "m.bundle/manifest.json", "sha256": digest}
    assert file_entry("Model", tmp_path / "m.bundle") == expected
    monkeypatch.chdir(tmp_path / "m.bundle")
    assert file_entry("Model", Path()) == expected
    # A digest that is known is not made again: the file need not be there.
    assert file_entry("Data", tmp_path / "gone.json", "ab")["sha256"] == "ab"
    with pytest.raises(FileNotFoundError):
        file_entry("Data", tmp_path / "gone.json")


def test_boards_and_gpus_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, cpu, gpus = tmp_path / "model", tmp_path / "cpuinfo", tmp_path / "gpus"
    for name, attribute in ((board, "_BOARD"), (cpu, "_CPU"), (gpus, "_GPUS")):
        monkeypatch.setattr(module, attribute, name)
    cpu.write_text("processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU E5 @ 2.20GHz\n")
    assert (describe_machine()["cpu"], describe_machine()["gpus"]) == ("Intel Xeon  E5", [])
    for place in ("0000:01:00.0", "0000:02:00.0"):
        (gpus / place).mkdir(parents=True)
        (gpus / place / "information").write_text("Model: \t\t NVIDIA H100\nIRQ:   \t 17\n")
    board.write_bytes(b"NVIDIA Jetson Orin Nano\0")
    machine = describe_machine()
    assert (machine["cpu"], machine["gpus"]) == ("NVIDIA Jetson Orin Nano", ["NVIDIA H100"] * 2)
    assert machine_text({**machine, "cores": 1}).startswith("NVIDIA Jetson Orin Nano, 1 core, NVIDIA H100, NVIDIA H100")


def test_versions_are_those_of_packages_that_are_there() -> None:
    versions = installed_versions()
    assert versions["numpy"] == np.__version__
    assert set(versions) >= {"torch", "onnx", "onnxruntime"}
