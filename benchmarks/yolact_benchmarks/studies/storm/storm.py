"""The storm: tries of all campaigns in forked workers, with counts; every failure has a command that repeats it."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.bad_inputs.trial import preload
from yolact_benchmarks.studies.storm.attempt import run_attempt
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome
from yolact_benchmarks.studies.storm.registry import CAMPAIGNS, num_tries
from yolact_benchmarks.studies.storm.stage import Stage, prepare_stage
from yolact_plugins.files import counted

__all__ = ["Task", "count_findings", "document", "main", "run_tasks"]

_COMMAND = "python -m yolact_benchmarks.studies.storm"
_TRIES = 10_000
_RECORDED = 100
"""Maximum number of failures that a record lists; it counts all."""
Task = tuple[str, int, int]
"""Name of the campaign, seed, number of the try."""
_shared: list[Stage] = []


def main(arguments: list[str] | None = None) -> int:
    """Run the storm, print counts and failures; return 1 if a try failed, else 0."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    tasks = _tasks(options)
    # Threads do not survive a fork, and every try is forked.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    preload()
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        stage = prepare_stage(Path(folder))
        for name in dict.fromkeys(task[0] for task in tasks):
            CAMPAIGNS[name].prepare(stage)
        findings = _until(run_tasks(stage, tasks, options.workers), started, options.seconds)
        if options.replay:
            return _show(findings)
        counts, failures = count_findings(findings)
    seconds = time.monotonic() - started
    for name, found in counts.items():
        outcomes = ", ".join(f"{n} {outcome.value}" for outcome, n in found.items())
        print(f"{name}: {counted(found.total(), 'try', 'tries')}, {outcomes}")
    print(f"{sum(found.total() for found in counts.values())} tries in {seconds:.0f} s, {len(failures)} failed")
    if options.results:
        results = document(counts, failures, options.seed, options.release, seconds)
        name = "-".join(["storm", *re.findall(r"[\w.]+", options.release)])
        write_record(options.results, name, results, _what_was_typed(options))
    return 1 if failures else 0


def _what_was_typed(options: argparse.Namespace) -> str:
    """Return the command line, without the folder of the record."""
    words = _COMMAND.split()
    for name in ("campaigns", "tries", "seed", "seconds", "release"):
        if (value := getattr(options, name)) not in (None, ""):
            words += [f"--{name}", ",".join(value) if isinstance(value, list) else str(value)]
    return shlex.join([*words, "--quick"] if options.quick else words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument(
        "--campaigns", type=_campaigns, metavar="NAME,NAME", help=f"some of {', '.join(CAMPAIGNS)} (default: all)"
    )
    parser.add_argument(
        "--tries", type=_at_least_one, default=_TRIES, metavar="N", help=f"total number of tries (default: {_TRIES})"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the tries (default: 0)")
    parser.add_argument("--seconds", type=float, metavar="S", help="time after which no try is started")
    parser.add_argument("--quick", action="store_true", help="a few tries of each campaign, in half a minute")
    parser.add_argument(
        "--workers", type=_at_least_one, default=2, metavar="N", help="number of parallel tries (default: 2)"
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for the record: benchmarks/results")
    parser.add_argument("--release", default="", metavar="TEXT", help="name of the tested release, for the record")
    parser.add_argument("--replay", type=_task, metavar="CAMPAIGN:SEED:N", help="repeat one try, and print its outcome")
    return parser


def _campaigns(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(CAMPAIGNS)):
        raise argparse.ArgumentTypeError(f"no campaign {', '.join(unknown)}; there are {', '.join(CAMPAIGNS)}")
    return names


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, found {text}")
    return int(text)


def _task(text: str) -> Task:
    found = re.fullmatch(r"([^:]*):(-?\d+):(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not of the form CAMPAIGN:SEED:N, such as kills:0:12")
    return _campaigns(found[1])[0], int(found[2]), int(found[3])


def _tasks(options: argparse.Namespace) -> list[Task]:
    if options.replay:
        return [options.replay]
    names = options.campaigns or list(CAMPAIGNS)
    if options.quick:
        counts = [(name, CAMPAIGNS[name].quick) for name in names]
    else:
        counts = list(num_tries(names, options.tries))
    # Interleaved, so that a storm that is ended early has tried everything.
    numbered = [
        ((number + 0.5) / count, (name, options.seed, number)) for name, count in counts for number in range(count)
    ]
    return [task for _, task in sorted(numbered)]


def run_tasks(stage: Stage, tasks: Sequence[Task], workers: int) -> Iterator[tuple[Task, Finding]]:
    """Run tries in workers forked from this process, which has everything imported; yield their findings."""
    _shared[:] = [stage]
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context)
    try:
        yield from zip(tasks, pool.map(_run, tasks), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _run(task: Task) -> Finding:
    name, seed, number = task
    return run_attempt(CAMPAIGNS[name], _shared[0], seed, number)


def _until(
    findings: Iterator[tuple[Task, Finding]], started: float, seconds: float | None
) -> Iterator[tuple[Task, Finding]]:
    for found in findings:
        yield found
        if seconds is not None and time.monotonic() - started > seconds:
            return


def count_findings(findings: Iterator[tuple[Task, Finding]]) -> tuple[dict[str, Counter[Outcome]], list[str]]:
    """Count outcomes by campaign; return the counts, and for each failure its replay option and finding."""
    counts: dict[str, Counter[Outcome]] = {}
    failures = []
    for (name, seed, number), finding in findings:
        counts.setdefault(name, Counter())[finding.outcome] += 1
        if finding.is_failure:
            failures.append(f"--replay {name}:{seed}:{number}  # {finding.outcome.value}: {finding.what}")
            print(f"{_COMMAND} {ascii(failures[-1])[1:-1]}", flush=True)
    return counts, failures


def _show(findings: Iterator[tuple[Task, Finding]]) -> int:
    (((name, seed, number), finding),) = findings
    print(f"{name}:{seed}:{number}: {finding.outcome.value}: {ascii(finding.what)[1:-1]}")
    return 1 if finding.is_failure else 0


def document(
    counts: dict[str, Counter[Outcome]], failures: list[str], seed: int, release: str, seconds: float
) -> dict[str, Any]:
    """Return the results of the record: a row for each campaign, and the first failures."""
    rows = [
        {"campaign": name, "tries": found.total(), **{each.name.lower(): found[each] for each in Outcome}}
        for name, found in counts.items()
    ]
    return {"release": release, "seed": seed, "seconds": round(seconds), "rows": rows, "failures": failures[:_RECORDED]}


if __name__ == "__main__":
    sys.exit(main())
