"""Peak memory of a piece of work, by the kernel's own account."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

__all__ = ["peak_allocated_bytes", "peak_extra_bytes", "peak_resident_bytes", "resident_bytes"]


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """How far the resident memory of this process rises above its present level while `run` runs.

    Linux only: it resets and reads the high-water mark in ``/proc``, which sees NumPy, PyTorch and ONNX Runtime alike.
    Run the work once before, so that one-time set-up is not counted.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    run()
    return max(_status_bytes("VmHWM") - before, 0)


def peak_resident_bytes() -> int:
    """The most resident memory of this process since it began, or since the last :func:`peak_extra_bytes` began.

    Linux only. ``getrusage`` would count what a parent process held when it started this one.
    """
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Resident memory of this process now. Linux only."""
    return _status_bytes("VmRSS")


def peak_allocated_bytes(run: Callable[[], object]) -> int:
    """Most memory that Python and NumPy hold at once for `run`; blind to PyTorch and ONNX Runtime."""
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
