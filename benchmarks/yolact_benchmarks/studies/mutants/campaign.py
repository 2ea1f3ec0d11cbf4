"""All mutants of the given modules, tried one after the other; outcomes are stored, so that a run can be resumed."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import device_name, write_record
from yolact_benchmarks.studies.mutants.mutations import Mutation, apply, find_mutations
from yolact_benchmarks.studies.mutants.reasons import REASONS
from yolact_benchmarks.studies.mutants.targets import TARGETS, Target
from yolact_benchmarks.studies.mutants.trial import Scratch, preload

__all__ = ["choose", "main", "row_of", "rows_with_earlier", "try_all"]

ROOT = Path(__file__).parents[4]
KEPT = ROOT / "out" / "mutants"
"""Folder with the outcomes of earlier runs; git ignores it."""
_COMMAND = "python -m yolact_benchmarks.studies.mutants"


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign and print modules and survivors; return 1 if one survives without a reason, else 0."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MODULE", help=f"some of {', '.join(names)} (default: all)")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="number of mutants per module, drawn with the seed (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sample (default: 0)")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for the record, such as benchmarks/results")
    parser.add_argument(
        "--tests", default="now", metavar="WHEN", help="name of these tests in the record (default: now)"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in names]:
        parser.error(f"no module {', '.join(unknown)}; there are {', '.join(names)}")
    if options.sample is not None and options.sample < 1:
        parser.error(f"--sample is at least 1, found {options.sample}")
    preload()
    rows = []
    with tempfile.TemporaryDirectory(prefix="yolact-mutants-") as folder:
        scratch = Scratch(ROOT, Path(folder))
        for target in TARGETS:
            if target.name in (options.names or names):
                rows.append(row_of(target, try_all(target, scratch, options.sample, options.seed)))
                print(_line(rows[-1]), flush=True)
    if options.results:
        name = "mutants" if options.tests == "now" else f"mutants-{options.tests}"
        modules = rows_with_earlier(rows, options.results / device_name() / f"{name}.json")
        write_record(options.results, name, {"tests": options.tests, "modules": modules}, _COMMAND)
    return int(any("reason" not in survivor for row in rows for survivor in row["survivors"]))


def rows_with_earlier(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Merge these rows with those of unchanged modules in an earlier record, in the usual order."""
    earlier = json.loads(path.read_text(encoding="utf-8"))["results"]["modules"] if path.exists() else []
    kept = {row["name"]: row for row in [*earlier, *rows]}
    return [
        kept[target.name]
        for target in TARGETS
        if target.name in kept and kept[target.name]["sha256"] == target.digests(ROOT)[0]
    ]


def choose(mutations: list[Mutation], sample: int | None, seed: int) -> list[Mutation]:
    """Return all mutations, or a sample of the given size, in the order of the text."""
    if sample is None or sample >= len(mutations):
        return mutations
    chosen = random.Random(seed).sample(range(len(mutations)), sample)
    return [mutations[position] for position in sorted(chosen)]


def try_all(target: Target, scratch: Scratch, sample: int | None, seed: int) -> Iterator[tuple[Mutation, str]]:
    """Yield each mutant with ``"failed"`` or ``"time"``, which are noticed, or ``"passed"``, which survives.

    Raises:
        RuntimeError: The tests fail without any fault, or cannot be run.
    """
    source = target.source(ROOT)
    kept = _Kept(KEPT / f"{target.name}.jsonl", *target.digests(ROOT))
    started = time.monotonic()
    found = scratch.run_tests(target.tests, 600)
    if found != "passed":
        log = (scratch.folder / "tests.log").read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"the tests of {target.name} do not pass without a fault ({found}):\n{log[-2000:]}")
    # The machine may be busier later.
    limit_s = 30 + 5 * (time.monotonic() - started)
    for mutation in choose(find_mutations(source), sample, seed):
        outcome = kept.outcome(mutation)
        if outcome is None:
            with scratch.changed(target.module, apply(source, mutation)):
                outcome = scratch.run_tests(target.tests, limit_s)
            if outcome == "broken":
                raise RuntimeError(f"{target.name}: {mutation.told}: the tests could not be run")
            kept.add(mutation, outcome)
        yield mutation, outcome


class _Kept:
    """Outcomes on disk, one per line; a survivor's is only valid for the tests that it survived."""

    def __init__(self, path: Path, module: str, tests: str) -> None:
        self._path, self._module, self._tests = path, module, tests
        self._known: dict[tuple[int, str], str] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            item = json.loads(line)
            if item["module"] == module and (item["outcome"] != "passed" or item["tests"] == tests):
                self._known[item["start"], item["told"]] = item["outcome"]

    def outcome(self, mutation: Mutation) -> str | None:
        return self._known.get((mutation.start, mutation.told))

    def add(self, mutation: Mutation, outcome: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        item = {"module": self._module, "tests": self._tests, "start": mutation.start, "told": mutation.told}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(item | {"outcome": outcome}) + "\n")


def row_of(target: Target, outcomes: Iterator[tuple[Mutation, str]]) -> dict[str, Any]:
    """Return the record's entry of a module; print each survivor as it is found."""
    tried = noticed = 0
    survivors: list[dict[str, Any]] = []
    for mutation, outcome in outcomes:
        tried += 1
        if outcome != "passed":
            noticed += 1
            continue
        survivor = {"line": mutation.line, "change": mutation.told}
        if reason := REASONS.get((target.name, mutation.text, mutation.told)):
            survivor["reason"] = reason
        else:
            print(f"  {target.module}:{mutation.line}: {mutation.told}", flush=True)
        survivors.append(survivor)
    total = len(find_mutations(target.source(ROOT)))
    row = {
        "name": target.name,
        "module": target.module,
        "sha256": target.digests(ROOT)[0],
        "of": total,
        "tried": tried,
        "noticed": noticed,
    }
    return row | {"survivors": survivors}


def _line(row: dict[str, Any]) -> str:
    excused = sum("reason" in survivor for survivor in row["survivors"])
    left = len(row["survivors"]) - excused
    return f"{row['name']}: {row['tried']} mutants, {row['noticed']} noticed, {excused} with a reason, {left} survive"


if __name__ == "__main__":
    sys.exit(main())
