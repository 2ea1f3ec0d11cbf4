"""The storm counts every class of failure, repeats a try exactly, and finds nothing here."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from yolact_benchmarks.studies.bad_inputs.case import Answer
from yolact_benchmarks.studies.bad_inputs.ground import Ground
from yolact_benchmarks.studies.storm import registry, storm
from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign, run_attempt
from yolact_benchmarks.studies.storm.outcome import FAILURES, Finding, Outcome, judge_answer, ok, silent
from yolact_benchmarks.studies.storm.registry import CAMPAIGNS, num_tries
from yolact_benchmarks.studies.storm.stage import Stage
from yolact_plugins.errors import YolactError


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, Ground(tmp_path, tmp_path, tmp_path, tmp_path, {}))


def _raise(error: Exception) -> Finding:
    raise error


def _leave(path: str) -> Finding:
    Path(path).touch()
    return ok("left something behind")


def _leave_temporary() -> Finding:
    tempfile.mkdtemp()
    return ok("left something behind")


def _crash() -> Finding:
    faulthandler.disable()
    signal.raise_signal(signal.SIGSEGV)
    return ok("alive")


def _torn() -> Finding:
    return Finding(Outcome.TORN, "half of a file")


PLANTED: dict[str, tuple[Callable[[], object], Outcome]] = {
    "right": (lambda: ok("done"), Outcome.OK),
    "refused": (lambda: _raise(YolactError("a.png is not an image")), Outcome.REFUSED),
    "refused without words": (lambda: _raise(YolactError("")), Outcome.TRACEBACK),
    "a traceback": (lambda: 1 // 0, Outcome.TRACEBACK),
    "more memory than there is": (lambda: bytearray(1 << 45), Outcome.TRACEBACK),
    "exit": (lambda: sys.exit(0), Outcome.TRACEBACK),
    "no end": (signal.pause, Outcome.HANG),
    "a crash": (_crash, Outcome.CRASH),
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), Outcome.CRASH),
    "silently wrong": (lambda: silent("other instances"), Outcome.SILENT),
    "torn": (_torn, Outcome.TORN),
    "a hidden file": (lambda: _leave(".a.json.123.tmp"), Outcome.LEFTOVER),
    "a temporary folder": (_leave_temporary, Outcome.LEFTOVER),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_every_class_is_found(stage: Stage, planted: str) -> None:
    action, outcome = PLANTED[planted]
    seconds = 0.3 if outcome is Outcome.HANG else 60
    campaign = Campaign("planted", lambda *_: action(), 1, 1, seconds=seconds)  # type: ignore[arg-type, return-value]
    assert run_attempt(campaign, stage, 0, 0).outcome is outcome


def test_failures_are_counted_and_printed_with_what_repeats_them(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [(("x", 7, i), Finding(outcome, "a\x1b[2J\nb")) for i, outcome in enumerate(Outcome)]
    counts, failures = storm.count_findings(iter(findings))
    assert counts == {"x": dict.fromkeys(Outcome, 1)}
    assert len(failures) == len(FAILURES) == 6
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (r"python -m yolact_benchmarks.studies.storm --replay x:7:3  # traceback: a\x1b[2J b")
    document = storm.document(counts, failures, 7, "1.0", 12.3)
    (row,) = document["rows"]
    assert row == {"campaign": "x", "tries": 9, **{outcome.name.lower(): 1 for outcome in Outcome}}
    assert len(document["failures"]) == 6


def test_a_try_is_repeated_exactly(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(_: Stage, attempt: Attempt) -> Finding:
        return ok(f"{attempt.number} {attempt.rng.random()} {attempt.rng.randbytes(4).hex()}")

    monkeypatch.setitem(registry.CAMPAIGNS, "numbers", Campaign("numbers", attempt, 1, 1))
    tasks = [("numbers", 3, number) for number in range(6)]
    first = dict(storm.run_tasks(stage, tasks, 2))
    assert len({finding.what for finding in first.values()}) == 6
    assert dict(storm.run_tasks(stage, tasks[4:5], 1)) == {tasks[4]: first[tasks[4]]}
    other = dict(storm.run_tasks(stage, [("numbers", 4, 4)], 1))
    assert set(other.values()).isdisjoint(first.values())


def test_tries_are_shared_among_the_campaigns() -> None:
    counts = dict(num_tries(CAMPAIGNS, 10_000))
    assert set(counts) == {
        "checkpoints", "manifests", "onnx", "pictures", "videos", "labels", "options", "plans", "signatures", "kills",
        "disks", "concurrency", "soak", "numbers",
    }  # fmt: skip
    assert abs(sum(counts.values()) - 10_000) < 14
    assert dict(num_tries(["kills"], 40)) == {"kills": 40}
    assert min(dict(num_tries(CAMPAIGNS, 1)).values()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--campaigns", "sea,kills"], "argument --campaigns: no campaign sea; there are checkpoints, "),
        (["--replay", "sea:0:1"], "argument --replay: no campaign sea; there are checkpoints, "),
        (["--replay", "kills"], "argument --replay: kills is not of the form CAMPAIGN:SEED:N, such as kills:0:12"),
        (["--replay", "kills:0:x"], "argument --replay: kills:0:x is not of the form CAMPAIGN:SEED:N"),
        (["--replay", "kills:0:-1"], "argument --replay: kills:0:-1 is not of the form CAMPAIGN:SEED:N"),
        (["--tries", "0"], "argument --tries: a whole number from 1 on, found 0"),
        (["--workers", "0"], "argument --workers: a whole number from 1 on, found 0"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_nobody_means(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        storm.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "stderr", "outcome"),
    [
        (0, "", Outcome.OK),
        (1, "error: cannot read a.png", Outcome.REFUSED),
        (2, "yolact-run: error: unknown word", Outcome.REFUSED),
        (1, "", Outcome.TRACEBACK),
        (1, "Traceback (most recent call last):\nValueError", Outcome.TRACEBACK),
        (-11, "", Outcome.CRASH),
        (None, "", Outcome.HANG),
        (1, "error: no picture: a\x1b[2Jb", Outcome.SILENT),
        (0, "a\tb\r\n", Outcome.OK),
    ],
)
def test_commands_are_judged_by_their_end(status: int | None, stderr: str, outcome: Outcome) -> None:
    assert judge_answer(Answer(status, "", stderr), "a run").outcome is outcome


@pytest.mark.long
def test_a_quick_storm_finds_nothing(tmp_path: Path) -> None:
    """A process of its own: what a storm forks must have no threads of this one."""
    words = [sys.executable, "-m", "yolact_benchmarks.studies.storm", "--quick", "--results", str(tmp_path)]
    ended = subprocess.run([*words, "--release", "1.0 (test)"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (record,) = tmp_path.glob("*/storm-1.0-test.json")
    rows = json.loads(record.read_bytes())["results"]["rows"]
    assert {row["campaign"]: row["tries"] for row in rows} == {name: each.quick for name, each in CAMPAIGNS.items()}
