"""Files of a GPU day: rows, one JSON line each, as they are measured; and a record in the folder of the GPU.

Every row names its run, and the record pairs each stage with the rows of its own run: a run that was killed, or a
process that was left behind, adds nothing to the figures of another run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import write_record
from yolact_plugins.files import write_atomically

__all__ = [
    "INTERRUPTED",
    "NOT_RUN",
    "ROWS_NAME",
    "RUN_VARIABLE",
    "Rows",
    "gpu_folder",
    "keep_rows",
    "read_record",
    "read_rows",
    "write_day",
]

RECORD_NAME, ROWS_NAME = "gpu.json", "gpu.jsonl"
RUN_VARIABLE = "YOLACT_GPU_RUN"
"""Environment variable with the run that a stage belongs to."""


NOT_RUN, INTERRUPTED = "not run", "interrupted"


class Rows:
    """Writer that appends a stage's rows to a file that several stages share, and prints them.

    Args:
        stage: Name of the stage, in every row.
        path: Path of the file; None only prints the rows.
    """

    def __init__(self, stage: str, path: Path | None = None) -> None:
        self.stage, self._path = stage, path

    def write(self, **fields: Any) -> None:
        """Write one row; it is on disk when this returns, because the process may be killed at any time.

        Raises:
            ValueError: A value is NaN or infinite; what was not measured must be left out.
        """
        row = {"stage": self.stage, "run": os.environ.get(RUN_VARIABLE, ""), **fields}
        line = json.dumps(row, allow_nan=False)
        print(line, flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read all rows; a line that a kill truncated is skipped."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def keep_rows(path: Path, stage: str, run: str) -> None:
    """Remove a stage's rows of other runs, once this run's are complete."""
    kept = [row for row in read_rows(path) if row["stage"] != stage or row.get("run") == run]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())


def gpu_folder(results: Path, gpu_name: str) -> Path:
    """Return the folder of a GPU's records: ``"NVIDIA H100 80GB HBM3"`` -> ``<results>/nvidia-h100-80gb-hbm3``."""
    return results / (re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-") or "unnamed-gpu")


def read_record(folder: Path) -> list[dict[str, Any]]:
    """Read the stages of the record in a folder; an unreadable record is renamed to ``gpu.json.damaged``."""
    path = folder / RECORD_NAME
    try:
        stages = json.loads(path.read_bytes())["results"]["stages"]
        # These keys are looked up so that their absence raises KeyError.
        return [{**stage, **{key: stage[key] for key in ("name", "status", "run")}} for stage in stages]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        path.replace(folder / f"{RECORD_NAME}.damaged")
        return []


def write_day(folder: Path, command: str, gpu: dict[str, str], stages: Sequence[dict[str, Any]]) -> Path:
    """Write ``gpu.json``, merged with the stages of the earlier record.

    Args:
        folder: Folder from :func:`gpu_folder`.
        command: Command line of this run; each stage has its own as well.
        gpu: Description of the GPU by its driver.
        stages: Stages of this run, which replace those of the same name in the record, unless they were not run.
    """
    earlier = {stage["name"]: stage for stage in read_record(folder)}
    merged = {name: stage for name, stage in earlier.items() if name not in {each["name"] for each in stages}}
    for stage in stages:
        kept = stage["status"] in {NOT_RUN, INTERRUPTED}
        merged[stage["name"]] = earlier.get(stage["name"], stage) if kept else stage
    runs = {name: stage["run"] for name, stage in merged.items()}
    rows = [row for row in read_rows(folder / ROWS_NAME) if runs.get(row["stage"]) == row.get("run")]
    results = {"gpu": gpu, "stages": list(merged.values()), "rows": rows}
    return write_record(folder.parent, "gpu", results, command, folder.name)
