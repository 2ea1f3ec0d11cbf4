"""The command of a GPU day: ``pack`` here, ``run`` there."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from yolact_benchmarks.gpu.day import run_stages, table
from yolact_benchmarks.gpu.pack import PackRequest, make_pack
from yolact_benchmarks.gpu.parts import SUITE_PARTS, join_parts
from yolact_benchmarks.gpu.record import ROWS_NAME, gpu_folder
from yolact_benchmarks.gpu.stage_options import DRIVER_VARIABLE, Scale, open_device
from yolact_benchmarks.gpu.stages import HALF_LIMIT_S, HALVES, STAGES, Request, stages_of
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime.errors import UsageError, YolactError

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[3]
_OUT = Path("out")
_CHECK_LIMIT_S = 40
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except YolactError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except subprocess.CalledProcessError as error:
        print(f"error: {shlex.join(map(str, error.cmd))} failed with exit status {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.gpu", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="make what travels to a machine without a network")
    pack.add_argument("-o", "--output", type=Path, default=_OUT / "gpu-pack", help="default: out/gpu-pack")
    pack.add_argument("--limit-mib", type=float, default=64, help="for the tracked tree with one half (default: 64)")
    pack.add_argument("--python", default="3.12", help="version of Python there (default: 3.12)")
    pack.add_argument("--bundle", type=Path, nargs="*", default=[], help="carry these too; they have engines for RTX")
    pack.add_argument("--no-rtx", action="store_true", help="without TensorRT-RTX and engines")
    pack.set_defaults(command=_pack)
    run = commands.add_parser("run", help="run stages, by name or by half", epilog=_stage_help(), **_RAW)
    run.add_argument("stage", nargs="*", default=list(HALVES), help="first, second, or stages (default: both halves)")
    run.add_argument("-o", "--output", type=Path, default=_OUT / "gpu", help="records, in a folder that names the GPU")
    run.add_argument("--work", type=Path, default=_OUT / "gpu-work", help="caches and logs (default: out/gpu-work)")
    run.add_argument("--pack", type=Path, default=_OUT / "gpu-pack", help="default: out/gpu-pack, if it is there")
    run.add_argument("--bundle", type=Path, nargs="*", default=[], help="for the stage rtx")
    run.add_argument("--scale", type=float, default=1.0, help="share of the work, for a dry run (default: 1)")
    run.add_argument("--driver", metavar="MODULE:CLASS", help="a simulated driver, for a dry run")
    run.add_argument("--within", type=float, metavar="S", help=f"for all (default: {HALF_LIMIT_S} for each half)")
    run.set_defaults(command=_run)
    check = commands.add_parser("check", help="say which GPU is here; exit status 5 where there is none")
    check.set_defaults(command=_check)
    return parser


_RAW: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}


def _stage_help() -> str:
    lines = [f"  {stage.name:14} {stage.half or 'by name':8} at most {stage.limit_s:3} s" for stage in STAGES]
    return "stages:\n" + "\n".join(lines)


def _pack(options: argparse.Namespace) -> int:
    request = PackRequest(
        ROOT,
        options.output.resolve(),
        int(options.limit_mib * 2**20),
        options.python,
        not options.no_rtx,
        tuple(options.bundle),
    )
    sizes = make_pack(request, lambda line: print(line, flush=True))
    for name, size in sizes.items():
        print(f"{name:7} {size / 2**20:6.1f} of {options.limit_mib:.0f} MiB")
    for half in HALVES:
        limit = sum(stage.limit_s for stage in stages_of([half]))
        carried = options.output / half
        print(f"carry {carried}; there, at most {limit} s: python3 benchmarks/yolact_benchmarks/gpu run {half}")
    return 0


def _run(options: argparse.Namespace) -> int:
    try:
        stages = stages_of(options.stage)
    except KeyError as error:
        known = ", ".join([*HALVES, *(stage.name for stage in STAGES)])
        raise UsageError(f"there is no stage {error.args[0]}; there are: {known}") from error
    Scale(options.scale)
    if options.driver:
        os.environ[DRIVER_VARIABLE] = options.driver
    work = options.work.resolve()
    gpu = _find_gpu()
    output = gpu_folder(options.output.resolve(), gpu["name"])
    bundles = tuple(bundle.resolve() for bundle in options.bundle)
    request = Request(ROOT, work, output, output / ROWS_NAME, options.pack.resolve(), options.scale, bundles)
    _find_suite_packages(request)
    halves = len({stage.half for stage in stages if stage.half}) or 1
    within = options.within or max(HALF_LIMIT_S * halves, *(stage.limit_s for stage in stages))
    print(f"{gpu['name']} ({gpu['arch']}), driver for CUDA {gpu['cuda']}; records in {output}", flush=True)
    command = shlex.join(["python3", "-m", "yolact_benchmarks.gpu", "run", *options.stage])
    outcomes = run_stages(stages, request, gpu, command, within, lambda line: print(line, flush=True))
    print("\n".join(table(outcomes, request.rows)), flush=True)
    return int(any(outcome.is_failure for outcome in outcomes))


def _find_suite_packages(request: Request) -> None:
    """Without hypothesis the suites cannot run; without xdist they take longer."""
    missing = [name for name in ("hypothesis", "xdist") if importlib.util.find_spec(name) is None]
    carried = any(request.pack.glob(f"*/{SUITE_PARTS}-*"))
    if "hypothesis" in missing or (missing and carried):
        join_parts(request.pack, SUITE_PARTS, request.work / "site")
        sys.path.append(str(request.work / "site"))


def _find_gpu() -> dict[str, str]:
    """Asked in a process of its own: a driver that hangs must not take the day with it."""
    command = [sys.executable, str(Path(__file__).parent), "check"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise CudaUnavailableError(
            f"the NVIDIA driver did not answer within {_CHECK_LIMIT_S} s; does nvidia-smi answer?"
        ) from error
    if done.returncode:
        raise CudaUnavailableError(done.stderr.strip().removeprefix("error: ") or f"exit status {done.returncode}")
    gpu: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return gpu


def _check(_: argparse.Namespace) -> int:
    with open_device() as device:
        print(json.dumps({"name": device.name, "arch": device.arch, "cuda": device.driver.gpu.cuda_version}))
    return 0
