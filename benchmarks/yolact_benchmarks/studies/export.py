"""Time and memory of an export, including verification: ``python -m yolact_benchmarks.studies.export CHECKPOINT``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from yolact_benchmarks.machine.memory import peak_extra_bytes
from yolact_benchmarks.report.record import write_record
from yolact_plugins.staging import scratch_folder

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a line, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.export", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    result = _measure(options.checkpoint)
    print(
        f"{result['checkpoint']}: {result['seconds']} s, {result['extra_peak_mb']} MB above the imported libraries, "
        f"{result['extra_over_checkpoint']} x the checkpoint of {result['checkpoint_mb']} MB"
    )
    if options.results:
        name = f"export-{options.checkpoint.stem}"
        write_record(
            options.results, name, result, f"python -m yolact_benchmarks.studies.export {options.checkpoint.name}"
        )
    return 0


def _measure(checkpoint: Path) -> dict[str, Any]:
    # The libraries are loaded before the measurement begins, so that they do not count as a cost of the export.
    import onnxruntime  # noqa: F401

    from yolact_export.pipeline import export_checkpoint

    seconds = 0.0
    with scratch_folder("export") as folder:

        def export() -> None:
            nonlocal seconds
            started = time.perf_counter()
            export_checkpoint(checkpoint, Path(folder) / "model.bundle")
            seconds = time.perf_counter() - started

        extra = peak_extra_bytes(export)
    size = checkpoint.stat().st_size
    return {
        "checkpoint": checkpoint.name,
        "checkpoint_mb": round(size / 1e6, 1),
        "seconds": round(seconds, 1),
        "extra_peak_mb": round(extra / 1e6),
        "extra_over_checkpoint": round(extra / size, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
