"""The command ``yolact-export``, which exports a checkpoint as a bundle."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_export.commands.bundle_cli import run_on_bundle
from yolact_export.commands.checkpoint_cli import add_checkpoint_options, read_checkpoint_options
from yolact_export.commands.engine_cli import (
    add_engine_options,
    check_engine_options,
    chosen_engines,
    engine_options,
    engine_targets,
    say_what_is_left_out,
)
from yolact_export.commands.jobs import CHECKPOINT, ENGINES, job_of, of_checkpoint, wants_precision
from yolact_export.commands.precision_cli import (
    check_precision_options,
    guard_status,
    labels_of,
    precision_options,
    say_precisions,
)
from yolact_export.commands.precision_options import add_image_options, add_precision_options
from yolact_export.commands.prune_cli import add_prune_options, check_prune_options, pruning_options
from yolact_export.commands.signing_cli import add_signing_options, signing_options
from yolact_export.engine.options import EngineOptions
from yolact_export.errors import CheckpointError, YolactError
from yolact_export.facade.packages import require_packages
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import human_size, typed_folder
from yolact_runtime.errors import BundleError
from yolact_runtime.terminal import Terminal, add_common_options, check_json_destination, run_command, write_json

if TYPE_CHECKING:
    from yolact_export.pipeline import ExportResult

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> CommandParser:
    parser = CommandParser(
        "yolact-export",
        "Turn a YOLACT, YOLACT++ or YolactEdge checkpoint into a bundle that yolact-run runs; or add networks, engines "
        "and a signature to a bundle.",
        usage=(
            "CHECKPOINT [-o BUNDLE] [options]",
            "BUNDLE --int8 --fp16 --calib DIR [--engine] [options]",
            "BUNDLE --engine [options]",
            "BUNDLE --sign KEY",
        ),
        exit_statuses="0 done; 1 failed, nothing written; 2 usage; 3 a network lost too much accuracy and was "
        "rejected, the others stand; 5 wrong machine or version for an engine; 6 out of memory; 130 interrupted, "
        "143 terminated: nothing written.",
        examples=(
            Example("export a published checkpoint", "yolact-export yolact_resnet50_54_800000.pth -o my.bundle"),
            Example("a checkpoint of your own", "yolact-export best.pth --config yolact_base --class-names names.txt"),
            Example("INT8 for a robot's CPU", "yolact-export my.bundle --int8 --target cpu --calib frames/"),
            Example(
                "on a Jetson: FP16, INT8 and engines",
                "yolact-export my.bundle --int8 --fp16 --calib frames/ --engine",
            ),
            Example("remove 40 % of the latency, then recover", "yolact-export best.pth --prune 0.4 --calib frames/"),
        ),
        job_of=job_of,
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help=".pth file; or the folder of a bundle, with --int8, --fp16, --engine or --sign",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        type=typed_folder,
        metavar="BUNDLE",
        main=True,
        rules=[of_checkpoint("it is changed in place")],
        help="folder to write (default NAME.bundle in the current folder)",
    )
    output.add_argument("--json", metavar="PATH|-", help="write a report as JSON to a file or stdout")
    add_checkpoint_options(parser)
    _add_graph_options(parser)
    add_precision_options(parser)
    add_image_options(parser)
    add_engine_options(parser)
    add_prune_options(parser)
    add_signing_options(parser)
    add_common_options(parser)
    return parser


def _add_graph_options(parser: CommandParser) -> None:
    graph = parser.add_argument_group("ONNX graph", rules=[of_checkpoint("its graph was written at export")])
    graph.add_argument("--dynamic-batch", action="store_true", help="accept any number of images per run")
    graph.add_argument("--normalise-in-graph", action="store_true", help="take raw BGR values, 0 to 255, as input")
    graph.add_argument(
        "--deform-conv",
        choices=["deform-conv", "grid-sample"],
        metavar="FORM",
        help="YOLACT++: deform-conv writes the ONNX operator; grid-sample writes others, which TensorRT-RTX builds too "
        "(default deform-conv)",
    )


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    if not options.checkpoint.exists():
        raise _not_there(options)
    if options.job != CHECKPOINT:
        return run_on_bundle(options, terminal)
    check_prune_options(options)
    check_precision_options(options)
    check_engine_options(options)
    check_json_destination(options.json)
    require_packages("yolact-export", "export", "torch", "onnx", "onnxruntime")
    return _export(options, terminal)


def _not_there(options: argparse.Namespace) -> YolactError:
    """Return the error for a path that does not exist, by its intended use."""
    path: Path = options.checkpoint
    if options.job == ENGINES:
        return BundleError(f"no bundle at {path}: --engine builds the engines of a folder that yolact-export wrote")
    return CheckpointError(f"{path}: No such file or directory; name a .pth checkpoint, or the folder of a bundle")


def _export(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_export.facade.export import export
    from yolact_export.graph.export import ExportOptions

    if options.engine:
        say_what_is_left_out(options, terminal)
    result = export(
        options.checkpoint,
        options.output,
        checkpoint_options=read_checkpoint_options(options),
        export_options=ExportOptions(
            dynamic_batch=options.dynamic_batch,
            normalise_in_graph=options.normalise_in_graph,
            deform_conv=options.deform_conv,
            bit_depth=options.bit_depth,
        ),
        images=options.calib or (),
        labels=labels_of(options),
        precision=precision_options(options) if wants_precision(options) else None,
        pruning=None if options.prune is None else pruning_options(options),
        engines=_engines(options),
        require_engines=options.engine or options.target != "auto",
        signing=signing_options(options),
        num_threads=options.threads,
        command=options.command_line,
        reporter=terminal,
    )
    _close(result, options, terminal)
    return guard_status(result.precisions, terminal)


def _engines(options: argparse.Namespace) -> tuple[EngineOptions, ...]:
    if options.no_engine or options.target == "cpu" or not (options.engine or wants_precision(options)):
        return ()
    # If an engine was asked for and there is no library, the error of the first one says what to install.
    if options.engine or options.target != "auto":
        return chosen_engines(options)
    return tuple(engine_options(options, target) for target in engine_targets(options))


def _close(result: ExportResult, options: argparse.Namespace, terminal: Terminal) -> None:
    """Report the files that were written, and what to type next."""
    terminal.heading(f"export complete in {result.seconds:.1f} s")
    for name, artefact in result.manifest.artefacts.items():
        terminal.say(f"  {result.bundle / name}  {human_size(artefact.size_bytes)}  sha256 {artefact.sha256[:16]}…")
    for engine in result.engines:
        terminal.say(
            f"  {engine.path}  {human_size(engine.artefact.size_bytes)}  sha256 {engine.artefact.sha256[:16]}…"
        )
    if result.pruned is not None:
        path = result.pruned.path
        terminal.say(f"  {path}  {human_size(path.stat().st_size)}  the pruned checkpoint")
    if result.precision_report is not None:
        say_precisions(result.precision_report, result.bundle, terminal)
    terminal.say(f"next:  yolact-run {shlex.quote(str(result.bundle))} IMAGE -o out")
    if options.json:
        write_json(result.document(), options.json)


if __name__ == "__main__":
    sys.exit(main())
