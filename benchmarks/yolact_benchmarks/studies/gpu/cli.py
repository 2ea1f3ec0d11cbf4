"""The command of a GPU day: ``pack`` on this machine, ``run`` on the other."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolact_benchmarks.studies.gpu.day import run_stages, table
from yolact_benchmarks.studies.gpu.pack import PackRequest, commit_of, make_pack
from yolact_benchmarks.studies.gpu.parts import SUITE_PARTS, join_parts
from yolact_benchmarks.studies.gpu.record import ROWS_NAME, gpu_folder
from yolact_benchmarks.studies.gpu.stage_options import DRIVER_VARIABLE, Scale, open_device
from yolact_benchmarks.studies.gpu.stages import HALVES, STAGES, Request, stages_of
from yolact_plugins.errors import CudaUnavailableError
from yolact_runtime.errors import UsageError, YolactError
from yolact_runtime.terminal import Terminal

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[4]
_OUT = Path("out")
_CHECK_LIMIT_S = 20
_DRY_FACTOR = 10
_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
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
    parser = argparse.ArgumentParser(prog="python -m yolact_benchmarks.studies.gpu", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="pack the files for a machine without a network")
    pack.add_argument("-o", "--output", type=Path, default=_OUT / "gpu-pack", help="default: out/gpu-pack")
    pack.add_argument(
        "--limit-mib", type=_positive, default=64, help="limit of the tracked tree with one half, MiB (default: 64)"
    )
    pack.add_argument("--python", default="3.12", help="Python version of the other machine (default: 3.12)")
    pack.add_argument("--bundle", **_BUNDLE, help="also pack this bundle, which has engines (may be given again)")
    pack.add_argument("--no-rtx", action="store_true", help="leave out TensorRT-RTX and engines")
    pack.set_defaults(command=_pack)
    run = commands.add_parser("run", help="run stages, by name or by half", epilog=_stage_help(), **_RAW)
    run.add_argument("stage", nargs="*", default=list(HALVES), help="first, second, or stages (default: both halves)")
    run.add_argument(
        "-o",
        "--output",
        type=Path,
        default=_OUT / "gpu",
        help="folder for records, which get a folder named after the GPU",
    )
    run.add_argument("--work", type=Path, default=_OUT / "gpu-work", help="caches and logs (default: out/gpu-work)")
    run.add_argument(
        "--pack", type=Path, default=_OUT / "gpu-pack", help="packed files (default: out/gpu-pack, if it exists)"
    )
    run.add_argument("--bundle", **_BUNDLE, help="bundle for the stage rtx (may be given again)")
    run.add_argument("--scale", type=float, default=1.0, help="share of the work, for a dry run (default: 1)")
    run.add_argument("--driver", metavar="MODULE:CLASS", help="a simulated driver, for a dry run")
    run.add_argument(
        "--within", type=_positive, metavar="S", help="time for all stages (default: the sum of their limits)"
    )
    run.set_defaults(command=_run)
    check = commands.add_parser("check", help="print which GPU this machine has; exit status 5 if there is none")
    check.set_defaults(command=_check)
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


_BUNDLE: dict[str, Any] = {"type": Path, "action": "append", "default": [], "metavar": "BUNDLE"}
_RAW: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}


def _stage_help() -> str:
    lines = [f"  {stage.name:14} {stage.half or 'by name':8} at most {stage.limit_s:3} s" for stage in STAGES]
    return "stages:\n" + "\n".join(lines)


def _pack(options: argparse.Namespace) -> int:
    _require_bundles(options.bundle)
    request = PackRequest(
        ROOT,
        options.output.resolve(),
        int(options.limit_mib * 2**20),
        options.python,
        not options.no_rtx,
        tuple(options.bundle),
    )
    sizes = make_pack(request, Terminal(stream=sys.stdout))
    for name, size in sizes.items():
        print(f"{name:7} {size / 2**20:6.1f} of {options.limit_mib:.0f} MiB")
    for half in HALVES:
        limit = sum(stage.limit_s for stage in stages_of([half]))
        carried = options.output / half
        print(
            f"carry {carried}; there, at most {limit} s: python3 -B benchmarks/yolact_benchmarks/studies/gpu run {half}"
        )
    return 0


def _run(options: argparse.Namespace) -> int:
    began = time.monotonic()
    try:
        stages = stages_of(options.stage)
    except KeyError as error:
        known = ", ".join([*HALVES, *(stage.name for stage in STAGES)])
        raise UsageError(f"there is no stage {error.args[0]}; there are: {known}") from error
    Scale(options.scale)
    _require_bundles(options.bundle)
    if options.driver:
        os.environ[DRIVER_VARIABLE] = options.driver
        # The limits are meant for a GPU; a simulated one is slower.
        stages = [dataclasses.replace(stage, limit_s=_DRY_FACTOR * stage.limit_s) for stage in stages]
    gpu = _find_gpu()
    output = gpu_folder(options.output.resolve(), gpu["name"])
    request = Request(
        ROOT,
        options.work.resolve(),
        output,
        output / ROWS_NAME,
        options.pack.resolve(),
        secrets.token_hex(4),
        options.scale,
        tuple(bundle.resolve() for bundle in options.bundle),
    )
    _find_suite_packages(request)
    print(f"{gpu['name']} ({gpu['arch']}), driver for CUDA {gpu['cuda']}; records in {output}", flush=True)
    within = options.within or sum(stage.limit_s for stage in stages)
    facts = {"command": shlex.join(sys.argv), "scale": options.scale, "commit": commit_of(ROOT, request.pack)}
    # The time needed so far counts as well: the machine is only borrowed.
    within -= time.monotonic() - began
    with _interrupted_by_signals():
        outcomes = run_stages(stages, request, gpu, facts, within, Terminal(stream=sys.stdout))
    print("\n".join(table(outcomes, request)), flush=True)
    return int(any(each.is_failure for each in outcomes) or all(each.status != "ok" for each in outcomes))


@contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Turn signals that would end this process into interrupts, so that the record is kept.

    A lost connection is among them. The stage that runs is ended as well.
    """
    before = {name: signal.signal(name, signal.default_int_handler) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _require_bundles(bundles: Sequence[Path]) -> None:
    """Raise UsageError for anything but bundles, before any time is spent."""
    for bundle in bundles:
        if not (bundle / "manifest.json").is_file():
            raise UsageError(f"{bundle} is not a bundle: it has no manifest.json; yolact-export writes bundles")


def _find_suite_packages(request: Request) -> None:
    """Unpack the packages of the test suites if they are missing: hypothesis is required, xdist saves time."""
    missing = [name for name in ("hypothesis", "xdist") if importlib.util.find_spec(name) is None]
    carried = any(request.pack.glob(f"*/{SUITE_PARTS}-*"))
    if not missing or (missing == ["xdist"] and not carried):
        return
    try:
        join_parts(request.pack, SUITE_PARTS, request.work / "site")
        sys.path.append(str(request.work / "site"))
    except UsageError as error:
        print(f"the test suites will fail for want of {' and '.join(missing)}: {error}", file=sys.stderr)


def _find_gpu() -> dict[str, str]:
    """Ask for the GPU in a process of its own, because a driver that hangs must not stop the run."""
    command = [sys.executable, "-B", str(Path(__file__).parent), "check"]
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
