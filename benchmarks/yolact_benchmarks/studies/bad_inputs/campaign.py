"""The campaign of bad inputs: all tries, counted by kind and outcome."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.bad_inputs.case import Case, Outcome, judge
from yolact_benchmarks.studies.bad_inputs.endings import ending_cases, neighbour_cases
from yolact_benchmarks.studies.bad_inputs.films import film_cases
from yolact_benchmarks.studies.bad_inputs.ground import Ground, prepare_ground
from yolact_benchmarks.studies.bad_inputs.labels import label_cases
from yolact_benchmarks.studies.bad_inputs.pictures import picture_cases
from yolact_benchmarks.studies.bad_inputs.texts import text_cases
from yolact_benchmarks.studies.bad_inputs.trial import preload, run_case

__all__ = ["SOURCES", "count_outcomes", "document", "main"]

SOURCES: dict[str, Callable[[Ground], Iterator[Case]]] = {
    "labels": label_cases,
    "texts": text_cases,
    "pictures": picture_cases,
    "films": film_cases,
    "neighbours": neighbour_cases,
    "endings": ending_cases,
}
_UNWANTED = (Outcome.LOST, Outcome.SILENT, Outcome.BROKEN)


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign, print the table and the failures; return 1 if there are failures, else 0."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.bad_inputs", description=__doc__)
    parser.add_argument("sources", nargs="*", choices=[[], *SOURCES], help="some of the kinds (default: all)")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    preload()
    with tempfile.TemporaryDirectory() as folder:
        ground = prepare_ground(Path(folder))
        cases = (case for name in options.sources or SOURCES for case in SOURCES[name](ground))
        counts, unwanted = count_outcomes(cases)
    for kind, found in counts.items():
        print(f"{kind}: {found.total()} tries, " + ", ".join(f"{n} {outcome.value}" for outcome, n in found.items()))
    for line in unwanted:
        print(f"  {line}")
    if options.results and not options.sources:
        write_record(options.results, "bad-inputs", document(counts), "python -m yolact_benchmarks.studies.bad_inputs")
    return 1 if unwanted else 0


def count_outcomes(cases: Iterable[Case]) -> tuple[dict[str, Counter[Outcome]], list[str]]:
    """Run the tries; return outcomes by kind, and a line for each failure."""
    counts: dict[str, Counter[Outcome]] = {}
    unwanted = []
    for case in cases:
        answer = run_case(case)
        outcome = judge(case, answer)
        counts.setdefault(case.kind, Counter())[outcome] += 1
        if outcome in _UNWANTED:
            last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
            unwanted.append(f"{case.kind}: {case.name}: {outcome.value} (status {answer.status}): {last[:160]}")
            print(unwanted[-1], file=sys.stderr)
    return counts, unwanted


def document(counts: dict[str, Counter[Outcome]]) -> list[dict[str, Any]]:
    """Return the results of the record, a row for each kind."""
    return [
        {"kind": kind, "tries": found.total(), **{outcome.name.lower(): found[outcome] for outcome in Outcome}}
        for kind, found in counts.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
