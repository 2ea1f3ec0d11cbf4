"""Storage of records: one JSON file for each benchmark and device, with the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from yolact_calibration.report.provenance import describe_machine, installed_versions
from yolact_plugins.file_errors import naming
from yolact_plugins.files import write_atomically

__all__ = ["device_name", "environment", "write_record"]


def environment() -> dict[str, Any]:
    """Return the machine and the versions that a figure depends on."""
    return {**describe_machine(), "python": platform.python_version(), "packages": installed_versions()}


def device_name() -> str:
    """Return the folder name of this machine's records, such as ``cpu-2-intel-xeon``."""
    return re.sub(r"[^a-z0-9]+", "-", f"cpu-{os.cpu_count()}-{describe_machine()['cpu']}".lower()).strip("-")


def write_record(folder: Path, name: str, results: Any, command: str, device: str | None = None) -> Path:
    """Write ``<folder>/<device>/<name>.json`` and return its path.

    Args:
        folder: Folder ``benchmarks/results`` of the repository.
        name: Name of the benchmark.
        results: JSON-serialisable figures.
        command: Command line that gives these results.
        device: Name of the device's folder; None takes :func:`device_name`, that of this machine's CPU.
    """
    path = folder / (device or device_name()) / f"{name}.json"
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    document = {"benchmark": name, "command": command, "environment": environment(), "results": results}
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())
    return path
