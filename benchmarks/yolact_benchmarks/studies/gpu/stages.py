"""The stages of a GPU day: their commands, their limits, and the half of the day that they belong to.

A half fits into one stay on a machine that is available for minutes. Within a half, stages are in order of value: what
comes later is lost first. A stage is a program of this folder or a test suite; it does not depend on earlier stages.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolact_benchmarks.studies.gpu.pack import PACKED_BUNDLES

__all__ = ["HALVES", "STAGES", "Request", "Stage", "stages_of", "tool_path"]

HALVES = ("first", "second")
_PYTEST = (
    "-m pytest -q -rs -p no:randomly -p no:cacheprovider -W default --color=no -o addopts= --import-mode=importlib"
)
_KERNEL_SUITES = tuple(
    f"tests/plugins/kernels/test_{family}.py"
    for family in ("preprocess", "candidates", "fast_nms", "mask_assembly", "mask_runs", "mask_views", "mask_iou")
)
_FRAME_SUITE = "tests/runtime/cuda/test_on_a_gpu.py"
_PROFILE_NAME = "ncu.csv"
_PROFILED = "regex:candidates|fast_nms|mask_|preprocess"
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Request:
    """Paths and settings that the stages of one run share.

    Attributes:
        root: Root of the checkout.
        work: Folder for everything that stages write besides rows.
        output: Folder of the GPU's records.
        rows: File of the rows.
        pack: Folder written by :mod:`yolact_benchmarks.studies.gpu.pack`; it may be missing.
        run: Identifier that distinguishes this run's rows from those of others.
        scale: Share of the work to do.
        bundles: Additional bundles, besides the packed ones.
    """

    root: Path
    work: Path
    output: Path
    rows: Path
    pack: Path
    run: str = ""
    scale: float = 1.0
    bundles: tuple[Path, ...] = ()

    def all_bundles(self) -> list[Path]:
        """Return the paths of all bundles, packed ones first."""
        return [*sorted((self.pack / PACKED_BUNDLES).glob("*.bundle")), *self.bundles]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: Name that selects the stage alone.
        half: Half of the day, ``"first"`` or ``"second"``; if empty, the stage only runs if it is named.
        limit_s: Time after which the stage is killed, seconds.
        command: Function that returns the command line.
        needs: Program without which the stage cannot run, or empty.
        quick: Whether to run fewer cases, because a sanitizer makes everything ten times slower.
        suite: Whether it is a test suite, of which some tests must pass: if all are skipped, nothing was tested.
        launches: Whether it is a test suite that must launch kernels on the device, for the same reason.
        writes: Name of the profiler's file in the output folder, which must list kernels; or empty.
    """

    name: str
    half: str
    limit_s: int
    command: Callable[[Request], list[str]]
    needs: str = ""
    quick: bool = False
    suite: bool = False
    launches: bool = False
    writes: str = ""

    def why_not(self) -> str:
        """Return what is missing on this machine; empty if the stage can run."""
        missing = self.needs and not shutil.which(self.needs, path=tool_path())
        return f"{self.needs} is not on this machine" if missing else ""


def tool_path() -> str:
    """Return ``PATH`` with the folders of CUDA toolkits appended."""
    toolkits = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    folders = [str(Path(toolkit, "bin")) for toolkit in toolkits if toolkit]
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *folders])


def stages_of(words: Sequence[str]) -> list[Stage]:
    """Return the stages selected by names of stages and halves, in the order of the words.

    Raises:
        KeyError: A word names no stage and no half.
    """
    known = {stage.name: [stage] for stage in STAGES}
    known |= {half: [stage for stage in STAGES if stage.half == half] for half in HALVES}
    return list(dict.fromkeys(stage for word in words for stage in known[word]))


def _program(name: str, *words: str) -> Callable[[Request], list[str]]:
    def command(request: Request) -> list[str]:
        common = ["--rows", str(request.rows), "--scale", str(request.scale)]
        return [sys.executable, "-m", f"yolact_benchmarks.studies.gpu.{name}", *common, *words]

    return command


def _suite(*words: str, before: Sequence[str] = (), workers: bool = False) -> Callable[[Request], list[str]]:
    def command(request: Request) -> list[str]:
        # With one process, the GPU mostly waits for Python. Not every machine has xdist, and a dry run is too short.
        several = ["-n", str(min(_MOST_WORKERS, os.cpu_count() or 1)), "--dist", "worksteal"]
        spread = several if workers and request.scale == 1 and importlib.util.find_spec("xdist") else []
        return [*before, sys.executable, *_PYTEST.split(), *spread, *words]

    return command


def _sanitizer(tool: str) -> tuple[str, ...]:
    # cuda-bindings asks the driver for functions that it may lack: API errors that are not caused by this project.
    return ("compute-sanitizer", "--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9")


_ON_DEVICE = ("-p", "support.on_device", *_KERNEL_SUITES)


def _profile(request: Request) -> list[str]:
    sections = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats", "WarpStateStats")
    chosen = [word for section in sections for word in ("--section", section)]
    written = ["--csv", "--log-file", str(request.output / _PROFILE_NAME)]
    return ["ncu", "--clock-control", "none", *chosen, "-k", _PROFILED, *written, *_program("one_frame")(request)]


def _network(*words: str) -> Callable[[Request], list[str]]:
    def command(request: Request) -> list[str]:
        made_up = ["--made-up", str(request.work / "yolact_resnet50.pth")]
        return [*_program("network", *words, *made_up)(request), str(request.root / "examples/models/shapes.pth")]

    return command


def _rtx(request: Request) -> list[str]:
    carried = ["--pack", str(request.pack), "--work", str(request.work / "rtx")]
    return [*_program("rtx", *carried)(request), *map(str, request.all_bundles())]


STAGES = (
    Stage("facts", "first", 25, _program("facts")),
    Stage("kernels", "first", 65, _suite(*_ON_DEVICE, workers=True), suite=True, launches=True),
    Stage("device", "first", 50, _suite("tests/plugins/driver/test_device.py", _FRAME_SUITE, workers=True), suite=True),
    Stage("frames", "first", 60, _program("frames", "--seconds", "45")),
    Stage(
        "memcheck",
        "first",
        40,
        _suite(*_ON_DEVICE, before=_sanitizer("memcheck")),
        needs="compute-sanitizer",
        quick=True,
        suite=True,
        launches=True,
    ),
    Stage(
        "racecheck",
        "first",
        30,
        _suite(*_ON_DEVICE, before=_sanitizer("racecheck")),
        needs="compute-sanitizer",
        quick=True,
        suite=True,
        launches=True,
    ),
    Stage("rtx", "second", 75, _rtx),
    Stage("network", "second", 50, _network()),
    Stage("growth", "second", 30, _program("growth")),
    Stage("ncu", "second", 30, _profile, needs="ncu", writes=_PROFILE_NAME),
    Stage(
        "path-memcheck",
        "second",
        25,
        _suite("-k", "random_frames", _FRAME_SUITE, before=_sanitizer("memcheck")),
        needs="compute-sanitizer",
        quick=True,
        suite=True,
    ),
    Stage("compiled", "", 150, _network("--compile")),
)
