"""Words of a command line that stand for several values."""

from __future__ import annotations

import argparse
import math
import re

from yolact_runtime.errors import UsageError
from yolact_runtime.option_numbers import MAX_INSTANCES, real_number

__all__ = ["FOUND", "parse_fraction", "parse_numbers", "parse_sizes"]

FOUND = "found"
"""Word that stands for the instances that a network finds."""
# Longer numbers are out of every range, and Python limits their length as well.
_MAX_DIGITS = 9


def parse_numbers(text: str) -> tuple[int | None, ...]:
    """Parse numbers of instances, such as ``"1,10,found"``; None stands for "found".

    Raises:
        UsageError: The text is anything else.
    """
    words = list(dict.fromkeys(text.split(",")))
    if not all(word == FOUND or (word.isascii() and word.isdigit()) for word in words):
        raise UsageError(f'--instances takes numbers, such as 1,10,100, or the word found; found "{text}"')
    if any(word != FOUND and (len(word) > _MAX_DIGITS or int(word) > MAX_INSTANCES) for word in words):
        raise UsageError(f'--instances takes numbers from 0 to {MAX_INSTANCES}; found "{text}"')
    return tuple(None if word == FOUND else int(word) for word in words)


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Parse sizes such as ``"1280x720,1920x1080"`` to (width, height) in pixels.

    Raises:
        UsageError: The text is anything else.
    """
    from yolact_calibration.shapes.scene import MAX_SIDE_PX, MIN_SIDE_PX

    matches = [re.fullmatch(r"([0-9]+)[xX]([0-9]+)", word) for word in dict.fromkeys(text.split(","))]
    if not all(matches):
        raise UsageError(f'--size takes widths and heights, such as 1280x720,1920x1080; found "{text}"')
    words = [side for match in matches if match for side in match.groups()]
    if any(len(side) > _MAX_DIGITS or not MIN_SIDE_PX <= int(side) <= MAX_SIDE_PX for side in words):
        raise UsageError(f'--size takes widths and heights from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels; found "{text}"')
    return tuple((int(match[1]), int(match[2])) for match in matches if match)


def parse_fraction(option: str, text: str) -> float:
    """Parse a fraction such as ``"1%"`` or ``"0.01"``.

    Raises:
        UsageError: The text is anything else, or the fraction is not between 0 and 1.
    """
    try:
        value = real_number(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except argparse.ArgumentTypeError:
        value = math.nan
    if not 0 < value < 1:
        raise UsageError(f'{option} takes a part, such as 3% or 0.03, above 0 and below 1; found "{text}"')
    return value
