"""Options of ``yolact-bench``: what is measured, on which frames, and for how long."""

from __future__ import annotations

import argparse
from pathlib import Path

from yolact_calibration.labels.options import add_file_rules
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule, needs
from yolact_runtime.media.image_reader import add_bit_depth_option
from yolact_runtime.option_numbers import real_number, whole_number

__all__ = ["add_bench_options", "add_output_options"]


def add_bench_options(parser: CommandParser) -> None:
    """Add the options that say what to measure."""
    _add_frames(parser)
    _add_length(parser)
    _add_accuracy(parser)
    _add_comparisons(parser.add_argument_group("more to measure"))


def _add_frames(parser: CommandParser) -> None:
    frames = parser.add_argument_group("frames")
    frames.add_argument(
        "--images",
        nargs="+",
        default=["synthetic"],
        metavar="DIR",
        main=True,
        help="folders, files or globs of pictures; the word camera (camera:1 for the second one); or synthetic: drawn "
        "scenes (default synthetic)",
    )
    add_bit_depth_option(
        frames, [Rule(_has_pictures, "on drawn frames and cameras, which have 8 bits", "add --images DIR")]
    )
    frames.add_argument(
        "--instances",
        metavar="N,N",
        main=True,
        help="plant exactly this many in every frame, or the word found: what the network finds (default 1,10,100; "
        "with pictures found)",
    )
    frames.add_argument(
        "--size",
        metavar="WxH,WxH",
        field="sizes",
        main=True,
        rules=[Rule(_is_synthetic, "on pictures, which have sizes of their own")],
        help="sizes of drawn frames (default 1280x720,1920x1080)",
    )
    frames.add_argument(
        "--min-confidence",
        type=real_number,
        metavar="C",
        help="score threshold, like yolact-run --score (default 0.3)",
    )


def _add_length(parser: CommandParser) -> None:
    length = parser.add_argument_group("how long")
    length.add_argument(
        "--duration",
        type=real_number,
        metavar="S",
        field="duration_s",
        main=True,
        help="seconds for each configuration (default 10)",
    )
    length.add_argument(
        "--until-ci",
        metavar="P%",
        help="stop as soon as every median is known this precisely, such as 1%%; at most --duration each (default "
        "then 120)",
    )
    length.add_argument(
        "--warm-up",
        type=real_number,
        metavar="S",
        field="warm_up_s",
        help="seconds to run before measuring (default 1)",
    )
    length.add_argument(
        "--processes",
        type=whole_number,
        metavar="N",
        field="num_processes",
        help="new processes that share the time, because each is a little faster or slower than the last; with "
        "--until-ci at least this many; 1: only this process (default 5)",
    )
    length.add_argument(
        "--cold-starts",
        type=whole_number,
        default=3,
        metavar="N",
        field="num_cold_starts",
        help="new processes that measure the time to the first result; 0: none (default 3)",
    )
    length.add_argument(
        "--stream",
        type=real_number,
        default=3.0,
        metavar="S",
        field="streaming_s",
        help="seconds to stream for, with frames in flight; 0: none (default 3)",
    )


def _add_accuracy(parser: CommandParser) -> None:
    accuracy = parser.add_argument_group(
        "accuracy beside speed",
        rules=[Rule(_has_pictures, "without pictures", "add --images DIR")],
    )
    truth = accuracy.add_mutually_exclusive_group()
    truth.add_argument("--annotations", type=Path, metavar="COCO.json", help="labels: box and mask AP")
    truth.add_argument("--against", type=Path, metavar="MODEL", help="no labels: agreement with this model")
    add_file_rules(accuracy, [needs("--annotations", advice="compare with --annotations COCO.json")])


def _add_comparisons(group: OptionGroup) -> None:
    group.add_argument(
        "--layers", action="store_true", main=True, help="time by part of the model: res4, protonet, ..."
    )
    group.add_argument(
        "--peers", action="store_true", help="time what you would use instead, interleaved with this model"
    )
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE.pth",
        rules=[needs("--peers")],
        help="checkpoint of the model, for peers that run in PyTorch",
    )


def add_output_options(output: OptionGroup) -> None:
    """Add the files that the record goes to, and ``--strict``."""
    output.add_argument(
        "--json", metavar="PATH|-", main=True, help="write the record, with every sample, to a file or stdout"
    )
    output.add_argument("--html", type=Path, metavar="PATH", main=True, help="write a self-contained HTML report")
    output.add_argument("--markdown", metavar="PATH|-", help="write the tables in Markdown to a file or stdout")
    output.add_argument("--strict", action="store_true", help="exit with status 7 if a measurement is unstable")


def _is_synthetic(options: argparse.Namespace) -> bool:
    return bool(options.images == ["synthetic"])


def _has_pictures(options: argparse.Namespace) -> bool:
    """Return whether frames come from files; a folder may be called like one of the words."""
    first: str = options.images[0]
    return first.partition(":")[0] not in {"synthetic", "camera"} or Path(first).exists()
