"""Options of ``yolact-finetune``: data, model, and training."""

from __future__ import annotations

from pathlib import Path

from yolact_calibration.labels.options import add_file_rules
from yolact_export.commands.checkpoint_cli import add_source_options
from yolact_export.model.registry import CONFIGS
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule, needs
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import real_number, whole_number

__all__ = ["add_finetune_options"]

_FROM_CHECKPOINT = Rule(lambda options: options.source not in CONFIGS, "on a configuration, which has no weights")
_FROM_CONFIG = Rule(lambda options: options.source in CONFIGS, "on a checkpoint, which has a trained backbone")
_HOLDS_BACK = Rule(
    lambda options: options.validation_annotations is None, "with --validation-annotations, which names other images"
)
_VALIDATES = Rule(
    lambda options: options.validation_annotations is not None or options.validation_fraction != 0,
    "with --validation-fraction 0: there are no images to evaluate on",
)
_AUGMENTS = Rule(lambda options: not options.no_augment, "with --no-augment")


def add_finetune_options(parser: CommandParser) -> None:
    """Add all options but those that every command has."""
    _add_files(parser)
    _add_validation(parser.add_argument_group("accuracy on images that are not trained on"))
    _add_model(parser.add_argument_group("model"))
    add_source_options(
        parser.add_argument_group("model configuration of a checkpoint (normally inferred from the file name)"),
        [_FROM_CHECKPOINT],
    )
    _add_length(parser.add_argument_group("training"))


def _add_files(parser: CommandParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--annotations", type=Path, required=True, metavar="FILE", main=True, help="COCO annotations")
    files.add_argument(
        "--images", type=Path, required=True, metavar="DIR", main=True, help="folder of the annotated images"
    )
    files.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.pth", main=True, help="checkpoint to write"
    )
    files.add_argument("--json", metavar="PATH|-", help="write the training record as JSON to a file or stdout")
    files.add_argument("--restart", action="store_true", help="discard an unfinished training of the same output")
    add_file_rules(files)
    add_bit_depth_option(files)


def _add_validation(group: OptionGroup) -> None:
    group.add_argument(
        "--validation-annotations", type=Path, metavar="FILE", main=True, help="COCO annotations of other images"
    )
    group.add_argument(
        "--validation-images",
        type=Path,
        metavar="DIR",
        rules=[needs("--validation-annotations", advice="add --validation-annotations FILE")],
        help="folder of those images (default: --images)",
    )
    group.add_argument(
        "--validation-fraction",
        type=real_number,
        default=0.1,
        metavar="F",
        rules=[_HOLDS_BACK],
        help="fraction of the images to hold back (default 0.1; 0: none, and no accuracy)",
    )
    group.add_argument(
        "--evaluate-every",
        type=whole_number,
        default=1000,
        metavar="N",
        rules=[_VALIDATES],
        help="steps between evaluations (default 1000)",
    )


def _add_model(group: OptionGroup) -> None:
    group.add_argument(
        "--input-size",
        type=whole_number,
        metavar="N",
        main=True,
        help="network input in pixels; prior scales follow (default: the source's)",
    )
    group.add_argument("--prior-scales", metavar="PX,PX,..", help="prior sides of P3 to P7 in pixels of the input")
    group.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        rules=[_FROM_CONFIG],
        help="ImageNet weights for the backbone of a configuration",
    )


def _add_length(group: OptionGroup) -> None:
    length = group.add_mutually_exclusive_group(required=True)
    length.add_argument(
        "--steps", type=whole_number, metavar="N", field="num_steps", main=True, help="batches to train for"
    )
    length.add_argument(
        "--epochs", type=real_number, metavar="N", field="num_steps", main=True, help="passes over the images"
    )
    group.add_argument(
        "--batch-size", type=whole_number, default=8, metavar="N", main=True, help="images per step (default 8)"
    )
    group.add_argument("--learning-rate", type=real_number, metavar="R", help="learning rate (default 1e-3)")
    group.add_argument(
        "--optimizer",
        choices=["sgd", "adamw"],
        default="sgd",
        metavar="NAME",
        help="sgd, as published, or adamw (default sgd)",
    )
    group.add_argument(
        "--warmup",
        type=whole_number,
        metavar="N",
        field="warmup_steps",
        help="steps over which the learning rate rises (default: a tenth, at most 500)",
    )
    group.add_argument(
        "--batch-norm",
        choices=["auto", "train", "freeze"],
        default="auto",
        metavar="MODE",
        help="train, freeze, or auto: freeze trained batch norms if a batch has fewer than 6 images, as published",
    )
    _add_training(group)


def _add_training(group: OptionGroup) -> None:
    group.add_argument(
        "--expand",
        type=real_number,
        default=4.0,
        metavar="R",
        rules=[_AUGMENTS],
        help="largest zoom-out of the augmentation (default 4; 1: none)",
    )
    group.add_argument("--no-augment", action="store_true", help="do not augment the images")
    group.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        metavar="N",
        help="random seed; the same seed gives the same training (default 0)",
    )
    group.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        main=True,
        metavar="NAME",
        help="auto, cpu or cuda (default auto: the GPU if PyTorch can use it)",
    )
    group.add_argument(
        "--autocast",
        choices=["auto", "on", "off"],
        default="auto",
        metavar="MODE",
        help="compute in bfloat16: on, off, or auto: where the device is fast at it (default auto)",
    )
    group.add_argument(
        "--workers",
        type=whole_number,
        default=1,
        metavar="N",
        field="num_workers",
        help="processes that load images (default 1)",
    )
    group.add_argument(
        "--save-every", type=whole_number, default=200, metavar="N", help="steps between saved states (default 200)"
    )
