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
    """Inputs of one try.

    Attributes:
        rng: Random generator of this try alone, so that it can be repeated.
        number: Number of the try in its campaign, from 0.
        folder: Empty working folder of the try; it is removed afterwards.
    """

    rng: random.Random
    number: int
    folder: Path

    def run(self, command: str, words: tuple[object, ...], largest_file_bytes: int | None = None) -> Answer:
        """Run a command in a process of its own and return its answer."""
        limits = Limits(_COMMAND_S, largest_file_bytes=largest_file_bytes)
        return run_forked(partial(call_command, command, tuple(map(str, words))), limits)


@dataclasses.dataclass(frozen=True)
class Campaign:
    """Tries of one kind.

    Attributes:
        name: Name of what is attacked.
        attempt: Function that makes one try and judges it. If it raises an error of this project, the outcome is a
            refusal.
        share: Number of tries of this campaign in 1,000 tries.
        quick: Number of tries in a quick storm.
        prepare: Function that computes on the stage what all tries share.
        seconds: Time after which a try counts as hanging, seconds.
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
        # The paths of temporary folders differ from run to run.
        return dataclasses.replace(finding, what=finding.what.replace(f"{folder}/", "").replace(f"{stage.folder}/", ""))


def _make(campaign: Campaign, stage: Stage, attempt: Attempt, folder: Path) -> int:
    """Make the try in the child: in an environment of its own, with the finding written to a file."""
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
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        return Finding(Outcome.TRACEBACK, last)
    outcome, what = json.loads(path.read_bytes())
    return Finding(Outcome[outcome], what)


def _address_space_bytes() -> int:
    """Return the size of this process's address space, with all imports."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
