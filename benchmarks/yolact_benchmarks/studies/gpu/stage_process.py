"""One stage as a process group of its own: it ends at its limit or with this process, including all its children."""

from __future__ import annotations

import ctypes
import os
import signal
import site
import subprocess
from collections.abc import Sequence
from pathlib import Path

from yolact_benchmarks.studies.gpu.record import RUN_VARIABLE
from yolact_benchmarks.studies.gpu.stage_options import SCALE_VARIABLE
from yolact_benchmarks.studies.gpu.stages import Request, Stage, tool_path

__all__ = ["LAUNCHES_VARIABLE", "run_within", "stage_environment"]

SOURCES = ("runtime", "plugins", "calibration", "export", "benchmarks", "tests")
LAUNCHES_VARIABLE = "YOLACT_GPU_LAUNCHES"
_KILL_WAIT_S = 5
_SET_PARENT_DEATH_SIGNAL = 1
"""Constant ``PR_SET_PDEATHSIG`` of prctl(2)."""


def run_within(
    arguments: Sequence[str], limit_s: float, log: Path, root: Path, environment: dict[str, str]
) -> int | None:
    """Run a command until it ends or reaches the limit.

    Returns:
        Exit status; None if it reached the limit. Its children end with it, also if this process is interrupted.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def end_with_parent() -> None:
        libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)

    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Safe, because this process has one thread. If it is killed, the kernel ends the child.
            preexec_fn=end_with_parent,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.wait(_KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        # It hangs in the driver; the next stage can run anyway.
        return


def stage_environment(stage: Stage, request: Request, launches: Path) -> dict[str, str]:
    """Return the environment of a stage.

    All caches and home folders are inside the work folder, so that no library writes outside of it.
    """
    work = request.work
    paths = [*(str(request.root / source) for source in SOURCES), str(work / "site")]
    folders = {
        "HOME": work / "home",
        "XDG_CACHE_HOME": work / "cache",
        "TMPDIR": work / "tmp",
        "CUDA_CACHE_PATH": work / "cuda",
        "TRITON_CACHE_DIR": work / "triton",
        "TORCHINDUCTOR_CACHE_DIR": work / "inductor",
        "HYPOTHESIS_STORAGE_DIRECTORY": work / "hypothesis",
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        **{name: str(folder) for name, folder in folders.items()},
        "PATH": tool_path(),
        # Packages of this user stay visible although HOME is changed.
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        RUN_VARIABLE: request.run,
        SCALE_VARIABLE: str(request.scale),
        LAUNCHES_VARIABLE: str(launches),
        "YOLACT_KERNEL_SANITIZE": "1" if stage.quick else "0",
    }
