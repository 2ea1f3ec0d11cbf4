"""Import time of ``yolact_runtime`` beyond that of NumPy: ``python -m yolact_benchmarks.studies.startup``.

Fresh interpreters alternate: one imports NumPy, the other the runtime. ``python -X importtime`` measures each import
inside the process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import write_record

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a line, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    result = _measure(options.repeats)
    print(
        f"import numpy {result['numpy_ms']} ms, import yolact_runtime {result['runtime_ms']} ms with it: "
        f"{result['beyond_numpy_ms']} ms beyond NumPy (medians of {options.repeats})"
    )
    if options.results:
        command = f"python -m yolact_benchmarks.studies.startup --repeats {options.repeats}"
        write_record(options.results, "startup", result, command)
    return 0


def _measure(repeats: int) -> dict[str, Any]:
    samples: dict[str, list[float]] = {"numpy": [], "yolact_runtime": []}
    for _ in range(repeats):
        for package, times in samples.items():
            times.append(_import_ms(package))
    numpy_ms, runtime_ms = (statistics.median(times) for times in samples.values())
    return {
        "numpy_ms": round(numpy_ms, 1),
        "runtime_ms": round(runtime_ms, 1),
        "beyond_numpy_ms": round(runtime_ms - numpy_ms, 1),
        "repeats": repeats,
    }


def _import_ms(package: str) -> float:
    """Return the cumulative milliseconds of one import in a fresh interpreter, as counted by ``-X importtime``."""
    command = [sys.executable, "-X", "importtime", "-c", f"import {package}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    (line,) = (line for line in lines if line.split("|")[-1].strip() == package)
    return int(line.split("|")[1]) / 1000


if __name__ == "__main__":
    sys.exit(main())
