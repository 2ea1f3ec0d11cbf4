"""Options of command lines about a checkpoint."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolact_export.commands.class_names import read_class_names
from yolact_export.commands.jobs import of_checkpoint
from yolact_export.errors import UsageError
from yolact_export.model.config import LEAST_SIDE_PX, NUM_LEVELS
from yolact_export.model.registry import CONFIGS
from yolact_plugins.command_line import CommandParser, OptionGroup, Rule
from yolact_runtime.model.manifest_limits import HUGE, MAX_LEVELS, MAX_PIXELS, MAX_SIDE, TINY
from yolact_runtime.option_numbers import real_number, shown_number

if TYPE_CHECKING:
    from yolact_export.checkpoint.checkpoint import CheckpointOptions

__all__ = [
    "add_checkpoint_options",
    "add_source_options",
    "check_config_name",
    "check_side",
    "parse_scales",
    "read_checkpoint_options",
]


def add_checkpoint_options(parser: CommandParser) -> None:
    """Add the options of ``yolact-export`` for facts that a checkpoint does not hold."""
    group = parser.add_argument_group(
        "model configuration (normally inferred from the file name)",
        rules=[of_checkpoint("its manifest states the model's configuration")],
    )
    add_source_options(group)
    group.add_argument(
        "--input-size", metavar="N|WxH", main=True, help="network input in pixels, such as 550 or 960x544"
    )
    group.add_argument(
        "--class-names", type=Path, metavar="FILE", main=True, help="file with one name per line, or a JSON list"
    )
    group.add_argument(
        "--prior-scales",
        metavar="PX,PX,..",
        help="prior sides of P3 to P7 in pixels, such as 24,48,96,192,384 (several for a level: 24/30,48/60,...)",
    )


def add_source_options(group: OptionGroup, rules: Sequence[Rule] = ()) -> None:
    """Add the options of every command that reads a checkpoint.

    Args:
        group: Group of options to add to.
        rules: Conditions without which the options have no effect.
    """
    group.add_argument(
        "--config",
        metavar="NAME",
        main=True,
        rules=rules,
        suggest=tuple(CONFIGS),
        help="configuration that the model was trained with, such as yolact_base",
    )
    group.add_argument(
        "--weights",
        metavar="NAME",
        rules=rules,
        help="which model to take from a file with several, such as model or ema (default: the moving average, or the "
        "only one)",
    )
    group.add_argument(
        "--assume",
        action="store_true",
        rules=rules,
        help="if nothing states input size or priors, assume those of the published configuration with the same "
        "structure; boxes are wrong if the model was trained with others (default: an error that lists the "
        "configurations)",
    )


def read_checkpoint_options(options: argparse.Namespace) -> CheckpointOptions:
    """Return the checkpoint options of a ``yolact-export`` command line.

    Raises:
        UsageError: An option cannot be understood.
    """
    from yolact_export.checkpoint.checkpoint import CheckpointOptions

    check_config_name(options.config)
    return CheckpointOptions(
        config=options.config,
        input_size=_parse_size(options.input_size),
        class_names=None if options.class_names is None else read_class_names(options.class_names),
        prior_scales=parse_scales(options.prior_scales),
        weights=options.weights,
        assume=options.assume,
    )


def _parse_size(text: str | None) -> int | tuple[int, int] | None:
    """Parse ``550`` or ``WIDTHxHEIGHT``; the result is a side, or ``(height, width)``."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})(?:[xX]([0-9]{1,9}))?", text)
    if match is None:
        raise UsageError(f'--input-size is a number or WIDTHxHEIGHT, such as 550 or 960x544; found "{text}"')
    sides = [int(side) for side in match.groups() if side is not None]
    for side in sides:
        check_side(side)
    if sides[0] * sides[-1] > MAX_PIXELS:
        raise UsageError(f"--input-size is {MAX_PIXELS} pixels in all at most, found {text}")
    return sides[0] if len(sides) == 1 else (sides[1], sides[0])


def check_side(side: int) -> None:
    """Refuse an input that no model can have.

    Raises:
        UsageError: It is too small or too large.
    """
    if side < LEAST_SIDE_PX:
        raise UsageError(f"--input-size is {LEAST_SIDE_PX} pixels or more on each side, found {shown_number(side)}")
    if side > MAX_SIDE:
        raise UsageError(f"--input-size is {MAX_SIDE} pixels at most on each side, found {shown_number(side)}")


def check_config_name(name: str | None) -> None:
    """Refuse a ``--config`` that does not exist.

    Raises:
        UsageError: The configuration is unknown; the message lists the known ones.
    """
    if name is not None and name not in CONFIGS:
        raise UsageError(f'--config: no configuration is called "{name}"; there are: {", ".join(CONFIGS)}')


def parse_scales(text: str | None) -> tuple[tuple[float, ...], ...] | None:
    """Parse prior scales: levels are separated by commas, several scales of a level by slashes.

    Raises:
        UsageError: A scale is not a number of pixels above 0 or is beyond what a manifest may say, or a model has
            another number of levels.
    """
    if text is None:
        return None
    try:
        scales = tuple(tuple(real_number(scale) for scale in level.split("/")) for level in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f'--prior-scales are numbers such as 24,48,96,192,384; found "{text}"') from error
    if any(0 < scale < TINY or HUGE < scale < math.inf for level in scales for scale in level):
        raise UsageError(f'--prior-scales are between {TINY:g} and {HUGE:g} pixels; found "{text}"')
    if any(len(level) > MAX_LEVELS for level in scales):
        raise UsageError(f"--prior-scales has {MAX_LEVELS} scales of a level at most")
    if not all(0 < scale < math.inf for level in scales for scale in level):
        raise UsageError(f'--prior-scales are pixels above 0, such as 24,48,96,192,384; found "{text}"')
    if len(scales) != NUM_LEVELS or len({len(level) for level in scales}) != 1:
        raise UsageError(
            f"--prior-scales has one level for each of P3 to P7, with equally many scales, such as 24,48,96,192,384 or "
            f'24/30,48/60,96/120,192/240,384/480; found "{text}"'
        )
    return scales
