"""SIGKILL at random moments of every command that writes, and before random steps of its file operations.

A try kills a command, alone or over results of an earlier run, and then runs the same command again. Torn: a file under
a visible name is neither old and whole, nor new and whole, nor absent (which is only allowed if there was none before).
Left over: after the second run, the folder has other names than after an undisturbed run, or the temporary folder is
not empty.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from functools import cache
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.trial import run_forked
from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.faults import count_steps, kill_at
from yolact_benchmarks.studies.storm.leftovers import find_leftovers
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, ok, silent
from yolact_benchmarks.studies.storm.stage import Stage
from yolact_benchmarks.studies.storm.writers import (
    LIMITS,
    WRITERS,
    Writer,
    calibration_images,
    film,
    names_in,
    torn_files,
)

__all__ = ["CAMPAIGN", "choose_writer", "clean_run", "prepare_clean_runs"]


def prepare_clean_runs(stage: Stage) -> None:
    """Run the quick commands once, undisturbed, for all tries; a try of a slow command does that itself."""
    film(stage), calibration_images(stage)
    for writer in WRITERS:
        if writer.is_quick:
            clean_run(stage, writer)


@cache
def clean_run(stage: Stage, writer: Writer) -> tuple[Path, int, float]:
    """Run a command undisturbed; return its folder, its number of steps, and its duration in seconds.

    Raises:
        RuntimeError: It fails, so that no try would be meaningful.
    """
    folder = Path(tempfile.mkdtemp(prefix="clean-", dir=stage.folder))
    counts = folder.with_suffix(".steps")

    def counted() -> int:
        steps = count_steps(folder)
        status = writer.call(stage, folder)
        counts.write_text(str(len(steps)), encoding="utf-8")
        return status

    started = time.monotonic()
    answer = run_forked(counted, LIMITS)
    if answer.status != 0:
        raise RuntimeError(f"{writer.name} fails undisturbed: {answer.stderr}")
    return folder, int(counts.read_text(encoding="utf-8")), time.monotonic() - started


def choose_writer(rng: random.Random) -> Writer:
    """Draw a writer according to the shares."""
    return rng.choices(WRITERS, [writer.share for writer in WRITERS])[0]


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng = attempt.rng
    writer = choose_writer(rng)
    whole, num_steps, seconds = clean_run(stage, writer)
    folder = attempt.folder / "results"
    over = rng.random() < 0.5
    if over:
        shutil.copytree(whole, folder)
    else:
        folder.mkdir()
    step, share = rng.randrange(num_steps), rng.random()
    by_step = rng.random() < 0.6

    def killed() -> int:
        if by_step:
            kill_at(folder, step)
        else:
            _kill_after(share * seconds)
        return writer.call(stage, folder)

    answer = run_forked(killed, LIMITS)
    when = f"before step {step} of {num_steps}" if by_step else f"after {share:.0%} of its time"
    what = f"{writer.name} killed {when}"
    what += ", over earlier results" if over else ""
    if answer.status not in (0, -signal.SIGKILL):
        return judge_answer(answer, what)
    missing = sorted(set(names_in(whole)) - set(names_in(folder))) if over else []
    if torn := torn_files(folder):
        return Finding(Outcome.TORN, f"{what}: not whole: {', '.join(torn)}")
    if missing:
        return Finding(Outcome.TORN, f"{what}: the earlier {', '.join(missing)} is gone")
    return _again(stage, writer, whole, folder, what)


def _again(stage: Stage, writer: Writer, whole: Path, folder: Path, what: str) -> Finding:
    answer = writer.run(stage, folder)
    finding = judge_answer(answer, f"{what}, run again")
    if finding.outcome is Outcome.REFUSED:
        return Finding(Outcome.LEFTOVER, f"{finding.what}: the next run does not succeed")
    if finding.outcome is not Outcome.OK:
        return finding
    if torn := torn_files(folder):
        return silent(f"{what}, run again: not whole: {', '.join(torn)}")
    if names_in(folder) != names_in(whole):
        strange = sorted(set(names_in(folder)) ^ set(names_in(whole)))
        return Finding(Outcome.LEFTOVER, f"{what}, run again: {', '.join(strange)}")
    left = find_leftovers(folder, Path(os.environ["TMPDIR"]))
    return Finding(Outcome.LEFTOVER, f"{what}, run again: {', '.join(left)}") if left else ok(what)


def _kill_after(seconds: float) -> None:
    """Kill this process after some seconds, from a process that does nothing else."""
    # By pidfd: the process id may belong to another process once this one has ended.
    victim = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        try:
            time.sleep(seconds)
            signal.pidfd_send_signal(victim, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(victim)


CAMPAIGN = Campaign("kills", _attempt, 30, 1, prepare_clean_runs, seconds=400)
