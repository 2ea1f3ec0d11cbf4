"""Runs stages one after another, each in a process group of its own that ends at its limit; nothing stops the next."""

from __future__ import annotations

import os
import re
import signal
import site
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolact_benchmarks.gpu.record import drop_rows, earlier_stages, read_rows, write_day
from yolact_benchmarks.gpu.stage_options import SCALE_VARIABLE
from yolact_benchmarks.gpu.stages import Request, Stage

__all__ = ["Outcome", "run_stages", "table"]

SOURCES = ("runtime", "plugins", "calibration", "export", "benchmarks", "tests")
LAUNCHES_VARIABLE = "YOLACT_GPU_LAUNCHES"
_KILL_WAIT_S, _LEAST_S, _TAIL_LINES = 5, 3, 14
_LOGS_LIMIT_BYTES = 15 << 20
_PASSED = re.compile(r"\b\d+ passed\b")


@dataclass(frozen=True)
class Outcome:
    """How a stage ended.

    Attributes:
        name: Of the stage.
        status: ``"ok"``, ``"failed"``, ``"ended at its limit"``, ``"not run"``.
        seconds: It took.
        limit_s: It had.
        detail: Exit status, or why it was not run.
    """

    name: str
    status: str
    seconds: float
    limit_s: float
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        """It was run and did not end well."""
        return self.status not in {"ok", "not run"}


def run_stages(
    stages: Sequence[Stage],
    request: Request,
    gpu: dict[str, str],
    command: str,
    within_s: float,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Run stages in order; rows and the record are on the disk after each.

    Args:
        stages: In order of value: when the time is over, the rest is not run.
        request: Where everything lies.
        gpu: What the driver says of the GPU, for the record.
        command: What was typed, for the record.
        within_s: For all of them.
        say: Gets lines to print.
    """
    began = time.monotonic()
    (request.work / "logs").mkdir(parents=True, exist_ok=True)
    request.output.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for stage in stages:
        left = within_s - (time.monotonic() - began)
        outcome = _run_stage(stage, request, left, say)
        outcomes.append(outcome)
        say(
            f"##### {outcome.name}: {outcome.status}, {outcome.seconds:.0f} of {outcome.limit_s:.0f} s {outcome.detail}"
        )
        write_day(request.output, command, gpu, earlier_stages(request.output, [vars(each) for each in outcomes]))
        _pack_logs(request)
    return outcomes


def _run_stage(stage: Stage, request: Request, left_s: float, say: Callable[[str], None]) -> Outcome:
    limit = min(float(stage.limit_s), left_s)
    why_not = stage.why_not() or ("" if limit >= _LEAST_S else "the time of this run is over")
    if why_not:
        return Outcome(stage.name, "not run", 0.0, stage.limit_s, why_not)
    drop_rows(request.rows, stage.name)
    launches, log = request.work / "launches.txt", request.work / "logs" / f"{stage.name}.log"
    launches.unlink(missing_ok=True)
    arguments = stage.command(request)
    say(f"##### {stage.name}: at most {limit:.0f} s: {' '.join(arguments)}"[:400])
    started = time.monotonic()
    status = _run_within(arguments, limit, log, request.root, _environment(stage, request, launches))
    seconds = time.monotonic() - started
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[-_TAIL_LINES:]:
        say(line[:400])
    state, detail = _judge(stage, status, lines, launches)
    return Outcome(stage.name, state, seconds, limit, detail)


def _judge(stage: Stage, status: int | None, lines: Sequence[str], launches: Path) -> tuple[str, str]:
    """How it ended, and what is to be known of it; of a suite, its own last line."""
    closing = next((line.strip("= ") for line in reversed(lines) if _PASSED.search(line)), "") if stage.suite else ""
    if status is None:
        return "ended at its limit", closing
    if status:
        return "failed", f"exit status {status} {closing}".strip()
    if stage.suite and not closing:
        return "failed", "no test has passed"
    counted = launches.read_text(encoding="utf-8").split("\n")[:-1] if launches.exists() else []
    if stage.launches and not counted:
        return "failed", f"no kernel was launched on the device; {closing}"
    if not counted:
        return "ok", closing
    total = sum(int(line.split()[0]) for line in counted)
    return "ok", f"{closing}; {total} {counted[0].partition(' ')[2]}"


def _run_within(
    arguments: Sequence[str], limit_s: float, log: Path, root: Path, environment: dict[str, str]
) -> int | None:
    """Exit status; None where it was ended. Its children end with it, also when this process is interrupted."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # What it started ends too; a process that hangs in the driver is not waited for.
            _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.wait(_KILL_WAIT_S)
    except subprocess.TimeoutExpired:
        return


def _environment(stage: Stage, request: Request, launches: Path) -> dict[str, str]:
    """Nothing is written outside of the work folder, whatever a library keeps where it likes."""
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
        # Packages of this user stay visible although the home is another.
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        SCALE_VARIABLE: str(request.scale),
        LAUNCHES_VARIABLE: str(launches),
        "YOLACT_KERNEL_SANITIZE": "1" if stage.quick else "0",
    }


def _pack_logs(request: Request) -> None:
    """All logs in one file beside the records, unless they are too large to be carried back."""
    target = request.output / "logs.tgz"
    staged = request.work / "logs.tgz"
    with tarfile.open(staged, "w:gz") as tar:
        tar.add(request.work / "logs", "logs")
    if staged.stat().st_size <= _LOGS_LIMIT_BYTES:
        target.write_bytes(staged.read_bytes())


def table(outcomes: Sequence[Outcome], rows_path: Path) -> list[str]:
    """Lines to end a run with."""
    counts: dict[str, int] = {}
    for row in read_rows(rows_path):
        counts[row["stage"]] = counts.get(row["stage"], 0) + 1
    lines = [f"{'stage':14} {'outcome':20} {'seconds':>8} {'limit':>6} {'rows':>5}"]
    lines += [
        f"{each.name:14} {each.status:20} {each.seconds:8.1f} {each.limit_s:6.0f} {counts.get(each.name, 0):5}  "
        f"{each.detail}"
        for each in outcomes
    ]
    total, limit = sum(each.seconds for each in outcomes), sum(each.limit_s for each in outcomes)
    return [*lines, f"{'all':14} {'':20} {total:8.1f} {limit:6.0f}"]
