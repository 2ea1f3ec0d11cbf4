"""The pruning options of ``yolact-export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_calibration.labels.options import file_rules
from yolact_export.commands.jobs import NEEDS_PRUNE, of_checkpoint
from yolact_export.errors import UsageError
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.option_numbers import (
    MAX_COUNT,
    MAX_SEED,
    MAX_THREADS,
    MAX_WORKERS,
    check_most,
    real_number,
    shown_number,
    whole_number,
)
from yolact_runtime.terminal import Terminal

if TYPE_CHECKING:
    from yolact_calibration.data.annotated_images import AnnotatedImages
    from yolact_calibration.training.training import TrainingOptions
    from yolact_export.checkpoint.checkpoint import CheckpointOptions
    from yolact_export.graph.export import ExportOptions
    from yolact_export.training.pruning import PrunedCheckpoint, PruneRequest

__all__ = ["add_prune_options", "check_prune_options", "prune_first"]

# Fewer say nothing about which channels matter.
_LEAST_IMAGES = 16
_RANGES = {
    "recover_steps": (0, MAX_COUNT),
    "recover_batch": (1, 4096),
    "round_to": (1, 4096),
    "workers": (0, MAX_WORKERS),
    "threads": (1, MAX_THREADS),
}
_MAX_RATE = 1000
_RECOVERS = Rule(lambda options: options.recover_steps != 0, "with --recover-steps 0: nothing is learned")


def add_prune_options(parser: CommandParser) -> None:
    """Add pruning; the images that it needs are options of their own."""
    group = parser.add_argument_group(
        "pruning, of a checkpoint (needs --calib)", rules=[of_checkpoint("only a .pth checkpoint can be pruned")]
    )
    group.add_argument(
        "--prune",
        type=real_number,
        metavar="F",
        field="removed_latency",
        main=True,
        help="remove this share of the network's measured latency, such as 0.4",
    )
    group.add_argument(
        "--importance",
        choices=["taylor", "batch-norm"],
        metavar="NAME",
        rules=[NEEDS_PRUNE],
        help="how the importance of channels is measured: taylor or batch-norm (default taylor)",
    )
    group.add_argument(
        "--round-to",
        type=whole_number,
        default=8,
        metavar="N",
        rules=[NEEDS_PRUNE],
        help="keep widths that are multiples of N (default 8)",
    )
    group.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", rules=[NEEDS_PRUNE], help="random seed (default 0)"
    )
    group.add_argument(
        "--recover-steps",
        type=whole_number,
        metavar="N",
        field="num_steps",
        rules=[NEEDS_PRUNE],
        help="training steps after pruning, with the unpruned model as the teacher (default 1000; 0: none)",
    )
    _add_recovery_options(group, [NEEDS_PRUNE, _RECOVERS])


def _add_recovery_options(group: OptionGroup, rules: Sequence[Rule]) -> None:
    group.add_argument(
        "--recover-annotations",
        type=Path,
        metavar="FILE",
        rules=rules,
        help="COCO labels of the --calib folder, to learn from as well",
    )
    group.add_argument(
        "--recover-batch",
        type=whole_number,
        default=8,
        metavar="N",
        field="batch_size",
        rules=rules,
        help="images per step (default 8)",
    )
    group.add_argument(
        "--recover-rate",
        type=real_number,
        default=1e-3,
        metavar="R",
        field="learning_rate",
        rules=rules,
        help="learning rate (default 1e-3)",
    )
    group.add_argument("--no-augment", action="store_true", rules=rules, help="do not augment the images")
    group.add_argument(
        "--workers",
        type=whole_number,
        default=1,
        metavar="N",
        field="num_workers",
        rules=rules,
        help="processes that load images (default 1)",
    )
    group.add_argument(
        "--restart", action="store_true", rules=rules, help="discard an unfinished recovery of the same bundle"
    )


def check_prune_options(options: argparse.Namespace) -> None:
    """Refuse what makes no sense before anything heavy is imported.

    Raises:
        UsageError: An option is missing or out of range.
    """
    if options.prune is None:
        return
    if not 0 < options.prune < 1:
        raise UsageError(f"--prune is the share of the latency to remove, between 0 and 1; found {options.prune}")
    if not 0 <= options.seed <= MAX_SEED:
        raise UsageError(f"--seed is 0 or more and below 2^63, found {shown_number(options.seed)}")
    if not options.calib:
        raise UsageError("--prune needs --calib: a folder of images as the camera sees them, without labels")
    if options.recover_annotations is not None and len(options.calib) != 1:
        raise UsageError("--recover-annotations are the labels of one --calib folder; several were given")
    for name, (least, most) in _RANGES.items():
        option, value = f"--{name.replace('_', '-')}", getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"{option} must be {least} or more, found {shown_number(value)}")
        check_most(option, value, most)
    if not 0 < options.recover_rate <= _MAX_RATE:
        raise UsageError(f"--recover-rate must be above 0, and {_MAX_RATE} or less, found {options.recover_rate}")


def prune_first(
    options: argparse.Namespace,
    bundle: Path,
    checkpoint_options: CheckpointOptions,
    export_options: ExportOptions,
    terminal: Terminal,
) -> PrunedCheckpoint:
    """Prune the checkpoint; the result lies beside the bundle and is exported in its place."""
    from yolact_export.checkpoint.checkpoint import load_checkpoint
    from yolact_export.checkpoint.findings import say_findings
    from yolact_export.training.pruning import prune_checkpoint

    loaded = load_checkpoint(options.checkpoint, checkpoint_options)
    # Before the pruning, which takes long, and not after it.
    export_options.require_effects(loaded.model)
    # What the pruned checkpoint says of itself is what is known of this one, assumptions included.
    say_findings(loaded.findings, terminal)
    request = _request(options, bundle, loaded.config.feature_sizes[-1], terminal)
    terminal.heading(f"pruning: {options.prune:.0%} of the latency, with {len(request.images)} images")
    try:
        return prune_checkpoint(loaded, request, terminal)
    except BaseException:
        if request.files.state.exists():
            terminal.say(f"state kept in {request.files.state}; the same command continues")
        raise


def _request(
    options: argparse.Namespace, bundle: Path, coarsest_size: tuple[int, int], terminal: Terminal
) -> PruneRequest:
    from yolact_calibration.data.augment import AugmentOptions
    from yolact_calibration.data.image_sequence import find_unlabelled
    from yolact_calibration.pruning.channel_groups import BLOCKS, WidthGrid
    from yolact_calibration.pruning.prune import PruneOptions
    from yolact_calibration.training.torch_device import choose_device
    from yolact_export.training.pruning import PruneRequest

    device = choose_device("auto")
    reader = ImageReader(options.bit_depth, None, terminal.warn)
    images = find_unlabelled(options.calib, _LEAST_IMAGES, reader)
    for sentence in images.warnings:
        terminal.warn(sentence)
    importance = options.importance or "taylor"
    # Pyramid, prototype network and head have no batch norms.
    blocks = ("backbone",) if importance == "batch-norm" else BLOCKS
    return PruneRequest(
        output=bundle.with_name(f"{bundle.stem}.pruned.pth"),
        options=PruneOptions(
            options.prune, importance, WidthGrid(round_to=options.round_to), blocks, seed=options.seed
        ),
        images=images,
        labelled=_annotated(options, options.recover_annotations, Path(options.calib[0]), reader, terminal),
        evaluation=_annotated(options, options.annotations, options.images, reader, terminal),
        recovery=_recovery(options, device, coarsest_size),
        augment=AugmentOptions.none() if options.no_augment else AugmentOptions(expand=1.5),
        num_threads=options.threads or 1,
        num_workers=options.workers,
        device=device,
        restart=options.restart,
        source=options.checkpoint,
        command_line=options.command_line,
    )


def _recovery(options: argparse.Namespace, device: str, coarsest_size: tuple[int, int]) -> TrainingOptions | None:
    from yolact_calibration.training.torch_device import has_fast_bfloat16, has_safe_bfloat16
    from yolact_calibration.training.training import TrainingOptions

    num_steps = 1000 if options.recover_steps is None else options.recover_steps
    if num_steps == 0:
        return None
    return TrainingOptions(
        num_steps=num_steps,
        batch_size=options.recover_batch,
        learning_rate=options.recover_rate,
        optimizer="adamw",
        warmup_steps=min(100, max(1, num_steps // 10)),
        freeze_batch_norm=options.recover_batch < 6,
        autocast=has_fast_bfloat16(device) and has_safe_bfloat16(device, coarsest_size),
        seed=options.seed,
        save_every=100,
        evaluate_every=max(num_steps // 5, 1),
    )


def _annotated(
    options: argparse.Namespace, annotations: Path | None, folder: Path, reader: ImageReader, terminal: Terminal
) -> AnnotatedImages | None:
    from yolact_calibration.data.annotated_images import AnnotatedImages
    from yolact_calibration.labels.coco import CocoAnnotations

    if annotations is None:
        return None
    data = AnnotatedImages.open(CocoAnnotations.from_file(annotations), folder, file_rules(options), reader)
    data.warn_of_doubts(terminal)
    return data
