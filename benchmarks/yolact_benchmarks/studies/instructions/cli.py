"""Command line of the estimate: it writes a record of one checkout, and prints a table of it."""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from yolact_benchmarks.report.record import write_record
from yolact_benchmarks.studies.instructions.frame import SCENES, Kernels, LaunchCounts, Scene, count_frame, tree
from yolact_benchmarks.studies.instructions.machine_code import find_disassembler
from yolact_benchmarks.studies.instructions.table import (
    AFTER_THE_NETWORK,
    BITS_AND_RUNS,
    COLUMNS,
    GPUS,
    OTHERS,
    RUNS,
    issued_by,
)
from yolact_plugins.compile.compiler import OPTIONS, nvrtc_version

__all__ = ["ARCHS", "DTYPES", "main"]

ARCHS = ("sm_90", "sm_87")
"""Default architectures: those of an H100 and of a Jetson Orin."""
DTYPES = ("float32", "float16")
_PACKAGES = ("runtime", "plugins", "calibration", "export")
_CHECKOUT = Path(__file__).parents[4]


def main(arguments: list[str] | None = None) -> int:
    """Run the estimate, print tables, write a record, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.instructions", description=__doc__)
    parser.add_argument(
        "--arch", nargs="+", default=ARCHS, choices=GPUS, metavar="sm_XY", help=f"default: {' '.join(ARCHS)}"
    )
    parser.add_argument("--tree", type=Path, help="checkout whose kernels and runtime are measured (default: this one)")
    parser.add_argument("--label", default="after", help="label of the record: before or after (default: after)")
    parser.add_argument("--scenes", nargs="+", type=int, metavar="N", help="numbers of scenes, from 0 (default: all)")
    parser.add_argument(
        "--dtype", nargs="+", default=DTYPES, choices=DTYPES, help="dtype of the network's outputs (default: both)"
    )
    parser.add_argument(
        "--others", action="store_true", help="count the kernels that a usual frame does not launch, and only those"
    )
    parser.add_argument("--disassembler", type=Path, help="nvdisasm (default: from pip, below out/disassembler)")
    parser.add_argument("--results", type=Path, help="folder for the record, such as benchmarks/results")
    parser.add_argument("--hot", type=int, default=0, metavar="N", help="show the N most issued instructions of each")
    options = parser.parse_args(arguments)
    if options.tree and options.tree.resolve() != tree():
        return _in_tree(options.tree.resolve(), sys.argv[1:] if arguments is None else arguments)
    disassembler = options.disassembler or find_disassembler(_CHECKOUT / "out" / "disassembler")
    rows = []
    for arch in options.arch:
        kernels = Kernels.compiled(arch, disassembler)
        scenes = [SCENES[i] for i in options.scenes] if options.scenes else SCENES
        for dtype, scene in itertools.product(options.dtype, scenes):
            started = time.perf_counter()
            found, launches = (_count_others if options.others else count_frame)(scene, kernels, dtype)
            rows.append(_row(arch, dtype, scene, found, launches))
            _show(rows[-1], time.perf_counter() - started)
            if options.hot:
                _show_hot(kernels, launches, options.hot)
    if options.results:
        label = "others" if options.others else options.label
        results = {"label": label, "commit": _commit(), "nvrtc": nvrtc_version(), "options": list(OPTIONS)}
        results["columns"] = list(COLUMNS)
        command = f"python -m yolact_benchmarks.studies.instructions --arch {' '.join(options.arch)}"
        command += f" --dtype {' '.join(options.dtype)}{' --others' if options.others else ''}"
        command += f" --tree CHECKOUT --label {options.label}"
        write_record(options.results, f"instructions-{label}", {**results, "rows": rows}, command)
    return 0


def _in_tree(folder: Path, arguments: list[str]) -> int:
    """Run the same command in a process that imports the other checkout's packages, and this one's benchmarks."""
    paths = [_CHECKOUT / "benchmarks", *(folder / package for package in _PACKAGES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", "yolact_benchmarks.studies.instructions", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def _count_others(scene: Scene, kernels: Kernels, dtype: str) -> tuple[dict[str, int], list[LaunchCounts]]:
    """Count two frames: YOLACT++ whose results stay on the GPU, and Fast NMS across classes."""
    found, launches = count_frame(scene, kernels, dtype, mask_rescoring=True)
    launches += count_frame(scene, kernels, dtype, nms="cross-class")[1]
    return found, [launch for launch in launches if re.match(OTHERS, launch.kernel)]


def _row(arch: str, dtype: str, scene: Scene, found: dict[str, int], launches: list[LaunchCounts]) -> dict[str, Any]:
    """Return the figures of each kernel in the order of :data:`COLUMNS`, summed over its launches."""
    kernels: dict[str, list[int]] = {}
    for launch in launches:
        blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
        figures = [blocks, *(int(getattr(launch.counts, name)) for name in COLUMNS[1:])]
        before = kernels.get(launch.kernel, [0] * len(figures))
        kernels[launch.kernel] = [a + b for a, b in zip(before, figures, strict=True)]
    of_scene = {"objects": scene.count, "area": scene.area, "min_confidence": scene.min_confidence}
    return {"arch": arch, "dtype": dtype, **of_scene, **found, "kernels": kernels}


def _show(row: dict[str, Any], seconds: float) -> None:
    scene = f"{row['arch']}, {row['dtype']}, {Scene(row['objects'], row['area'], row['min_confidence'])}"
    print(f"\n{scene}: {row['found']} found, {row['runs']:,} runs ({seconds:.0f} s)")
    print(f"{'kernel':24} {'blocks':>7} {'warp instr.':>12} {'of a block':>11} {'of a warp':>10} {'sectors':>9}")
    for name, (blocks, issued, of_block, of_warp, sectors) in row["kernels"].items():
        print(f"{name:24} {blocks:7} {issued:12,} {of_block:11,} {of_warp:10,} {sectors:9,}")
    print(f"{'after the network':24} {'':7} {issued_by(row, AFTER_THE_NETWORK):12,}")
    print(f"{'runs':24} {'':7} {issued_by(row, RUNS):12,}")
    print(f"{'bits and runs':24} {'':7} {issued_by(row, BITS_AND_RUNS):12,}", flush=True)


def _show_hot(kernels: Kernels, launches: list[LaunchCounts], number: int) -> None:
    for launch in launches:
        print(f"{launch.kernel}: most issued")
        issued = launch.counts.of_instructions
        for i in sorted(map(int, issued.argsort()[::-1][:number])):
            print(f"    {int(issued[i]):10,}  /*{16 * i:04x}*/ {kernels.codes[launch.kernel].texts[i]}")


def _commit() -> str:
    command = ["git", "-C", str(tree()), "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
