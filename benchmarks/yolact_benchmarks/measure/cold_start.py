"""Cold start of a model: the time that a fresh process takes to open it and to segment its first frame.

:func:`main` runs in that process. It imports the runtime and nothing else, so that its peak memory is that of a
deployed program. The files are in the page cache: the disk is not measured.
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

# -I keeps the current folder and the environment out of the child's imports: otherwise anyone who can write to the
# current folder could run code in the process that opens signed models. The child gets this process's import path.
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
    """Run a model in fresh processes, one after the other, and return the medians of their times.

    Args:
        model: Path of the model, as for :meth:`yolact_runtime.segmenter.Segmenter.open`.
        backend: Name of the backend, or ``"auto"``.
        precision: Precision of the bundle's network to open; None takes the default one.
        num_threads: Number of threads; 0 leaves the choice to the backend.
        size: Width and height of the frame, pixels.
        repeats: Number of processes.
        verify_keys: Public keys, one of which signed the bundle; if empty, no signature is checked.
        trust_engine: Whether the model is an engine without its bundle that the caller trusts.

    Returns:
        JSON object with milliseconds ``"python"`` (start of the interpreter), ``"import"``, ``"open"``,
        ``"first_frame"``, their sum ``"to_first_result"``, ``"later_frame"``, and with ``"peak_memory_mb"`` (None if
        the system does not account for it).

    Raises:
        BackendError: A process failed.
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
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"a fresh process could not run {model} (exit status {done.returncode}): {last}")
    figures: dict[str, float | None] = json.loads(done.stdout)
    return figures


def main(words: list[str]) -> int:
    """Open a model in a fresh process, segment some frames, and print the times as one JSON object.

    Args:
        words: Arguments that :func:`measure_cold_start` passes.
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
