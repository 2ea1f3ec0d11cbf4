"""A command run in a forked process, after everything is imported, so that thousands of tries take minutes."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from yolact_benchmarks.studies.bad_inputs.case import Answer, Case

__all__ = ["COMMANDS", "preload", "run_case"]

COMMANDS = {
    "yolact-eval": "yolact_benchmarks.commands.eval_cli",
    "yolact-export": "yolact_export.commands.cli",
    "yolact-finetune": "yolact_export.commands.finetune_cli",
    "yolact-run": "yolact_runtime.commands.run_cli",
}
_TIME_LIMIT_S = 60.0
_MEMORY_LIMIT_BYTES = 12 << 30
_POLL_S = 0.01


def preload() -> None:
    """Import what the commands import, once; forked processes share it."""
    for name in (*COMMANDS.values(), "cv2", "onnxruntime", "faster_coco_eval", "torch"):
        importlib.import_module(name)


def run_case(case: Case) -> Answer:
    """Run one try to its end, or for a minute."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        pid = os.fork()
        if pid == 0:
            _become(case, stdout, stderr)
        status = _wait(pid, case)
        return Answer(status, *(path.read_text(errors="replace") for path in (stdout, stderr)))


def _become(case: Case, stdout: Path, stderr: Path) -> NoReturn:
    """The child: the command, with files for its output and limits on what it may take."""
    status = 1
    try:
        os.setsid()
        for number, path in ((1, stdout), (2, stderr)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))
        if case.largest_file_bytes is not None:
            # Then write() fails, as it does on a full disk, instead of ending the process.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.largest_file_bytes, case.largest_file_bytes))
        main = importlib.import_module(COMMANDS[case.command]).main
        status = main(list(case.words))
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


def _wait(pid: int, case: Case) -> int | None:
    deadline = time.monotonic() + _TIME_LIMIT_S
    ending = case.ending
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if ending is not None and _num_lines(ending.file) >= ending.num_lines:
            os.kill(pid, ending.signal)
            ending = None
        time.sleep(_POLL_S)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _num_lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except OSError:
        return 0
