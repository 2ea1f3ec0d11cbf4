"""Execution of commands in forked processes, after all imports, so that thousands of tries take minutes."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from yolact_benchmarks.studies.bad_inputs.case import Answer, Case, Ending

__all__ = ["COMMANDS", "Limits", "call_command", "preload", "run_case", "run_forked"]

COMMANDS = {
    "yolact-bench": "yolact_benchmarks.commands.bench_cli",
    "yolact-eval": "yolact_benchmarks.commands.eval_cli",
    "yolact-export": "yolact_export.commands.cli",
    "yolact-finetune": "yolact_export.commands.finetune_cli",
    "yolact-run": "yolact_runtime.commands.run_cli",
}
_TIME_LIMIT_S = 60.0
_MEMORY_LIMIT_BYTES = 12 << 30
_POLL_S = 0.01
# linux/prctl.h
_SET_PARENT_DEATH_SIGNAL = 1


@dataclasses.dataclass(frozen=True)
class Limits:
    """Resource limits of a forked process.

    Attributes:
        seconds: Time after which it is killed, seconds; None stands for a minute.
        memory_bytes: Size of the address space, bytes.
        largest_file_bytes: Largest file size, beyond which writing fails as on a full disk; None sets no limit.
    """

    seconds: float | None = None
    memory_bytes: int = _MEMORY_LIMIT_BYTES
    largest_file_bytes: int | None = None


def preload() -> None:
    """Import the modules of all commands once; forked processes share them."""
    for name in (*COMMANDS.values(), "cv2", "onnxruntime", "faster_coco_eval", "torch"):
        importlib.import_module(name)


def run_case(case: Case) -> Answer:
    """Run one try until it ends, at most for a minute."""
    limits = Limits(largest_file_bytes=case.largest_file_bytes)
    return run_forked(partial(call_command, case.command, case.words), limits, case.ending)


def call_command(command: str, words: tuple[str, ...]) -> int:
    """Run a command in this process and return its exit status."""
    status: int = importlib.import_module(COMMANDS[command]).main(list(words))
    return status


def run_forked(action: Callable[[], int], limits: Limits | None = None, ending: Ending | None = None) -> Answer:
    """Run a function in a forked process and wait for its end.

    Args:
        action: Function to run, which returns the exit status; its output goes to files.
        limits: Resource limits of the process.
        ending: Signal that ends it from outside, or None.
    """
    limits = limits or Limits()
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(action, limits, parent, stdout, stderr)
        status = _wait(pid, _TIME_LIMIT_S if limits.seconds is None else limits.seconds, ending)
        return Answer(status, *(_read(path) for path in (stdout, stderr)))


def _read(path: Path) -> str:
    """Return the printed text; empty if the process ended before it could print."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _become(action: Callable[[], int], limits: Limits, parent: int, stdout: Path, stderr: Path) -> NoReturn:
    """Turn the child into the try: redirect its output, limit its resources, and let it die with its parent."""
    status = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() not in (parent, 0):  # 0: the parent is in another PID namespace
            os._exit(status)
        for number, path in ((1, stdout), (2, stderr)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _limit_memory(limits.memory_bytes)
        if limits.largest_file_bytes is not None:
            # With the signal ignored, write() fails as on a full disk, instead of ending the process.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limits.largest_file_bytes, limits.largest_file_bytes))
        status = action()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _limit_memory(num_bytes: int) -> None:
    """Limit the address space; a lower limit of an outer try is kept."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    least = num_bytes if hard == resource.RLIM_INFINITY else min(num_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (least, least))


def _wait(pid: int, seconds: float, ending: Ending | None) -> int | None:
    deadline = time.monotonic() + seconds
    ended = select.poll()
    descriptor = os.pidfd_open(pid)
    try:
        ended.register(descriptor, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if ended.poll((_POLL_S if ending is not None else left) * 1000):
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if ending is not None and _num_lines(ending.file) >= ending.num_lines:
                os.kill(pid, ending.signal)
                ending = None
        # Its process group exists once it has called setsid().
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finally:
        os.close(descriptor)
    return None


def _num_lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
