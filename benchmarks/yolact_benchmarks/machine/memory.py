"""Peak memory of a piece of work, as accounted by the kernel."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

__all__ = ["peak_allocated_bytes", "peak_extra_bytes", "peak_resident_bytes", "resident_bytes"]


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """Return how far the resident memory of this process rises above its present level while `run` runs, in bytes.

    Linux only: the high-water mark in ``/proc`` is reset and read; it covers NumPy, PyTorch and ONNX Runtime alike. Run
    the work once before, so that one-time initialisation is not counted.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    run()
    return max(_status_bytes("VmHWM") - before, 0)


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process since its start or the last :func:`peak_extra_bytes`, in bytes.

    The figure exists on Linux only. ``getrusage`` would include what the parent process held when it started this one.
    """
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Return the resident memory of this process now, in bytes (Linux only)."""
    return _status_bytes("VmRSS")


def peak_allocated_bytes(run: Callable[[], object]) -> int:
    """Return the peak of bytes allocated by Python and NumPy during `run`; PyTorch and ONNX Runtime are not covered."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
