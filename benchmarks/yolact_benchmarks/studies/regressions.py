"""Detection of regressions by ``yolact-bench compare``: ``python -m yolact_benchmarks.studies.regressions MODEL``.

The study repeats three measurements, one after the other, each in fresh processes as ``yolact-bench`` takes them: of a
model, of the same model again, and of one whose network waits for 5 % of a frame. The second must be found the same,
the third slower. If ``compare`` returns doubtful, because the machine was unstable or too little is known, the study
measures again, as ``compare`` advises, and counts the repetitions.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.facade.bench_session import run_results
from yolact_benchmarks.measure.fresh_process import call_in_fresh_process
from yolact_benchmarks.measure.measurement import Plan
from yolact_benchmarks.measure.process_run import ProcessRun, join_runs
from yolact_benchmarks.measure.repeated_runs import run_processes
from yolact_benchmarks.measure.request import BenchRequest
from yolact_benchmarks.measure.time_needed import WholeRun
from yolact_benchmarks.report.document import envelope
from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.statistics.compare import CaseComparison, compare_records
from yolact_benchmarks.studies.slowed import measure_slowed
from yolact_runtime.errors import YolactError
from yolact_runtime.model.bundle import Bundle, open_bundle
from yolact_runtime.reporter import SILENT, Reporter

__all__ = ["main"]

_INSTANCES, _SIZE = 100, (1920, 1080)
_ALLOWED = 0.03
_PLANTED = 0.05
_UNSTEADY = 7
_MAX_AGAIN = 5
"""Maximum number of doubtful repetitions of one comparison before the study gives up."""
Record = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a table, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.regressions", description=__doc__)
    parser.add_argument("model", type=Path, help="bundle folder or .onnx file")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--processes", type=int, default=5, help="processes of each measurement")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of each measurement, all processes")
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of the network; 1 leaves the other cores to other programs"
    )
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    is_folder = options.model.is_dir()
    bundle = open_bundle(options.model, "fp32" if is_folder else None)
    request = BenchRequest(
        options.model,
        precisions=(bundle.manifest.precision,) if is_folder else (),
        instances=(_INSTANCES,),
        sizes=(_SIZE,),
        plan=Plan(options.duration),
        num_processes=options.processes,
        num_threads=options.threads,
        streaming_s=0.0,
    )
    rows: list[Record] = []
    try:
        for number in range(1, options.repeats + 1):
            rows += _compared(request)
            print(f"{number} of {options.repeats}: {rows[-2:]}", file=sys.stderr)
    except YolactError as error:
        print(f"error: {error}", file=sys.stderr)
        return _UNSTEADY
    result = _summary(rows, bundle, request)
    for kind in ("rerun", "planted"):
        again = sum(row["again"] for row in rows if row["kind"] == kind)
        print(f"{kind}: {result[kind]}; measured again because it was doubtful: {again} times")
    if options.results:
        words = f"--repeats {options.repeats} --processes {options.processes} --duration {options.duration:g}"
        words += f" --threads {options.threads}" if options.threads else ""
        command = f"python -m yolact_benchmarks.studies.regressions {options.model.name} {words}"
        write_record(options.results, f"regressions-{bundle.manifest.name}", result, command)
    return 0


def _compared(request: BenchRequest) -> list[Record]:
    """Measure a model, the same model again, and a slower one, and compare them."""
    old = _measured(request, 0.0)
    frame_ms = float(np.median(old["results"]["cases"][0]["samples_ms"]))
    rows = []
    for kind, extra_ms in (("rerun", 0.0), ("planted", _PLANTED * frame_ms)):
        again = 0
        while True:
            (case,) = compare_records(old, _measured(request, extra_ms), _ALLOWED).cases
            if case.outcome != "doubtful":
                break
            again += 1
            if again > _MAX_AGAIN:
                raise YolactError(f"{again} doubtful comparisons in a row: measure where nothing else is running")
            # It is unknown which of the two is at fault: both are measured anew.
            old = _measured(request, 0.0)
        rows.append(_row(kind, case, again))
    return rows


def _row(kind: str, case: CaseComparison, again: int) -> Record:
    ratios = {
        name: [round(value, 4) for value in (one.ratio, one.low, one.high, one.machine)]
        for name, one in (("median", case.median), ("fastest_tenth", case.fast))
    }
    return {"kind": kind, **ratios, "outcome": case.outcome, "again": again}


def _measured(request: BenchRequest, extra_ms: float) -> Record:
    """Return a record like one of ``yolact-bench``."""

    def in_fresh_process(one: BenchRequest, _: WholeRun | None, reporter: Reporter) -> ProcessRun:
        return call_in_fresh_process(measure_slowed, one, extra_ms, reporter=reporter)

    runs = run_processes(request, SILENT, in_fresh_process)
    return envelope("", request.settings(), run_results(join_runs(runs)))


def _summary(rows: list[Record], bundle: Bundle, request: BenchRequest) -> dict[str, Any]:
    outcomes: Mapping[str, Any] = {
        kind: dict(Counter(row["outcome"] for row in rows if row["kind"] == kind)) for kind in ("rerun", "planted")
    }
    return {
        "model": bundle.manifest.name,
        "precision": bundle.manifest.precision,
        "instances": _INSTANCES,
        "threads": request.num_threads,
        "processes": request.num_processes,
        "seconds": request.plan.duration_s,
        "planted_fraction": _PLANTED,
        "allowed": _ALLOWED,
        **outcomes,
        "again": sum(row["again"] for row in rows),
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
