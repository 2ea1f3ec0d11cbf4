from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from yolact_benchmarks.report.record import device_name
from yolact_benchmarks.studies.suite import count_outcomes, installed_versions, main
from yolact_benchmarks.studies.tables import render

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="2" tests="6" time="3.6">
<testcase classname="tests.a" name="passes" time="1"/>
<testcase classname="tests.a" name="fails"><failure message="x">y</failure></testcase>
<testcase classname="tests.a" name="fails_twice"><failure message="x"/></testcase>
<testcase classname="tests.a" name="fails_twice"><error message="in its teardown"/></testcase>
<testcase classname="tests.b" name="left_out"><skipped type="pytest.skip" message="no GPU"/></testcase>
<testcase classname="tests.b" name="too"><skipped type="pytest.skip" message="no GPU"/></testcase>
</testsuite></testsuites>
"""


def test_outcomes_are_counted_by_test() -> None:
    assert count_outcomes(REPORT) == {
        "passed": 1,
        "failed": 2,
        "skipped": 2,
        "seconds": 4,
        "failures": ["tests.a.fails", "tests.a.fails_twice"],
        "skips": {"no GPU": 2},
    }


def test_versions_are_those_of_packages_that_matter() -> None:
    versions = installed_versions()
    assert versions["numpy"] == np.__version__
    assert "hypothesis" not in versions


def test_a_run_leaves_a_record_and_a_row(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_passes(): pass\ndef test_fails(): assert False\n")
    words = ["jetpack9", "--results", str(tmp_path / "benchmarks/results"), "--", "-q", "-p", "no:cacheprovider"]
    assert main([*words, f"--rootdir={tmp_path}", "-c", "/dev/null", str(tmp_path / "test_it.py")]) == 1
    record = json.loads((tmp_path / "benchmarks/results" / device_name() / "suite-jetpack9.json").read_text())
    assert record["results"]["failures"] == ["test_it.test_fails"]
    table = render("<!-- table: suite -->\n<!-- end -->", tmp_path)
    assert f"| jetpack9 | {record['environment']['python']} | {np.__version__} |" in table
    assert f"| 1 | 1 | 0 | {record['results']['date']} |" in table
