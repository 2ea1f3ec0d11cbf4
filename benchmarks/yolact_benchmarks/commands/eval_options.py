"""Options of ``yolact-eval``: what a model is compared with, and what is written."""

from __future__ import annotations

from pathlib import Path

from yolact_calibration.labels.options import add_file_rules
from yolact_plugins.command_line import CommandParser, Rule, needs
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import real_number, whole_number

__all__ = ["add_eval_options"]


def add_eval_options(parser: CommandParser) -> None:
    """Add the options that say what the model is compared with, and those of the output."""
    _add_truth(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="PATH|-", main=True, help="write the figures as JSON to a file or stdout")
    output.add_argument(
        "--bootstrap",
        type=whole_number,
        default=1000,
        metavar="N",
        field="num_resamples",
        help="resamples of the images for confidence intervals; 0: no intervals (default 1000)",
    )
    output.add_argument(
        "--seed",
        type=whole_number,
        default=0,
        metavar="N",
        rules=[Rule(lambda options: options.bootstrap != 0, "with --bootstrap 0, which draws nothing")],
        help="random seed of the resamples (default 0)",
    )


def _add_truth(parser: CommandParser) -> None:
    group = parser.add_argument_group("what to compare with")
    truth = group.add_mutually_exclusive_group(required=True)
    truth.add_argument("--annotations", type=Path, metavar="COCO.json", main=True, help="labels, in COCO's format")
    truth.add_argument(
        "--against",
        type=Path,
        metavar="REFERENCE_MODEL",
        main=True,
        help="no labels: another model, whose detections are the truth",
    )
    group.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="DIR",
        main=True,
        help="folder of the annotated images; with --against also image files and globs",
    )
    group.add_argument(
        "--limit", type=whole_number, metavar="N", main=True, help="only the first N images, by id or by name"
    )
    group.add_argument(
        "--min-confidence",
        type=real_number,
        metavar="C",
        rules=[needs("--against", advice="compare with --against REFERENCE_MODEL")],
        help="with --against: detections of the reference above this score are the truth (default 0.3)",
    )
    add_file_rules(group, [needs("--annotations", advice="compare with --annotations COCO.json")])
    add_bit_depth_option(group)
