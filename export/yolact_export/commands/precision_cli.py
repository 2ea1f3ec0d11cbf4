"""Options of ``yolact-export`` for float16 and INT8 networks, and for the accuracy guard that judges them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolact_calibration.labels.options import Labels, file_rules
from yolact_export.commands.jobs import wants_precision
from yolact_export.errors import UsageError
from yolact_runtime.cpu.bit_depth import check_bit_depth
from yolact_runtime.option_numbers import MAX_COUNT, MAX_THREADS, check_most, shown_number
from yolact_runtime.terminal import Terminal

if TYPE_CHECKING:
    from yolact_calibration.precision.options import PrecisionOptions
    from yolact_export.precision.precision import PrecisionRequest, PrecisionResult

__all__ = [
    "check_precision_options",
    "guard_status",
    "labels_of",
    "precision_options",
    "precision_request",
    "say_precisions",
]

_GUARD_FAILED = 3

_ALL_POINTS = 100


def check_precision_options(options: argparse.Namespace) -> None:
    """Refuse contradictory options before anything heavy is imported.

    Raises:
        UsageError: An option is missing, out of range, or contradicts another.
    """
    if options.annotations is not None and options.images is None:
        raise UsageError("--annotations needs --images: the folder of the images that the labels name")
    _require_between(options, "threads", 1, MAX_THREADS)
    check_bit_depth(options.bit_depth, "--bit-depth")
    if not wants_precision(options):
        return
    if not options.calib:
        raise UsageError(
            "--int8 and --fp16 need --calib: a folder of images as the camera sees them, without labels. Ranges from "
            "other data would be wrong without any message"
        )
    if options.max_drop is not None:
        if options.no_guard:
            raise UsageError("--max-drop and --no-guard contradict each other; leave one out")
        if not 0 <= options.max_drop <= _ALL_POINTS:
            raise UsageError(
                f"--max-drop is a number of points, 0 to {_ALL_POINTS}, such as 0.5; found {options.max_drop}"
            )
    _require_between(options, "guard_images", 1, MAX_COUNT)
    _require_between(options, "sensitivity_images", 0, MAX_COUNT)


def _require_between(options: argparse.Namespace, name: str, least: int, most: int) -> None:
    value = getattr(options, name)
    if value is not None and value < least:
        raise UsageError(f"{_option(name)} must be {least} or more, found {shown_number(value)}")
    check_most(_option(name), value, most)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def precision_request(
    options: argparse.Namespace, terminal: Terminal, usual_bit_depth: int | None = None
) -> PrecisionRequest:
    """Return the networks to add to a bundle, with their images found and checked.

    `usual_bit_depth` is the bit depth that the bundle states.

    Raises:
        DatasetError: The images cannot be used.
    """
    from yolact_calibration.precision.precision_request import ImageSource
    from yolact_calibration.precision.precision_request import precision_request as find_images

    words, threads = tuple(options.calib), options.threads or 0
    source = ImageSource(words, labels_of(options), options.bit_depth, usual_bit_depth, threads)
    return find_images(precision_options(options), source, terminal)


def precision_options(options: argparse.Namespace) -> PrecisionOptions:
    """Return the networks that a command line asks for."""
    from yolact_calibration.precision.options import PrecisionOptions

    return PrecisionOptions(
        int8=options.int8,
        float16=options.fp16,
        target=options.target,
        max_drop=math.inf if options.no_guard else options.max_drop,
        method=options.calibration_method or "mse",
        everything=options.int8_all,
        num_guard_images=options.guard_images,
        num_sensitivity=16 if options.sensitivity_images is None else options.sensitivity_images,
        half_io=options.io_dtype != "float32",
        cache=options.calibration_cache,
    )


def labels_of(options: argparse.Namespace) -> Labels | None:
    """Return the labels to judge by, or None if the command line names none."""
    if options.annotations is None:
        return None
    return Labels(options.annotations, options.images, file_rules(options))


def say_precisions(report: Mapping[str, Any], bundle: Path, terminal: Terminal) -> None:
    """Report the comparison, the layers that stayed in float and why, and the verdict."""
    from yolact_export.precision.document import float32_lines, output_lines, table_lines

    terminal.heading("precisions")
    for line in table_lines(report):
        terminal.say(f"  {line}")
    for entry in report.get("kept_float", ()):
        count = entry["convolutions"]
        terminal.say(f"  in float: {entry['group']} ({count} convolution{'s' * (count != 1)}): {entry['why']}")
    for line in (*float32_lines(report), *output_lines(report)):
        terminal.say(f"  {line}")
    terminal.say(f"  report: {bundle / 'report.html'}")
    terminal.heading(str(report["verdict"]))


def guard_status(result: PrecisionResult | None, terminal: Terminal) -> int:
    """Return the exit status: 3 if a network lost too much accuracy, which is reported with advice."""
    if result is None or result.passed:
        return 0
    for variant in result.variants:
        if variant.passed:
            continue
        overflow = "" if variant.overflow is None else f" It overflows: {variant.overflow}."
        if not variant.is_sound:
            terminal.error(
                f"{variant.precision} gives outputs that are not finite: kept as {variant.path.name}.{overflow} Images "
                f"with such values in --calib keep these layers in float32"
            )
        else:
            lost = f"{variant.judgement.worst:.2f} points ({result.measure})"
            terminal.error(
                f"{variant.precision} loses {lost}, {result.max_drop:g} are allowed: kept as {variant.path.name}."
                f"{overflow} More or better images for --calib may help; --max-drop P allows more, and report.html "
                f"shows where it hurts"
            )
    return _GUARD_FAILED
