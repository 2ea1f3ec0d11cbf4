"""What a GPU day writes: rows, one JSON line each, as they come; and a record in the folder of the GPU."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from yolact_benchmarks.record import environment
from yolact_runtime.terminal import write_atomically

__all__ = ["ROWS_NAME", "Rows", "drop_rows", "earlier_stages", "gpu_folder", "read_rows", "write_day"]

RECORD_NAME, ROWS_NAME = "gpu.json", "gpu.jsonl"


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
        line = json.dumps({"stage": self.stage, **fields}, allow_nan=False)
        print(line, flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def drop_rows(path: Path, stage: str) -> None:
    """Take out a stage's rows of an earlier run: it is about to write new ones."""
    kept = [row for row in read_rows(path) if row["stage"] != stage]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept).encode())


def earlier_stages(folder: Path, stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stages of the record in the folder that this run has not run again, then this run's."""
    path = folder / RECORD_NAME
    earlier = json.loads(path.read_bytes())["results"]["stages"] if path.exists() else []
    names = {stage["name"] for stage in stages}
    return [*(stage for stage in earlier if stage["name"] not in names), *stages]


def gpu_folder(results: Path, gpu_name: str) -> Path:
    """Folder of a GPU's records: ``"NVIDIA H100 80GB HBM3"`` -> ``<results>/nvidia-h100-80gb-hbm3``."""
    return results / (re.sub(r"[^a-z0-9]+", "-", gpu_name.lower()).strip("-") or "unnamed-gpu")


def write_day(folder: Path, command: str, gpu: dict[str, str], stages: list[dict[str, Any]]) -> Path:
    """Write ``gpu.json`` anew from the stages that ended and the rows of ``gpu.jsonl``.

    Args:
        folder: From :func:`gpu_folder`.
        command: What was typed.
        gpu: What the driver says of it.
        stages: Name, exit status, seconds and limit of each.
    """
    rows = read_rows(folder / ROWS_NAME)
    results = {"gpu": gpu, "stages": stages, "rows": rows}
    document = {"benchmark": "gpu", "command": command, "environment": environment(), "results": results}
    path = folder / RECORD_NAME
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
    return path
