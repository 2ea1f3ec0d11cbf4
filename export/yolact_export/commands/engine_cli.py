"""Options and implementation of ``yolact-export BUNDLE --engine``, which needs neither torch nor onnx."""

from __future__ import annotations

import argparse
import re
import shlex

from yolact_export.commands.jobs import BUILDS_ENGINES, of_checkpoint
from yolact_export.commands.signing_cli import signing_options
from yolact_export.engine.gpus import check_rtx
from yolact_export.engine.options import EngineOptions
from yolact_export.engine.targets import available_targets, report_left_out
from yolact_export.errors import UsageError
from yolact_export.facade.engines import EngineResult, build_engine
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule, needs
from yolact_plugins.files import counted, human_size
from yolact_runtime.backends.tensorrt_library import LIBRARIES
from yolact_runtime.option_numbers import MAX_BYTES, whole_number
from yolact_runtime.terminal import Terminal, check_json_destination, write_json

__all__ = [
    "add_engine_options",
    "check_engine_options",
    "chosen_engines",
    "engine_options",
    "engine_targets",
    "parse_size_bytes",
    "run_engine",
    "say_what_is_left_out",
]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_engine_options(parser: CommandParser) -> None:
    """Add ``--engine`` and the options of its build."""
    group = parser.add_argument_group("TensorRT engines")
    wanted = group.add_mutually_exclusive_group()
    wanted.add_argument(
        "--engine",
        action="store_true",
        main=True,
        rules=[Rule(lambda options: options.target != "cpu", "with --target cpu: ONNX Runtime runs the ONNX file")],
        help="build engines (of a bundle: from its ONNX files, without torch)",
    )
    wanted.add_argument(
        "--no-engine",
        action="store_true",
        rules=[of_checkpoint("its engines are only built with --engine")],
        help="build no engine; --fp16 and --int8 otherwise build those that this machine can",
    )
    group.add_argument(
        "--target",
        choices=["auto", "cpu", *LIBRARIES],
        default="auto",
        metavar="NAME",
        main=True,
        rules=[needs("--engine", "--int8", "--fp16", advice="add one of them")],
        help="what to make networks and engines for: cpu (no engines), tensorrt (this machine's GPU), rtx (RTX GPUs) "
        "or auto: whatever can be made here (default auto)",
    )
    group.add_argument(
        "--compute-capability",
        metavar="N.N,..",
        field="compute_capabilities",
        rules=BUILDS_ENGINES,
        help="rtx: GPUs to build for, such as 8.6,8.9 (default: all that TensorRT-RTX knows from 8.0 on; not Jetson "
        "Orin, 8.7)",
    )
    _add_build_options(group)


def _add_build_options(group: OptionGroup) -> None:
    group.add_argument(
        "--workspace",
        metavar="SIZE",
        field="workspace_bytes",
        rules=BUILDS_ENGINES,
        help="GPU scratch memory that a layer may use, such as 2G",
    )
    group.add_argument(
        "--builder-level",
        type=whole_number,
        metavar="N",
        field="optimisation_level",
        rules=BUILDS_ENGINES,
        help="0 (quick build) to 5 (most kernels tried); default 3",
    )
    group.add_argument(
        "--tf32",
        action="store_true",
        rules=BUILDS_ENGINES,
        help="let float32 layers round their inputs to 10 bits of mantissa: faster, no longer exact",
    )
    group.add_argument(
        "--version-compatible",
        action="store_true",
        rules=BUILDS_ENGINES,
        help="tensorrt: an engine that newer releases load, with this release's lean runtime",
    )
    group.add_argument(
        "--hardware-compatible",
        action="store_true",
        rules=BUILDS_ENGINES,
        help="tensorrt: an engine for all GPUs from Ampere on; slower, and not on a Jetson",
    )
    group.add_argument(
        "--memory-limit",
        metavar="SIZE",
        field="memory_limit_bytes",
        rules=BUILDS_ENGINES,
        help="memory that a build may use, such as 6G (default: what is free)",
    )


def engine_targets(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the libraries to build with: the one that was named, or those that can build here.

    TensorRT builds on the GPU that will run the engine, so without a GPU it is left out; TensorRT-RTX needs none.
    """
    if options.target == "cpu":
        return ()
    if options.target != "auto":
        return (options.target,)
    return available_targets(_capabilities(options))


def chosen_engines(options: argparse.Namespace) -> tuple[EngineOptions, ...]:
    """Return what to build; without any library the first one, whose error says what to install."""
    return tuple(engine_options(options, target) for target in engine_targets(options) or tuple(LIBRARIES)[:1])


def say_what_is_left_out(options: argparse.Namespace, terminal: Terminal) -> None:
    """Report, with ``--target auto``, why an installed TensorRT-RTX builds nothing on this machine."""
    if options.target == "auto":
        report_left_out(_capabilities(options), terminal)


def check_engine_options(options: argparse.Namespace) -> None:
    """Refuse contradictory options before any work is done.

    Raises:
        UsageError: Options that cannot be understood, or contradict each other.
    """
    for target in engine_targets(options) or LIBRARIES:
        engine_options(options, target)
    capabilities = _capabilities(options)
    if not options.no_engine and (options.target == "rtx" or (options.target == "auto" and capabilities)):
        check_rtx(capabilities)


def engine_options(options: argparse.Namespace, target: str) -> EngineOptions:
    """Return the build options of a command line for one library.

    Raises:
        UsageError: They cannot be understood, or do not make sense together.
    """
    capabilities = _capabilities(options) if target == "rtx" or options.target != "auto" else ()
    return EngineOptions(
        target=target,
        workspace_bytes=parse_size_bytes("--workspace", options.workspace),
        optimisation_level=options.builder_level,
        compute_capabilities=capabilities,
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        memory_limit_bytes=parse_size_bytes("--memory-limit", options.memory_limit),
        tf32=options.tf32,
    )


def _capabilities(options: argparse.Namespace) -> tuple[str, ...]:
    named: str | None = options.compute_capability
    return () if named is None else tuple(part.strip() for part in named.split(","))


def parse_size_bytes(option: str, text: str | None) -> int | None:
    """Parse a size such as ``2G``, ``512M`` or ``1.5 GiB``; units are powers of 1024, as in TensorRT's own tools.

    Raises:
        UsageError: The text is not a size.
    """
    if text is None:
        return None
    match = re.fullmatch(r" *([0-9]+(?:\.[0-9]+)?) *([KMG]?)(?:i?B)? *", text, re.IGNORECASE | re.ASCII)
    size = 0.0 if match is None else float(match[1]) * _UNITS[match[2].upper()]
    if size < 1:
        raise UsageError(f'{option} takes a size such as 512M or 2G; found "{text}"')
    if size > MAX_BYTES:
        raise UsageError(f'{option} takes a size such as 512M or 2G, of {MAX_BYTES >> 30}G at most; found "{text}"')
    return int(size)


def run_engine(options: argparse.Namespace, terminal: Terminal) -> int:
    """Build the engines of a bundle; ``options.checkpoint`` is its folder.

    Args:
        options: Options of :func:`add_engine_options`, and ``checkpoint`` and ``json`` of ``yolact-export``.
        terminal: Reporter of messages and progress.

    Returns:
        The exit status.
    """
    check_engine_options(options)
    check_json_destination(options.json)
    say_what_is_left_out(options, terminal)
    result = build_engine(
        options.checkpoint, chosen_engines(options), signing=signing_options(options), reporter=terminal
    )
    _close(result, options, terminal)
    return 0


def _close(result: EngineResult, options: argparse.Namespace, terminal: Terminal) -> None:
    terminal.heading(f"{counted(len(result.engines), 'engine')} in {result.seconds:.1f} s")
    for engine in result.engines:
        size, sha256 = human_size(engine.artefact.size_bytes), engine.artefact.sha256
        terminal.say(f"  {engine.path}  {size}  sha256 {sha256[:16]}…")
    terminal.say(f"next:  yolact-run {shlex.quote(str(result.bundle))} IMAGE -o out")
    if options.json:
        write_json(result.document(), options.json)
