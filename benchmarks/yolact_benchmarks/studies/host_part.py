"""What the host does in a call, stage by stage, before and now: ``python -m yolact_benchmarks.studies.host_part``.

On a simulated GPU, whose calls are answered at once; see :mod:`yolact_benchmarks.studies.host_part_process`, which
measures in a process of each checkout. The processes take turns, so that the machine's moods hit both alike. An earlier
version is a checkout of it: ``git worktree add ../before COMMIT``.
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
"""Until something is given to the GPU, which is the copy of the frame; until all is; the wait, which here is none; the
instances; all of it."""
_PROCESS = Path(__file__).with_name("host_part_process.py")
# Not `python FILE`: beside that file lie modules whose names are those of others.
_RUN = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
_PATHS = ("benchmarks", "plugins", "runtime", "tests")
Round = Mapping[str, Mapping[str, float]]


class Contender:
    """A version, measuring in a process of its own.

    Args:
        name: For the record.
        checkout: Of the version.
        scene: One of :data:`SCENES`.
        quick: A small frame.

    Raises:
        RuntimeError: It cannot measure; its own words are on stderr.
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
        """Medians of so many calls, microseconds, by source of the frame and stage; and of what masks are asked."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{repeats}\n")
        self._process.stdin.flush()
        figures: dict[str, dict[str, float]] = self._answer()
        return figures

    def close(self) -> None:
        """End the process."""
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
    """Entry point; prints a table and writes a record."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.host_part", description=__doc__)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="of an earlier version, to take turns with")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each version (default: 20)")
    parser.add_argument("--repeats", type=int, default=60, help="calls of a turn (default: 60)")
    parser.add_argument("--quick", action="store_true", help="a small frame, to see that it runs")
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
    """The median over rounds of each figure of theirs."""
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
    """A row for each version and source of frames; those of masks belong to all sources of their version."""
    rounds: dict[str, list[Round]] = {contender.name: [] for contender in contenders}
    for turn in range(num_rounds):
        # Who comes first changes: the second may find the machine warmer.
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
    """Which version the checkout is of; its folder's name where nobody can tell."""
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return checkout.name


if __name__ == "__main__":
    sys.exit(main())
