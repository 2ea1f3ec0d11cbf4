"""From nothing to the first instances: a fresh process that opens a model and segments a frame.

:func:`main` is that process; it imports the runtime and nothing else, so
its peak memory is what a robot needs. The files are in the system's cache: the disk is not measured.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolact_runtime.errors import BackendError

__all__ = ["main", "measure_cold_start"]

# -I keeps the current folder and the environment out of the child's imports: who can put a file where somebody stands
# would run code in the process that is to run what is signed. What this process imports from is given.
_BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from yolact_benchmarks.measure.cold_start import main
sys.exit(main(sys.argv[2:]))
"""
_LATER_FRAMES = 3
_TIMEOUT_S = 600


def measure_cold_start(
    model: Path,
    backend: str,
    precision: str | None,
    num_threads: int,
    size: tuple[int, int],
    repeats: int = 3,
    verify_keys: Sequence[Path] = (),
    trust_engine: bool = False,
) -> dict[str, Any]:
    """Medians of fresh processes, one after the other.

    Args:
        model: As for :meth:`yolact_runtime.segmenter.Segmenter.open`.
        backend: Its name, or ``"auto"``.
        precision: Of a bundle's networks, or None.
        num_threads: 0 leaves the choice to the backend.
        size: (width, height) of the frame.
        repeats: Processes.
        verify_keys: Public keys, one of which signed the bundle; none checks no signature.
        trust_engine: It is an engine without its bundle, which the caller vouches for.

    Returns:
        JSON object: milliseconds ``"python"`` (the interpreter starts), ``"import"``, ``"open"``, ``"first_frame"``,
        their sum ``"to_first_result"``, ``"later_frame"``, and ``"peak_memory_mb"`` (None where the system has no
        account of it).

    Raises:
        BackendError: The process failed.
    """
    trust = json.dumps({"verify_key": [str(key) for key in verify_keys] or None, "trust_engine": trust_engine})
    runs = [_run(model, backend, precision, num_threads, size, trust) for _ in range(repeats)]
    known = {name: [value for run in runs if (value := run[name]) is not None] for name in runs[0]}
    figures = {name: round(statistics.median(values), 2) if values else None for name, values in known.items()}
    return {**figures, "processes": repeats}


def _run(
    model: Path, backend: str, precision: str | None, num_threads: int, size: tuple[int, int], trust: str
) -> dict[str, float | None]:
    words = [str(model), backend, precision or "", str(num_threads), str(size[0]), str(size[1]), trust]
    command = [sys.executable, "-I", "-c", _BOOT, json.dumps(sys.path), *words]
    done = subprocess.run([*command, str(time.time_ns())], capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise BackendError(f"a fresh process could not run {model} (exit status {done.returncode}): {last}")
    figures: dict[str, float | None] = json.loads(done.stdout)
    return figures


def main(words: list[str]) -> int:
    """The fresh process: prints one JSON object.

    Args:
        words: As :func:`measure_cold_start` gives them.
    """
    model, backend, precision, threads, width, height, trust, started_ns = words
    python_ms = (time.time_ns() - int(started_ns)) / 1e6
    marks = [time.perf_counter()]
    import numpy as np

    from yolact_runtime.segmenter import Segmenter, SegmenterOptions

    frame = np.random.default_rng(0).integers(0, 256, (int(height), int(width), 3), np.uint8)
    marks.append(time.perf_counter())
    options = SegmenterOptions(min_confidence=0.3, num_threads=int(threads))
    with Segmenter.open(Path(model), backend, options, precision or None, **json.loads(trust)) as segmenter:
        for _ in range(2 + _LATER_FRAMES):
            marks.append(time.perf_counter())
            segmenter(frame)
    imported, opened, first, *later = ((b - a) * 1e3 for a, b in itertools.pairwise(marks))
    figures = {
        "python": python_ms,
        "import": imported,
        "open": opened,
        "first_frame": first,
        "to_first_result": python_ms + imported + opened + first,
        "later_frame": statistics.median(later),
        "peak_memory_mb": _peak_mb(),
    }
    print(json.dumps(figures))
    return 0


def _peak_mb() -> float | None:
    from yolact_benchmarks.machine.memory import peak_resident_bytes

    try:
        return peak_resident_bytes() / 1e6
    except OSError:
        return None
