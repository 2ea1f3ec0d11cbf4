"""One try of a campaign, in a process and a folder of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from yolact_benchmarks.studies.bad_inputs.case import Answer
from yolact_benchmarks.studies.bad_inputs.trial import Limits, call_command, run_forked
from yolact_benchmarks.studies.storm.leftovers import find_leftovers
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, judge_answer, refused
from yolact_benchmarks.studies.storm.stage import Stage
from yolact_plugins.errors import YolactError

__all__ = ["Attempt", "Campaign", "run_attempt"]

_MORE_MEMORY_BYTES = 4 << 30
_COMMAND_S = 60.0
_FINDING = "finding.json"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What one try is given.

    Attributes:
        rng: Of this try alone, so that it can be made again.
        number: Of the try in its campaign, from 0.
        folder: An empty folder, in which the try works; it is removed afterwards.
    """

    rng: random.Random
    number: int
    folder: Path

    def run(self, command: str, words: tuple[object, ...], largest_file_bytes: int | None = None) -> Answer:
        """Run a command in a process of its own."""
        limits = Limits(_COMMAND_S, largest_file_bytes=largest_file_bytes)
        return run_forked(partial(call_command, command, tuple(map(str, words))), limits)


@dataclasses.dataclass(frozen=True)
class Campaign:
    """Tries of one kind.

    Attributes:
        name: What is attacked.
        attempt: Makes one try and judges it. An error of this project that it raises is a refusal.
        share: How many of 1,000 tries are of this campaign.
        quick: How many tries a quick storm makes.
        prepare: Computes on the stage what all tries share.
        seconds: After them a try hangs.
    """

    name: str
    attempt: Callable[[Stage, Attempt], Finding]
    share: int
    quick: int
    prepare: Callable[[Stage], object] = lambda _: None
    seconds: float = 60.0


def run_attempt(campaign: Campaign, stage: Stage, seed: int, number: int) -> Finding:
    """Make one try in a forked process, and judge how that process ended and what it left behind."""
    with tempfile.TemporaryDirectory(prefix="storm-", dir=stage.folder) as name:
        folder = Path(name)
        for part in ("try", "tmp", "home"):
            (folder / part).mkdir()
        rng = random.Random(f"{campaign.name}:{seed}:{number}")
        attempt = Attempt(rng, number, folder / "try")
        limits = Limits(campaign.seconds, _address_space_bytes() + _MORE_MEMORY_BYTES)
        answer = run_forked(partial(_make, campaign, stage, attempt, folder), limits)
        finding = _read_finding(answer, folder / _FINDING)
        if not finding.is_failure and (left := find_leftovers(folder / "try", folder / "tmp")):
            finding = Finding(Outcome.LEFTOVER, f"{finding.what}: left behind: {', '.join(left)}")
        # Where the storm's folder is differs from run to run, and is nobody's business.
        return dataclasses.replace(finding, what=finding.what.replace(f"{folder}/", "").replace(f"{stage.folder}/", ""))


def _make(campaign: Campaign, stage: Stage, attempt: Attempt, folder: Path) -> int:
    """In the child: surroundings of its own, the try, and what came of it as a file."""
    os.chdir(attempt.folder)
    os.environ |= {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "home"), "HOME": str(folder / "home")}
    tempfile.tempdir = None
    try:
        finding = campaign.attempt(stage, attempt)
    except YolactError as error:
        finding = refused(campaign.name, error)
    content = json.dumps([finding.outcome.name, finding.what])
    (folder / _FINDING).write_text(content, encoding="utf-8", errors="backslashreplace")
    return 0


def _read_finding(answer: Answer, path: Path) -> Finding:
    ended = judge_answer(answer, "the try")
    if ended.outcome in (Outcome.HANG, Outcome.CRASH):
        return ended
    if not path.exists():
        last = (answer.stderr.strip().splitlines() or ["nothing said"])[-1]
        return Finding(Outcome.TRACEBACK, last)
    outcome, what = json.loads(path.read_bytes())
    return Finding(Outcome[outcome], what)


def _address_space_bytes() -> int:
    """What this process has, with everything that is imported."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
