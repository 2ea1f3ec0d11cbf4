"""``yolact-export``: a checkpoint becomes a bundle."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_export.bundle_writer import check_destination
from yolact_export.commands.bundle_cli import run_on_bundle
from yolact_export.commands.checkpoint_cli import add_checkpoint_options, read_checkpoint_options
from yolact_export.commands.engine_cli import (
    add_engine_options,
    check_engine_options,
    engine_targets,
    has_deform_conv,
    say_what_is_left_out,
    write_engines,
)
from yolact_export.commands.jobs import CHECKPOINT, ENGINES, job_of, of_checkpoint, wants_precision
from yolact_export.commands.packages import require_packages
from yolact_export.commands.precision_cli import (
    check_precision_options,
    guard_status,
    network_adder,
    say_precisions,
)
from yolact_export.commands.precision_options import add_image_options, add_precision_options
from yolact_export.commands.prune_cli import add_prune_options, check_prune_options, prune_first
from yolact_export.commands.signing_cli import BundleSeal, add_signing_options, open_new_seal
from yolact_export.errors import CheckpointError, YolactError
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import human_size, typed_folder
from yolact_runtime.backends.tensorrt_library import LIBRARIES
from yolact_runtime.errors import BundleError
from yolact_runtime.terminal import Terminal, add_common_options, check_json_destination, run_command, write_json

if TYPE_CHECKING:
    from yolact_export.engine.bundle import WrittenEngine
    from yolact_export.pipeline import ExportResult
    from yolact_export.training.pruning import PrunedCheckpoint

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
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
    if wants_precision(options):
        require_packages("yolact-export --int8", "train", "faster_coco_eval", "cv2")
    if options.prune is not None:
        require_packages("yolact-export --prune", "train", "torch_pruning", "faster_coco_eval", "cv2")
    try:
        return _export(options, terminal)
    except RuntimeError as error:
        # torch has no error of its own for this.
        if "allocate memory" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from error
        raise


def _not_there(options: argparse.Namespace) -> YolactError:
    """The error for a path that does not exist, by what it was meant for."""
    path: Path = options.checkpoint
    if options.job == ENGINES:
        return BundleError(f"no bundle at {path}: --engine builds the engines of a folder that yolact-export wrote")
    return CheckpointError(f"{path}: No such file or directory; name a .pth checkpoint, or the folder of a bundle")


def _export(options: argparse.Namespace, terminal: Terminal) -> int:
    from yolact_export.checkpoint.checkpoint import CheckpointOptions
    from yolact_export.graph.export import ExportOptions
    from yolact_export.pipeline import export_checkpoint

    checkpoint_options = read_checkpoint_options(options)
    export_options = ExportOptions(
        dynamic_batch=options.dynamic_batch,
        normalise_in_graph=options.normalise_in_graph,
        deform_conv=options.deform_conv,
        bit_depth=options.bit_depth,
    )
    started = time.monotonic()
    bundle = options.output or Path(f"{options.checkpoint.stem}.bundle")
    checkpoint, pruned = options.checkpoint, None
    check_destination(bundle)
    seal = open_new_seal(options, bundle, terminal)
    # Before anything that takes long: images that do not serve end an export at once.
    add_networks = network_adder(options, terminal) if wants_precision(options) else None
    if options.prune is not None:
        pruned = prune_first(options, bundle, checkpoint_options, export_options, terminal)
        # The pruned file says itself how it is fed; what the options said is in its note.
        checkpoint, checkpoint_options = pruned.path, CheckpointOptions()
    terminal.heading(f"reading {checkpoint}")

    result = export_checkpoint(
        checkpoint,
        bundle,
        checkpoint_options,
        export_options,
        {} if pruned is None else {"pruning": pruned.record},
        add_networks,
        seal.finish_new,
        terminal,
    )
    for line in result.verification.table():
        terminal.say(f"  {line}")
    with seal.reported():
        engines = _build_engines(options, result, terminal, seal)
    _close(result, time.monotonic() - started, options, terminal, pruned, engines)
    return guard_status(result.precisions, terminal)


def _build_engines(
    options: argparse.Namespace, result: ExportResult, terminal: Terminal, seal: BundleSeal
) -> list[WrittenEngine]:
    if options.no_engine or options.target == "cpu" or not (options.engine or wants_precision(options)):
        return []
    targets = engine_targets(options)
    say_what_is_left_out(options, terminal)
    words = f"yolact-export {shlex.quote(str(result.bundle))} --engine"
    if options.target == "auto" and not options.engine:
        if "rtx" in targets and has_deform_conv(result.bundle):
            terminal.say("no TensorRT-RTX engine: it has no DeformConv; --deform-conv grid-sample writes what it knows")
            targets = tuple(target for target in targets if target != "rtx")
        if not targets:
            terminal.say(f"no engine: no TensorRT that could build one is here. On the robot: {words}")
            return []
    # Asked for, and without a library, the error of the first says what to install.
    return write_engines(result.bundle, targets or tuple(LIBRARIES)[:1], options, terminal, seal)


def _close(
    result: ExportResult,
    seconds: float,
    options: argparse.Namespace,
    terminal: Terminal,
    pruned: PrunedCheckpoint | None,
    engines: list[WrittenEngine],
) -> None:
    """The last words: what is where, and what to type next."""
    terminal.heading(f"export complete in {seconds:.1f} s")
    for name, artefact in result.manifest.artefacts.items():
        terminal.say(f"  {result.bundle / name}  {human_size(artefact.size_bytes)}  sha256 {artefact.sha256[:16]}…")
    for engine in engines:
        terminal.say(
            f"  {engine.path}  {human_size(engine.artefact.size_bytes)}  sha256 {engine.artefact.sha256[:16]}…"
        )
    if pruned is not None:
        terminal.say(f"  {pruned.path}  {human_size(pruned.path.stat().st_size)}  the pruned checkpoint")
    if result.precision_report is not None:
        say_precisions(result.precision_report, result.bundle, terminal)
    terminal.say(f"next:  yolact-run {shlex.quote(str(result.bundle))} IMAGE -o out")
    if options.json:
        document: dict[str, Any] = {
            "bundle": str(result.bundle),
            "manifest": json.loads(result.manifest.to_json()),
            "findings": list(result.findings),
            "verification": result.verification.document(),
            "pruning": None if pruned is None else pruned.record,
            "precision": result.precision_report,
            "engines": [engine.document() for engine in engines],
            "seconds": round(seconds, 2),
        }
        write_json(document, options.json)


if __name__ == "__main__":
    sys.exit(main())
