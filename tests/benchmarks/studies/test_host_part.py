from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.tools import needs_tool
from yolact_benchmarks.report.record import device_name
from yolact_benchmarks.studies import host_part
from yolact_benchmarks.studies.tables import render


@needs_tool("g++")
def test_both_versions_take_turns_and_leave_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The earlier version is this one, too: what is tested is that it runs, not what it finds."""
    monkeypatch.setattr(host_part, "SCENES", ("1 instance",))
    words = ["--quick", "--rounds", "2", "--repeats", "4", "--before", str(host_part.ROOT)]
    assert host_part.main([*words, "--results", str(tmp_path / "benchmarks/results")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    record = json.loads((tmp_path / "benchmarks/results" / device_name() / "host-part.json").read_text())
    rows = record["results"]["rows"]
    assert [(row["version"], row["source"]) for row in rows] == [
        (version, source) for version in ("before", "now") for source in ("array", "frame_buffer")
    ]
    for row in rows:
        assert set(row["us"]) == set(host_part.STAGES)
        assert all(us > 0 for us in (*row["us"].values(), *row["masks_us"].values()))
    lines = render("<!-- table: host_part -->\n<!-- end -->", tmp_path).splitlines()
    assert lines[3].startswith(f"| 1 instance, {rows[0]['runs']} runs | before (")
    assert "| 1.0 x |" in lines[3]
    assert "| now, a frame buffer |" in lines[6]


def test_rounds_become_their_medians() -> None:
    rounds = [{"array": {"call": us}, "masks": {"rle": 2 * us}} for us in (9.0, 1.0, 3.0)]
    assert host_part.summarise(rounds) == {"array": {"call": 3.0}, "masks": {"rle": 6.0}}


def test_a_version_that_cannot_measure_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="measures before ended with status 1"):
        host_part.Contender("before", tmp_path, "no such scene", quick=True)
