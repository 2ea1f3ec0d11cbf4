"""The command ``yolact-finetune``, which trains a checkpoint or a configuration on your own classes."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_calibration.labels.options import file_rules
from yolact_export.commands.checkpoint_cli import check_config_name, check_side, parse_scales
from yolact_export.commands.finetune_options import add_finetune_options
from yolact_export.errors import UsageError
from yolact_export.facade.packages import require_packages
from yolact_plugins.command_line import CommandParser, Example
from yolact_plugins.files import counted, human_duration, human_size, real_path
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.media.image_reader import ImageReader
from yolact_runtime.option_numbers import MAX_COUNT, MAX_WORKERS, check_most, shown_number
from yolact_runtime.terminal import (
    Terminal,
    add_common_options,
    check_json_destination,
    run_command,
    write_json,
)

if TYPE_CHECKING:
    from yolact_calibration.data.augment import AugmentOptions
    from yolact_calibration.evaluation.accuracy import Accuracy
    from yolact_calibration.training.training_options import TrainingOptions
    from yolact_export.training.finetune import Finetuned, FinetuneOptions

__all__ = ["main"]

# Below this batch size the published training freezes batch norms.
_MIN_BATCH_FOR_NORMS = 6
_MAX_EPOCHS = 1_000_000


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_parser(), _run, arguments)


def _parser() -> CommandParser:
    parser = CommandParser(
        "yolact-finetune",
        "Train a YOLACT model on your own classes; the result is a checkpoint that yolact-export reads. If it is "
        "interrupted, the same command continues the training.",
        usage=("CHECKPOINT|CONFIG --annotations FILE --images DIR -o OUT.pth --steps N|--epochs N [options]",),
        exit_statuses="0 done; 1 failed; 2 usage; 6 out of memory; 130 interrupted, 143 terminated.",
        examples=(
            Example(
                "your classes, from a published checkpoint",
                "yolact-finetune yolact_resnet50_54_800000.pth --annotations train.json --images train/ -o mine.pth "
                "--epochs 20",
            ),
            Example(
                "a small model from scratch",
                "yolact-finetune yolact_tiny --annotations train.json --images train/ -o mine.pth --steps 5000",
            ),
        ),
    )
    parser.add_argument("source", metavar="CHECKPOINT|CONFIG", help=".pth file, or a configuration such as yolact_tiny")
    add_finetune_options(parser)
    add_common_options(parser)
    return parser


def _run(options: argparse.Namespace, terminal: Terminal) -> int:
    check_json_destination(options.json)
    _check_numbers(options)
    require_packages("yolact-finetune", "train", "torch", "faster_coco_eval", "cv2")
    from yolact_export.training.finetune import finetune

    started = time.monotonic()
    terminal.heading(f"training {options.source} on {options.annotations}")

    settings = _settings(options, terminal)
    result = finetune(settings, terminal)
    _close(result, settings, time.monotonic() - started, terminal)
    if options.json:
        write_json(result.record, options.json)
    return 0


def _check_numbers(options: argparse.Namespace) -> None:
    """Refuse numbers that are out of range, before torch is imported."""
    if not 0 <= options.validation_fraction < 1:
        raise UsageError(f"--validation-fraction lies between 0 and 1, found {options.validation_fraction}")
    if options.workers < 0:
        raise UsageError(f"--workers must be 0 or more, found {shown_number(options.workers)}")
    check_most("--workers", options.workers, MAX_WORKERS)
    if options.epochs is not None and not 0 < options.epochs <= _MAX_EPOCHS:
        raise UsageError(f"--epochs is a number above 0, and {_MAX_EPOCHS} or less, found {options.epochs}")
    if options.input_size is not None:
        check_side(options.input_size)
    parse_scales(options.prior_scales)
    check_bit_depth(options.bit_depth, "--bit-depth")
    _augment(options)
    _training_numbers(options, 1 if options.steps is None else options.steps)


def _settings(options: argparse.Namespace, terminal: Terminal) -> FinetuneOptions:
    from yolact_calibration.training.torch_device import choose_device
    from yolact_export.checkpoint.checkpoint import CheckpointOptions
    from yolact_export.training.finetune import FinetuneOptions, check_outputs

    check_config_name(options.config)
    device = choose_device(options.device)
    terminal.say(f"  device: {device}")
    settings = FinetuneOptions(
        source=options.source,
        annotations=options.annotations,
        images=options.images,
        output=options.output,
        training=_training_options(options, device, terminal),
        augment=_augment(options),
        validation_annotations=options.validation_annotations,
        validation_images=options.validation_images,
        validation_fraction=0.0 if options.validation_annotations else options.validation_fraction,
        checkpoint=CheckpointOptions(
            config=options.config, weights=options.weights, assume=options.assume, command="yolact-finetune"
        ),
        input_size=options.input_size,
        prior_scales=parse_scales(options.prior_scales),
        backbone_weights=options.backbone_weights,
        device=device,
        num_workers=options.workers,
        restart=options.restart,
        command_line=options.command_line,
        rules=file_rules(options),
        reader=ImageReader(options.bit_depth, None, terminal.warn),
    )
    check_outputs(settings)
    if options.json not in (None, "-") and real_path(options.json) in _other_outputs(settings):
        raise UsageError(f"--json would overwrite {options.json}, which the training writes for -o; name another file")
    return settings


def _other_outputs(settings: FinetuneOptions) -> set[Path]:
    """Return the files that a copy of the record must not replace; the record itself has the same content."""
    return {real_path(path) for path in settings.files.of_training if path != settings.files.record}


def _augment(options: argparse.Namespace) -> AugmentOptions:
    from yolact_calibration.data.augment import AugmentOptions

    return AugmentOptions.none() if options.no_augment else AugmentOptions(expand=options.expand)


def _training_options(options: argparse.Namespace, device: str, terminal: Terminal) -> TrainingOptions:
    from yolact_calibration.training.torch_device import has_fast_bfloat16

    num_steps = options.steps if options.steps is not None else _steps_of_epochs(options)
    freeze = _freezes_batch_norms(options, terminal)
    autocast = options.autocast == "on" or (options.autocast == "auto" and has_fast_bfloat16(device))
    return dataclasses.replace(_training_numbers(options, num_steps), freeze_batch_norm=freeze, autocast=autocast)


def _training_numbers(options: argparse.Namespace, num_steps: int) -> TrainingOptions:
    from yolact_calibration.training.training_options import TrainingOptions

    return TrainingOptions(
        num_steps=num_steps,
        batch_size=options.batch_size,
        learning_rate=1e-3 if options.learning_rate is None else options.learning_rate,
        optimizer=options.optimizer,
        warmup_steps=min(500, max(1, num_steps // 10)) if options.warmup is None else options.warmup,
        seed=options.seed,
        save_every=options.save_every,
        evaluate_every=options.evaluate_every,
    )


def _freezes_batch_norms(options: argparse.Namespace, terminal: Terminal) -> bool:
    from yolact_export.training.training_start import has_trained_backbone

    if options.batch_norm != "auto" or options.batch_size >= _MIN_BATCH_FOR_NORMS:
        return bool(options.batch_norm == "freeze")
    if has_trained_backbone(options.source, options.backbone_weights):
        terminal.say(f"  batch norms are frozen: a batch of {options.batch_size} is too small for statistics")
        return True
    terminal.say(
        f"  batch norms are trained, although a batch of {options.batch_size} is small for statistics: fresh ones have "
        f"none yet; --batch-size {_MIN_BATCH_FOR_NORMS} or more is better"
    )
    return False


def _steps_of_epochs(options: argparse.Namespace) -> int:
    from yolact_calibration.data.annotated_images import AnnotatedImages
    from yolact_calibration.data.dataset import learnable_images
    from yolact_calibration.labels.coco import CocoAnnotations
    from yolact_export.training.finetune import split_annotations

    found = AnnotatedImages.open(CocoAnnotations.from_file(options.annotations), options.images, file_rules(options))
    annotations = found.annotations
    if options.validation_annotations is None:
        annotations, _ = split_annotations(annotations, options.validation_fraction, options.seed)
    num_steps: int = math.ceil(options.epochs * len(learnable_images(annotations)) / options.batch_size)
    if num_steps > MAX_COUNT:
        raise UsageError(f"--epochs would be {num_steps} steps, and {MAX_COUNT} are the most; give fewer")
    return max(1, num_steps)


def _close(result: Finetuned, settings: FinetuneOptions, seconds: float, terminal: Terminal) -> None:
    terminal.heading(f"training complete in {human_duration(seconds)}")
    if result.accuracy is not None:
        box, mask = result.accuracy.bbox, result.accuracy.segm
        terminal.say(
            f"  {counted(result.accuracy.num_images, 'image')} that {_role(result.accuracy, settings)}: "
            f"box AP {_shown(box['AP'])}, mask AP {_shown(mask['AP'])}, mask AP50 {_shown(mask['AP50'])}"
        )
    for path in settings.files.of_training:
        terminal.say(f"  {path}  {human_size(path.stat().st_size)}")
    terminal.say(f"next:  yolact-export {shlex.quote(str(settings.output))}")


def _role(accuracy: Accuracy, settings: FinetuneOptions) -> str:
    was = "was" if accuracy.num_images == 1 else "were"
    return f"{was} held back" if settings.validation_annotations is None else f"{was} given for it"


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
