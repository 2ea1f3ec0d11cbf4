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
from yolact_export.commands.packages import require_packages
from yolact_export.commands.precision_cli import (
    add_image_options,
    add_precision_options,
    check_precision_options,
    guard_status,
    network_adder,
    say_precisions,
    wants_precision,
)
from yolact_export.commands.prune_cli import add_prune_options, check_prune_options, prune_first
from yolact_export.commands.signing_cli import BundleSeal, add_signing_options, open_new_seal
from yolact_export.errors import CheckpointError, YolactError
from yolact_plugins.files import human_size, typed_folder
from yolact_plugins.leftovers import remove_leftovers
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="yolact-export",
        description="Turn a YOLACT, YOLACT++ or YolactEdge checkpoint into a bundle that yolact-run runs.",
        epilog="Exit status: 0 done; 1 failed, nothing written; 2 usage; 3 a network lost too much accuracy and was "
        "rejected, the others stand; 5 wrong machine or version for an engine; 6 out of memory; 130 interrupted, "
        "143 terminated: nothing written.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help=".pth file; or a bundle, with --int8 or --fp16 to add networks to it, with --engine to build its engines, "
        "with --sign to sign it",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=typed_folder,
        metavar="BUNDLE",
        help="folder to write (default NAME.bundle, in the current folder)",
    )
    parser.add_argument("--json", metavar="PATH|-", help="write a report of the export as JSON to a file or stdout")
    add_checkpoint_options(parser)
    graph = parser.add_argument_group("graph")
    graph.add_argument("--dynamic-batch", action="store_true", help="any number of images per run")
    graph.add_argument("--normalise-in-graph", action="store_true", help="the graph takes raw BGR values, 0..255")
    graph.add_argument(
        "--deform-conv",
        choices=["deform-conv", "grid-sample"],
        default="deform-conv",
        help="YOLACT++: the ONNX operator, or native operators that TensorRT-RTX builds too (default deform-conv)",
    )
    add_precision_options(parser)
    add_engine_options(parser)
    add_signing_options(parser)
    add_image_options(parser)
    add_prune_options(parser)
    add_common_options(parser)
    return parser


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    if not options.checkpoint.exists():
        # A bundle whose replacement was killed between two renames is put back.
        remove_leftovers(options.checkpoint)
    if options.checkpoint.is_dir() or options.checkpoint.suffix == ".onnx":
        return run_on_bundle(options, terminal)
    check_prune_options(options)
    check_precision_options(options)
    check_engine_options(options)
    check_json_destination(options.json)
    if not options.checkpoint.exists():
        raise _not_there(options)
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
    if options.engine and path.suffix not in {".pth", ".pt", ".ckpt", ".tar"}:
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
        pruned = prune_first(options, bundle, checkpoint_options, terminal)
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
