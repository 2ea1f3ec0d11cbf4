"""Options of ``yolact-export`` for float16 and INT8 networks, and for the images that these and pruning need."""

from __future__ import annotations

from pathlib import Path

from yolact_calibration.labels.options import add_file_rules
from yolact_export.commands.jobs import CHECKPOINT, NEEDS_INT8, NEEDS_PRECISION, NETWORKS, READS_IMAGES
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule, needs
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import real_number, whole_number

__all__ = ["add_image_options", "add_precision_options"]

# As yolact_calibration.evaluation.judge has them, which takes too long to import for a help text.
_LABELLED_LIMIT, _AGREEMENT_LIMIT = 0.5, 8.0
_FOR_ENGINES = Rule(
    lambda options: options.target != "cpu", "with --target cpu, which makes nothing for engines", "change the target"
)
_SEARCHES = Rule(lambda options: not options.int8_all, "with --int8-all, which leaves out the search")


def add_image_options(parser: CommandParser) -> None:
    """Add the images that pruning and lower precisions need."""
    group = parser.add_argument_group("images, for --int8, --fp16 and --prune")
    group.add_argument(
        "--calib",
        nargs="+",
        metavar="DIR",
        main=True,
        rules=READS_IMAGES,
        help="images as the camera sees them, without labels: folders or globs",
    )
    group.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        rules=READS_IMAGES,
        help="COCO labels: judge by AP instead of agreement with the float32 network",
    )
    group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        rules=[*READS_IMAGES, needs("--annotations", advice="add --annotations FILE")],
        help="folder of the images of --annotations",
    )
    reads_labels = needs("--annotations", "--recover-annotations", advice="add --annotations FILE")
    add_file_rules(group, [*READS_IMAGES, reads_labels])
    add_bit_depth_option(group, [Rule(lambda options: options.job in (CHECKPOINT, NETWORKS), "where no image is read")])
    group.add_argument(
        "--threads",
        type=whole_number,
        metavar="N",
        field="num_threads",
        rules=READS_IMAGES,
        help="CPU threads for measuring latency (default: 1 for pruning, otherwise all)",
    )


def add_precision_options(parser: CommandParser) -> None:
    """Add the precisions, and the accuracy that they may cost."""
    group = parser.add_argument_group("precision, of a checkpoint or added to a bundle")
    group.add_argument(
        "--int8", action="store_true", main=True, help="add INT8 networks, as far as the accuracy allows"
    )
    group.add_argument(
        "--fp16", action="store_true", main=True, rules=[_FOR_ENGINES], help="add a float16 network, for engines"
    )
    group.add_argument(
        "--max-drop",
        type=real_number,
        metavar="P",
        main=True,
        rules=[NEEDS_PRECISION],
        help=f"points of box and mask AP that may be lost (default {_LABELLED_LIMIT:g} with --annotations, "
        f"{_AGREEMENT_LIMIT:g} of agreement without)",
    )
    group.add_argument(
        "--no-guard",
        action="store_true",
        rules=[NEEDS_PRECISION],
        help="keep the networks whatever they lose; the losses are still shown",
    )
    _add_calibration_options(group)


def _add_calibration_options(group: OptionGroup) -> None:
    group.add_argument(
        "--int8-all", action="store_true", rules=[NEEDS_INT8], help="every convolution in INT8, without a search"
    )
    group.add_argument(
        "--calibration-method",
        choices=["mse", "minmax", "percentile", "entropy"],
        metavar="NAME",
        rules=[NEEDS_INT8],
        help="how ranges are chosen: mse, minmax, percentile or entropy (default mse: least expected error)",
    )
    group.add_argument(
        "--calibration-cache",
        type=Path,
        metavar="DIR",
        rules=[NEEDS_PRECISION],
        help="where calibrations are kept (default: the user's cache)",
    )
    group.add_argument(
        "--guard-images",
        type=whole_number,
        metavar="N",
        rules=[NEEDS_PRECISION],
        help="judge by at most this many images (default: all labelled ones, or 64)",
    )
    group.add_argument(
        "--io-dtype",
        choices=["auto", "float32"],
        metavar="TYPE",
        rules=[NEEDS_PRECISION, _FOR_ENGINES],
        help="inputs and outputs of networks for engines: auto takes float16 where that loses too little to matter; "
        "float32 suits programs of your own that read them (default auto)",
    )
    group.add_argument(
        "--sensitivity-images",
        type=whole_number,
        metavar="N",
        field="num_sensitivity",
        rules=[NEEDS_INT8, _SEARCHES],
        help="images that show which parts are sensitive to INT8 (default 16; 0: skip this)",
    )
