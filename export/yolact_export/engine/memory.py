"""Host memory: how much there is, how much a build uses, and what to try if it is not enough.

A build is monitored from outside and ended if it uses too much. A limit set with ``RLIMIT_AS`` counts addresses, not
memory: CUDA reserves many gigabytes of them when it starts, so a useful limit would stop every build on a GPU, and
TensorRT answers a refused allocation with an abort or a misleading error. Jetsons share memory with the GPU, whose part
no process accounts for, so the memory that the system has left is monitored as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from yolact_export.engine.options import EngineOptions

__all__ = ["MemoryWatch", "available_bytes", "default_limit", "ladder"]

# Default share of the free memory at the start of a build that it may use.
_SHARE = 0.9
_RESERVE_BYTES = 192 << 20
# Smaller workspaces build nothing of YOLACT's size; and the first step down from an unlimited one.
_SMALLEST_WORKSPACE, _FIRST_WORKSPACE = 64 << 20, 1 << 30
_USUAL_LEVEL = 3


@dataclass
class MemoryWatch:
    """Monitor of one process's memory.

    Attributes:
        pid: Id of the process.
        limit_bytes: Maximum memory of the process in bytes; None for no limit.
        peak_bytes: Largest observed memory of the process in bytes.
    """

    pid: int
    limit_bytes: int | None
    peak_bytes: int = 0

    def excess(self) -> str | None:
        """Return why the process must be ended, or None."""
        used = _resident_bytes(self.pid)
        if used is None:
            return None
        self.peak_bytes = max(self.peak_bytes, used)
        if self.limit_bytes is not None and used > self.limit_bytes:
            return f"it used {_megabytes(used)}, but only {_megabytes(self.limit_bytes)} are allowed"
        left = _meminfo("MemAvailable")
        if left is not None and left < _RESERVE_BYTES:
            return f"this machine had only {_megabytes(left)} left, while it used {_megabytes(used)}"
        return None


def default_limit() -> int | None:
    """Return most of the memory that is free now; None if that is unknown."""
    available = available_bytes()
    return None if available is None else int(available * _SHARE)


def available_bytes() -> int | None:
    """Return the memory available without swapping: of the machine, or within the container's limit if that is less."""
    found = [value for value in (_meminfo("MemAvailable"), _left_in_control_group()) if value is not None]
    return min(found, default=None)


def ladder(options: EngineOptions) -> Iterator[EngineOptions]:
    """Yield options to try in order: as requested, then with a quarter of the workspace, then less effort."""
    yield options
    workspace = options.workspace_bytes or 4 * _FIRST_WORKSPACE
    level = _USUAL_LEVEL if options.optimisation_level is None else options.optimisation_level
    before = (options.workspace_bytes, level)
    for factor, most in ((4, level), (16, 1), (64, 0)):
        now = (max(workspace // factor, min(workspace, _SMALLEST_WORKSPACE)), min(level, most))
        if now != before:
            yield replace(options, workspace_bytes=now[0], optimisation_level=now[1])
        before = now


def _resident_bytes(pid: int) -> int | None:
    """Return the memory of a process, including what is swapped out."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    values = [int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "VmSwap:"))]
    return sum(values) if values else None


def _meminfo(field: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _left_in_control_group() -> int | None:
    """Return what a container's limit (control groups, version 2) leaves; reclaimable file pages count as free."""
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition(":")[2].lstrip("/")
        folder = root / own if (root / own / "memory.max").exists() else root
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        statistics = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    droppable = next((int(line.split()[1]) for line in statistics if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - used + droppable)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
