"""Execution of stages one after another; a stage that fails or hangs ends alone, and results are on disk after each."""

from __future__ import annotations

import fcntl
import os
import re
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.gpu.record import INTERRUPTED, NOT_RUN, keep_rows, read_rows, write_day
from yolact_benchmarks.studies.gpu.stage_options import NOT_MEASURED
from yolact_benchmarks.studies.gpu.stage_process import run_within, stage_environment
from yolact_benchmarks.studies.gpu.stages import Request, Stage
from yolact_runtime.errors import UsageError
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["Outcome", "run_stages", "table"]

LEAST_S = 3
"""Minimum time of a stage, seconds: with less time left, it is not started."""
_TAIL_LINES = 14
_LOGS_LIMIT_BYTES = 15 << 20
_PASSED = re.compile(r"\b\d+ passed\b")
_PROFILED = re.compile(r'^"\d+"', re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a stage.

    Attributes:
        name: Name of the stage.
        status: State of the stage: ``"ok"``, ``"not measured"``, ``"failed"``, ``"ended at its limit"``, ``"not run"``
            or ``"interrupted"``.
        seconds: Time that the stage took, seconds.
        limit_s: Time limit of the stage, seconds.
        detail: Exit status, or the reason why nothing was measured.
    """

    name: str
    status: str
    seconds: float
    limit_s: float
    detail: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether the stage was run and failed."""
        return self.status in {"failed", "ended at its limit"}


def run_stages(
    stages: Sequence[Stage],
    request: Request,
    gpu: dict[str, str],
    facts: dict[str, Any],
    within_s: float,
    reporter: Reporter = SILENT,
) -> list[Outcome]:
    """Run stages in order; rows and the record are on disk after each.

    Args:
        stages: Stages in order of value: when the time is over, the rest is not run.
        request: Paths and settings of the run.
        gpu: Description of the GPU by the driver, for the record.
        facts: Entries to add to every stage in the record, ``"command"`` among them.
        within_s: Time for all stages together, seconds.
        reporter: Reporter that receives a line for each stage, and each line of its log.

    Raises:
        OSError: The folders cannot be written.
        UsageError: Another run is using the folders.
    """
    began = time.monotonic()
    (request.work / "logs").mkdir(parents=True, exist_ok=True)
    request.output.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    entries: list[dict[str, Any]] = []
    with _alone(request.work), _alone(request.output):
        for stage in stages:
            started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            outcome = Outcome(stage.name, INTERRUPTED, 0.0, stage.limit_s)
            try:
                outcome = _run_stage(stage, request, within_s - (time.monotonic() - began), reporter)
            finally:
                outcomes.append(outcome)
                entries.append({**vars(outcome), "run": request.run, "started": started, **facts})
                reporter.say(f"##### {_line(outcome)}")
                _write(request, gpu, facts["command"], entries, reporter)
    return outcomes


def _line(outcome: Outcome) -> str:
    took = f"{outcome.seconds:.0f} of {outcome.limit_s:.0f} s"
    return f"{outcome.name}: {outcome.status}, {took} {outcome.detail}".rstrip()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a folder, because two runs at once would share rows, logs and the GPU."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UsageError(
            f"another run is using {folder}: wait for it, or give --output and --work of its own"
        ) from error
    finally:
        os.close(handle)


def _write(
    request: Request, gpu: dict[str, str], command: str, entries: Sequence[dict[str, Any]], reporter: Reporter
) -> None:
    """Write the record and the logs; a full disk loses these, but not the stages to come."""
    try:
        # Rows of earlier runs are removed once this run's have replaced them.
        if entries[-1]["status"] not in {NOT_RUN, INTERRUPTED}:
            keep_rows(request.rows, entries[-1]["name"], request.run)
        write_day(request.output, command, gpu, entries)
        _pack_logs(request, reporter)
    except OSError as error:
        reporter.say(f"##### the record could not be written: {error}")


def _run_stage(stage: Stage, request: Request, left_s: float, reporter: Reporter) -> Outcome:
    limit = min(float(stage.limit_s), left_s)
    why_not = stage.why_not() or ("" if limit >= LEAST_S else "out of time")
    if why_not:
        return Outcome(stage.name, NOT_RUN, 0.0, stage.limit_s, why_not)
    launches, log = request.work / "launches.txt", request.work / "logs" / f"{stage.name}.log"
    launches.unlink(missing_ok=True)
    if stage.writes:
        (request.output / stage.writes).unlink(missing_ok=True)
    arguments = stage.command(request)
    reporter.say(f"##### {stage.name}: at most {limit:.0f} s: {' '.join(arguments)}"[:400])
    started = time.monotonic()
    status = run_within(arguments, limit, log, request.root, stage_environment(stage, request, launches))
    seconds = time.monotonic() - started
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines[-_TAIL_LINES:]:
        reporter.say(line[:400])
    state, detail = _judge(stage, status, lines, request, launches)
    return Outcome(stage.name, state, seconds, limit, detail)


def _judge(stage: Stage, status: int | None, lines: Sequence[str], request: Request, launches: Path) -> tuple[str, str]:
    """Return the state of a stage and its detail; for a test suite, its last line."""
    closing = next((line.strip("= ") for line in reversed(lines) if _PASSED.search(line)), "") if stage.suite else ""
    if status is None:
        return "ended at its limit", closing
    if status == NOT_MEASURED:
        reasons = [row["not_measured"] for row in _own_rows(stage, request) if "not_measured" in row]
        return "not measured", "; ".join(map(str, reasons))
    if status:
        return "failed", f"exit status {status} {closing}".strip()
    if stage.suite and not closing:
        return "failed", "no test has passed"
    if stage.writes and not _PROFILED.search(_text(request.output / stage.writes)):
        return "failed", f"{stage.writes} holds no kernel: the last lines of the log say why"
    counted = _text(launches).split("\n")[:-1]
    if stage.launches and not counted:
        return "failed", f"no kernel was launched on the device; {closing}"
    if not counted:
        return "ok", closing
    total = sum(int(line.split()[0]) for line in counted)
    return "ok", f"{closing}; {total} {counted[0].partition(' ')[2]}"


def _own_rows(stage: Stage, request: Request) -> list[dict[str, Any]]:
    return [row for row in read_rows(request.rows) if (row["stage"], row.get("run")) == (stage.name, request.run)]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _pack_logs(request: Request, reporter: Reporter) -> None:
    """Pack all logs into one file beside the records, unless they are too large to be carried back."""
    staged, target = request.work / "logs.tgz", request.output / "logs.tgz"
    with tarfile.open(staged, "w:gz") as tar:
        tar.add(request.work / "logs", "logs")
    if staged.stat().st_size > _LOGS_LIMIT_BYTES:
        target.unlink(missing_ok=True)
        reporter.say(f"##### the logs are too large to be carried back; they are in {request.work / 'logs'}")
        return
    target.write_bytes(staged.read_bytes())


def table(outcomes: Sequence[Outcome], request: Request) -> list[str]:
    """Return the lines of the table that ends a run."""
    counts: dict[str, int] = {}
    for row in read_rows(request.rows):
        if row.get("run") == request.run:
            counts[row["stage"]] = counts.get(row["stage"], 0) + 1
    lines = [f"{'stage':14} {'outcome':20} {'seconds':>8} {'limit':>6} {'rows':>5}"]
    lines += [
        f"{each.name:14} {each.status:20} {each.seconds:8.1f} {each.limit_s:6.0f} {counts.get(each.name, 0):5}  "
        f"{each.detail}"
        for each in outcomes
    ]
    total, limit = sum(each.seconds for each in outcomes), sum(each.limit_s for each in outcomes)
    return [*lines, f"{'all':14} {'':20} {total:8.1f} {limit:6.0f}"]
