"""Time of the host's part of a call, in two versions: ``python -m yolact_benchmarks.studies.host_part``.

The call is timed stage by stage on a simulated GPU, whose functions return at once; see
:mod:`yolact_benchmarks.studies.host_part_process`, which measures in a process of each checkout. The processes
alternate, so that changes of the machine's state affect both alike. An earlier version is a checkout of it: ``git
worktree add ../before COMMIT``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from yolact_benchmarks.report.record import write_record

__all__ = ["main", "summarise"]

ROOT = Path(__file__).parents[3]
SCENES = ("100 instances", "1 instance")
STAGES = ("take", "enqueue", "wait", "results", "call")
"""Stages of a call: until the first call of the driver (the copy of the frame); until everything is enqueued; waiting,
which takes no time here; making the instances; the whole call."""
_PROCESS = Path(__file__).with_name("host_part_process.py")
# Not `python FILE`: that would put the file's folder first on the path, with modules that shadow others.
_RUN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
_PATHS = ("benchmarks", "plugins", "runtime", "tests")
Round = Mapping[str, Mapping[str, float]]


class Contender:
    """A version that measures in a process of its own.

    Args:
        name: Name of the version in the record.
        checkout: Path of the version's checkout.
        scene: Name of a scene in :data:`SCENES`.
        quick: Whether to use a small frame.

    Raises:
        RuntimeError: The process cannot measure; its messages are on stderr.
    """

    def __init__(self, name: str, checkout: Path, scene: str, quick: bool) -> None:
        self.name = name
        paths = os.pathsep.join(str(checkout / path) for path in _PATHS)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(_PROCESS), scene, *(["quick"] if quick else [])],
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.scene = self._answer()
        except BaseException:
            self.close()
            raise

    def round(self, repeats: int) -> dict[str, dict[str, float]]:
        """Run `repeats` calls and return their medians in microseconds.

        The medians are by source of the frame and stage; those of first uses of masks are under ``"masks"``.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{repeats}\n")
        self._process.stdin.flush()
        figures: dict[str, dict[str, float]] = self._answer()
        return figures

    def close(self) -> None:
        """Stop the process."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that measures {self.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main(arguments: list[str] | None = None) -> int:
    """Run the study, print a table, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.host_part", description=__doc__)
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="checkout of an earlier version to compare with"
    )
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each version (default: 20)")
    parser.add_argument("--repeats", type=int, default=60, help="calls in a round (default: 60)")
    parser.add_argument("--quick", action="store_true", help="use a small frame, to check that the study runs")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    options = parser.parse_args(arguments)
    versions = {"now": ROOT}
    if options.before is not None:
        versions = {"before": options.before.resolve(), **versions}
    rows = []
    for scene in SCENES:
        with _contenders(versions, scene, options.quick) as contenders:
            rows += _measure(contenders, scene, options.rounds, options.repeats)
    for row in rows:
        stages = ", ".join(f"{name} {us:.1f}" for name, us in row["us"].items())
        print(f"{row['scene']}, {row['version']}, {row['source']}: {stages}")
    if options.results:
        results = {
            "before": _commit(options.before) if options.before else None,
            "load": round(os.getloadavg()[0], 1),
            "rows": rows,
        }
        words = f"--rounds {options.rounds} --repeats {options.repeats}" + (" --quick" if options.quick else "")
        words = f"--before CHECKOUT {words}" if options.before else words
        write_record(options.results, "host-part", results, f"python -m yolact_benchmarks.studies.host_part {words}")
    return 0


def summarise(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Return the median over rounds of each figure."""
    return {
        source: {stage: round(float(np.median([one[source][stage] for one in rounds])), 1) for stage in figures}
        for source, figures in rounds[0].items()
    }


@contextmanager
def _contenders(versions: Mapping[str, Path], scene: str, quick: bool) -> Iterator[list[Contender]]:
    with ExitStack() as stack:
        contenders = []
        for name, checkout in versions.items():
            contenders.append(Contender(name, checkout, scene, quick))
            stack.callback(contenders[-1].close)
        yield contenders


def _measure(contenders: list[Contender], scene: str, num_rounds: int, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each version and source of frames; the figures of masks are those of the version."""
    rounds: dict[str, list[Round]] = {contender.name: [] for contender in contenders}
    for turn in range(num_rounds):
        # The order alternates: the second version may find the machine warmer.
        for contender in contenders[:: 1 if turn % 2 else -1]:
            rounds[contender.name].append(contender.round(repeats))
    rows = []
    for contender in contenders:
        figures = summarise(rounds[contender.name])
        masks = figures.pop("masks")
        for source, us in figures.items():
            known = {"scene": scene, "version": contender.name, "source": source, "runs": contender.scene["runs"]}
            rows.append({**known, "us": us, "masks_us": masks})
    return rows


def _commit(checkout: Path) -> str:
    """Return the commit of a checkout, or its folder's name if git cannot tell."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return checkout.name


if __name__ == "__main__":
    sys.exit(main())
