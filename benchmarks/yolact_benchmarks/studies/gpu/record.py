"""What a GPU day writes: rows, one JSON line each, as they come; and a record in the folder of the GPU.

Every row carries the run that it is of, and the record pairs each stage with the rows of its own run: a run that was
killed, or a process that was left behind, adds nothing to another's figures.
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
"""The run that a stage belongs to, in its environment."""


NOT_RUN, INTERRUPTED = "not run", "interrupted"


class Rows:
    """Appends a stage's rows to a file that several stages share, and prints them.

    Args:
        stage: Name of the stage, in every row.
        path: None prints only.
    """

    def __init__(self, stage: str, path: Path | None = None) -> None:
        self.stage, self._path = stage, path

    def write(self, **fields: Any) -> None:
        """One row, on the disk when this returns: the process may be killed at any time.

        Raises:
            ValueError: A value is NaN or infinite: what was not measured is left out.
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
    """All rows; a line that a kill cut short is left out."""
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
    """Take out a stage's rows of other runs, once this run's are complete."""
    kept = [row for row in read_rows(path) if row["stage"] != stage or row.get("run") == run]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())


def gpu_folder(results: Path, gpu_name: str) -> Path:
    """Folder of a GPU's records: ``"NVIDIA H100 80GB HBM3"`` -> ``<results>/nvidia-h100-80gb-hbm3``."""
    return results / (re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-") or "unnamed-gpu")


def read_record(folder: Path) -> list[dict[str, Any]]:
    """The stages of the record in a folder; a record that cannot be read is set aside, as ``gpu.json.damaged``."""
    path = folder / RECORD_NAME
    try:
        stages = json.loads(path.read_bytes())["results"]["stages"]
        # Looked up for their absence, which is an error.
        return [{**stage, **{key: stage[key] for key in ("name", "status", "run")}} for stage in stages]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        path.replace(folder / f"{RECORD_NAME}.damaged")
        return []


def write_day(folder: Path, command: str, gpu: dict[str, str], stages: Sequence[dict[str, Any]]) -> Path:
    """Write ``gpu.json`` anew.

    Args:
        folder: From :func:`gpu_folder`.
        command: The latest that was typed; stages have theirs.
        gpu: What the driver says of it.
        stages: This run's, which replace those of the same name in the record, except by not having been run.
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
