"""Disks that are full or not writable: limited file sizes, small and read-only file systems, errors at random steps.

If root may mount, there is a small tmpfs; otherwise, and in addition, a limit on the size of files and injected errors.
Silently wrong: the exit status is 0, and the output is incomplete or not whole. Torn: after a refusal, a truncated file
has a visible name, or results of an earlier run are lost. A refusal must name the file or its folder.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.case import Answer
from yolact_benchmarks.studies.bad_inputs.trial import run_forked
from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.campaigns.kills import choose_writer, clean_run, prepare_clean_runs
from yolact_benchmarks.studies.storm.faults import fail_from
from yolact_benchmarks.studies.storm.leftovers import find_leftovers
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, ok, silent
from yolact_benchmarks.studies.storm.stage import Stage
from yolact_benchmarks.studies.storm.writers import LIMITS, Writer, names_in, torn_files

__all__ = ["CAMPAIGN"]

_ERRORS = (errno.ENOSPC, errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES, errno.EDQUOT)
# linux/sched.h and linux/mount.h
_NEW_MOUNTS, _READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 0x20000, 1, 32, 16384, 1 << 18
Disturbed = Callable[[Stage, Writer, Path, random.Random], tuple[str, Answer]]


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng = attempt.rng
    writer = choose_writer(rng)
    folder = attempt.folder / "results"
    folder.mkdir()
    kind = rng.choice(list(_KINDS))
    over = rng.random() < 0.4
    what, answer = (
        _KINDS[kind](stage, writer, folder, random.Random(rng.random()))
        if not over
        else (_over(stage, writer, folder, rng))
    )
    return _judge(stage, writer, folder, f"{writer.name}, {what}", answer, over)


def _over(stage: Stage, writer: Writer, folder: Path, rng: random.Random) -> tuple[str, Answer]:
    """Run over the results of an earlier run, which fitted on the disk."""
    whole, *_ = clean_run(stage, writer)
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    what, answer = rng.choice((_injected, _limited))(stage, writer, folder, rng)
    return f"{what}, over earlier results", answer


def _limited(stage: Stage, writer: Writer, folder: Path, rng: random.Random) -> tuple[str, Answer]:
    # A smaller limit would cut off the error message, which goes to a file as well.
    size = int(10 ** rng.uniform(3.3, 6.7))
    limits = dataclasses.replace(LIMITS, largest_file_bytes=size)
    return f"files of at most {size} B", run_forked(partial(writer.call, stage, folder), limits)


def _injected(stage: Stage, writer: Writer, folder: Path, rng: random.Random) -> tuple[str, Answer]:
    _, num_steps, _ = clean_run(stage, writer)
    step, number, lasting = rng.randrange(num_steps), rng.choice(_ERRORS), rng.random() < 0.5

    def disturbed() -> int:
        fail_from(folder, step, number, lasting)
        return writer.call(stage, folder)

    how = "from" if lasting else "at"
    return f"{errno.errorcode[number]} {how} step {step} of {num_steps}", run_forked(disturbed, LIMITS)


def _small_disk(stage: Stage, writer: Writer, folder: Path, rng: random.Random) -> tuple[str, Answer]:
    size = int(10 ** rng.uniform(4, 7))
    if not _mount(folder, f"size={size}"):
        return _limited(stage, writer, folder, rng)
    return f"a disk of {size} B", run_forked(partial(writer.call, stage, folder), LIMITS)


def _read_only(stage: Stage, writer: Writer, folder: Path, rng: random.Random) -> tuple[str, Answer]:
    if os.geteuid() != 0:
        folder.chmod(0o555)
    elif not _mount(folder, "size=1m", read_only=True):
        return _injected(stage, writer, folder, rng)
    return "a read-only folder", run_forked(partial(writer.call, stage, folder), LIMITS)


_KINDS: dict[str, Disturbed] = {
    "limited": _limited,
    "injected": _injected,
    "small disk": _small_disk,
    "read-only": _read_only,
}


def _mount(folder: Path, options: str, read_only: bool = False) -> bool:
    """Mount a tmpfs for this process and its children; return False if that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(_NEW_MOUNTS) != 0:
        return False
    if libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None) != 0:
        return False
    flags = _READ_ONLY if read_only else 0
    return bool(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options.encode()) == 0)


def _judge(stage: Stage, writer: Writer, folder: Path, what: str, answer: Answer, over: bool) -> Finding:
    finding = judge_answer(answer, what)
    whole, *_ = clean_run(stage, writer)
    wanted, there = set(names_in(whole)), set(names_in(folder))
    torn = torn_files(folder)
    if finding.outcome is Outcome.OK:
        if torn or not wanted <= there:
            return silent(f"{what}: status 0, and not whole: {', '.join(torn or sorted(wanted - there))}")
    elif finding.outcome is not Outcome.REFUSED:
        return finding
    elif torn:
        return Finding(Outcome.TORN, f"{what}: not whole: {', '.join(torn)}")
    elif over and not wanted <= there:
        return Finding(Outcome.TORN, f"{what}: the earlier {', '.join(sorted(wanted - there))} is gone")
    elif not _names_a_file(answer, folder):
        return Finding(Outcome.TRACEBACK, f"{finding.what}: no file is named")
    left = find_leftovers(folder, Path(os.environ["TMPDIR"]))
    if left:
        return Finding(Outcome.LEFTOVER, f"{what}: {', '.join(left)}")
    return ok(what) if finding.outcome is Outcome.OK else finding


def _names_a_file(answer: Answer, folder: Path) -> bool:
    """Return whether an error names the folder, something in it, or the temporary folder."""
    places = (str(folder), os.environ["TMPDIR"])
    return any(place in line for line in answer.stderr.splitlines() for place in places)


CAMPAIGN = Campaign("disks", _attempt, 60, 1, prepare_clean_runs, seconds=400)
