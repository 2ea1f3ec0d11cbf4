"""Does ``yolact-bench compare`` find a regression, and nothing else? ``python -m yolact_benchmarks.regressions MODEL``.

Again and again three runs are measured one after the other, each with a freshly opened model: an older one, the same
again, and one whose network waits for 5 % of a frame. The second is to be found the same, the third slower. What the
machine did to a run is judged as in ``yolact-bench``: a run that it calls unstable is measured again, as ``compare``
asks for, and counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.compare import compare_series
from yolact_benchmarks.frames import FrameSet, drawn_frames
from yolact_benchmarks.host_timer import HostTimer
from yolact_benchmarks.machine_state import MachineWatch, judge_machine
from yolact_benchmarks.measurement import Case, Plan, measure
from yolact_benchmarks.planted import PlantedBackend, planted_outputs
from yolact_benchmarks.power import Meters
from yolact_benchmarks.record import write_record
from yolact_benchmarks.stability import judge_series
from yolact_benchmarks.statistics import summarise
from yolact_runtime.backends import Backend, create_backend
from yolact_runtime.bundle import Bundle, open_bundle
from yolact_runtime.errors import YolactError
from yolact_runtime.segmenter import SegmenterOptions

__all__ = ["SlowedBackend", "main"]

_INSTANCES, _SIZE = 100, (1920, 1080)
_ALLOWED = 0.03
_UNSTEADY = 7
_MAX_UNSTEADY = 3
"""So many times the wanted repetitions may fail before it gives up."""


class SlowedBackend:
    """A network that takes so many milliseconds longer, busy, as a slower network is. Closing it closes the network."""

    def __init__(self, network: Backend, extra_ms: float) -> None:
        self.name = network.name
        self._network = network
        self._extra_ms = extra_ms

    def infer(self, tensor: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[np.floating]]:
        """Run the network and wait."""
        outputs = self._network.infer(tensor)
        until = time.perf_counter() + self._extra_ms / 1e3
        while time.perf_counter() < until:
            pass
        return outputs

    def close(self) -> None:
        """Free the network."""
        self._network.close()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; prints a table and writes a record."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.regressions", description=__doc__)
    parser.add_argument("model", type=Path, help="bundle folder or .onnx file")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--planted", type=float, default=0.05, help="how much slower, as a fraction of a frame")
    parser.add_argument("--threads", type=int, default=0, help="of the network; 1 leaves the other cores to the others")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    bundle, frames = open_bundle(options.model), drawn_frames(*_SIZE)
    rows: list[dict[str, Any]] = []
    bench = _Bench(bundle, frames, options.seconds, options.threads, _MAX_UNSTEADY * options.repeats)
    try:
        while len(rows) < 2 * options.repeats:
            found = _triple(bench, options.planted)
            rows += found
            print(f"{len(rows) // 2} of {options.repeats}, {bench.unsteady} unsteady runs: {found}", file=sys.stderr)
    except YolactError as error:
        print(f"error: {error}", file=sys.stderr)
        return _UNSTEADY
    unsteady = bench.unsteady
    result = {**_summary(rows, bundle, options.planted, options.seconds), "unsteady": unsteady}
    result["threads"] = options.threads
    for kind in ("rerun", "planted"):
        print(f"{kind}: {result[kind]}; measured again because the machine was not steady: {unsteady} times")
    if options.results:
        command = f"python -m yolact_benchmarks.regressions {options.model.name} --repeats {options.repeats}"
        command += f" --threads {options.threads}" if options.threads else ""
        write_record(options.results, f"regressions-{bundle.manifest.name}", result, command)
    return 0


@dataclasses.dataclass
class _Bench:
    """What is run, and how often the machine was not steady meanwhile."""

    bundle: Bundle
    frames: FrameSet
    seconds: float
    threads: int
    most_unsteady: int
    unsteady: int = 0

    def steady_run(self, extra_ms: float) -> list[float]:
        """Latencies of a freshly opened model; measured again as often as the machine was not steady.

        Raises:
            YolactError: It was not, too often.
        """
        while True:
            latencies, is_steady = _run(self.bundle, self.frames, self.seconds, extra_ms, self.threads)
            if is_steady:
                return latencies
            self.unsteady += 1
            if self.unsteady > self.most_unsteady:
                raise YolactError(
                    f"{self.unsteady} runs were unsteady: measure on a machine that has nothing else to do"
                )


def _triple(bench: _Bench, planted: float) -> list[dict[str, Any]]:
    """An older run, the same again, a slower one, compared."""
    rows = []
    old = bench.steady_run(0.0)
    for kind, extra_ms in (("rerun", 0.0), ("planted", planted * float(np.median(old)))):
        case = compare_series(kind, old, bench.steady_run(extra_ms), _ALLOWED)
        rows.append({"kind": kind, "ratio": round(case.ratio, 4), "low": round(case.low, 4), "outcome": case.outcome})
    return rows


def _summary(rows: list[dict[str, Any]], bundle: Bundle, planted: float, seconds: float) -> dict[str, Any]:
    outcomes = {k: dict(Counter(row["outcome"] for row in rows if row["kind"] == k)) for k in ("rerun", "planted")}
    facts = {"model": bundle.manifest.name, "precision": bundle.manifest.precision, "instances": _INSTANCES}
    return {**facts, "planted_fraction": planted, "allowed": _ALLOWED, "seconds": seconds, **outcomes, "rows": rows}


def _run(bundle: Bundle, frames: FrameSet, seconds: float, extra_ms: float, threads: int) -> tuple[list[float], bool]:
    """Latencies of a freshly opened model, and whether they were measured on a steady machine."""
    options = SegmenterOptions(min_confidence=0.3)
    network = create_backend("onnxruntime-cpu", bundle.network, threads)
    try:
        spec = bundle.manifest.input
        like = network.infer(np.zeros((1, 3, spec.height, spec.width), np.float32))
        outputs = planted_outputs(bundle.manifest, like, _INSTANCES)
        timer = HostTimer(bundle, PlantedBackend(SlowedBackend(network, extra_ms), outputs), None, options)
        watch = MachineWatch()
        plan = Plan(duration_s=seconds, warm_up_s=1.0)
        series = measure([Case("run", "run", timer, frames)], plan, watch, Meters((), ()))["run"]
    finally:
        network.close()
    reasons = [*judge_series(series.total_ms, summarise(series.total_ms)).reasons, *judge_machine(watch.samples)]
    return series.total_ms, not reasons


if __name__ == "__main__":
    sys.exit(main())
