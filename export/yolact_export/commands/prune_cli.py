"""The pruning options of ``yolact-export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from yolact_calibration.labels.options import file_rules
from yolact_export.commands.jobs import NEEDS_PRUNE, of_checkpoint
from yolact_export.errors import UsageError
from yolact_export.training.pruning_options import PruningOptions
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule
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

__all__ = ["add_prune_options", "check_prune_options", "pruning_options"]

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
    """Refuse contradictory options before anything heavy is imported.

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


def pruning_options(options: argparse.Namespace) -> PruningOptions:
    """Return the pruning that a command line asks for."""
    return PruningOptions(
        removed_latency=options.prune,
        importance=options.importance or "taylor",
        round_to=options.round_to,
        recover_steps=1000 if options.recover_steps is None else options.recover_steps,
        recover_batch=options.recover_batch,
        recover_rate=options.recover_rate,
        recover_annotations=options.recover_annotations,
        rules=file_rules(options),
        augments=not options.no_augment,
        seed=options.seed,
        num_workers=options.workers,
        restart=options.restart,
    )
