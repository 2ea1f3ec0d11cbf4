"""The project's tests, with a record: ``python -m yolact_benchmarks.studies.suite NAME -- tests/runtime``.

It is meant for environments other than the developers', such as a JetPack's Python, NumPy and CUDA: ``make jetpack6``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from yolact_benchmarks.report.record import write_record
from yolact_plugins.staging import scratch_folder

__all__ = ["count_outcomes", "installed_versions", "main"]

_PACKAGES = re.compile(r"numpy|torch|onnx|onnxruntime|opencv-python.*|cuda-bindings|nvidia-cuda-.*|tensorrt.*|pytest")
_OUTCOMES = ("failure", "error", "skipped")


def main(arguments: list[str] | None = None) -> int:
    """Run pytest, write the record, and return pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.suite", description=__doc__)
    parser.add_argument("name", help="name of the environment, such as jetpack6")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    parser.add_argument("tests", nargs="+", help="arguments for pytest, after --")
    options = parser.parse_args(arguments)
    with scratch_folder("suite") as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *options.tests]
        status = subprocess.run(command, check=False).returncode
        if options.results and report.exists():
            date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
            results = {"date": date, "environment": options.name, "versions": installed_versions()}
            results |= count_outcomes(report.read_text(encoding="utf-8"))
            tests = " ".join(options.tests)
            typed = f"python -m yolact_benchmarks.studies.suite {options.name} -- {tests}"
            print(write_record(options.results, f"suite-{options.name}", results, typed))
    return status


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that may affect the outcome, sorted by name."""
    found = {str(package.metadata["Name"]).lower(): package.version for package in importlib.metadata.distributions()}
    return {name: version for name, version in sorted(found.items()) if _PACKAGES.fullmatch(name)}


def count_outcomes(report: str) -> dict[str, Any]:
    """Count the outcomes in pytest's JUnit report.

    Args:
        report: Content of the XML file that pytest wrote.

    Returns:
        JSON object with the counts ``passed``, ``failed`` and ``skipped``, ``seconds``, the names of failed tests as
        ``failures``, and the number of skipped tests by reason as ``skips``.
    """
    suites = list(ElementTree.fromstring(report).iter("testsuite"))
    failures, skips, passed = set(), Counter[str](), 0
    for case in (case for suite in suites for case in suite.iter("testcase")):
        outcomes = {outcome.tag: outcome for outcome in case if outcome.tag in _OUTCOMES}
        if "failure" in outcomes or "error" in outcomes:
            failures.add(f"{case.get('classname')}.{case.get('name')}")
        elif "skipped" in outcomes:
            skips[outcomes["skipped"].get("message", "")] += 1
        else:
            passed += 1
    return {
        "passed": passed,
        "failed": len(failures),
        "skipped": sum(skips.values()),
        "seconds": round(sum(float(suite.get("time", 0)) for suite in suites)),
        "failures": sorted(failures),
        "skips": dict(sorted(skips.items())),
    }


if __name__ == "__main__":
    sys.exit(main())
