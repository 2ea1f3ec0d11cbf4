"""Numbers from users: parsed from command lines, and validated in option dataclasses."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

from yolact_runtime.errors import UsageError

__all__ = [
    "MAX_BYTES",
    "MAX_COUNT",
    "MAX_INSTANCES",
    "MAX_SEED",
    "MAX_THREADS",
    "MAX_WEIGHT",
    "MAX_WORKERS",
    "check_between",
    "check_most",
    "keep_between",
    "keep_numbers",
    "real_number",
    "shown_number",
    "whole_number",
]

MAX_COUNT = 1_000_000_000
"""Maximum number of images or steps, larger than any in practice."""
MAX_SEED = (1 << 63) - 1
"""The largest seed that torch accepts."""
MAX_INSTANCES = 100_000
"""More instances than any model keeps; memory for their masks depends on it."""
MAX_WEIGHT = 1e6
"""Maximum weight of a loss term."""
MAX_BYTES = 1 << 50
"""Maximum amount of memory in bytes."""
MAX_THREADS = 256
"""More threads than any suitable machine has.

A backend would take minutes and gigabytes to start for a mistyped number.
"""
MAX_WORKERS = 64
"""Maximum number of worker processes; each has its own libraries and data."""

# int() and float() would also accept underscores and the digits of every script.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?|nan)", re.IGNORECASE)
# Longer numbers are mistakes, and Python has its own limit with its own message.
_MAX_DIGITS = 400
_MAX_SHOWN = 40


def whole_number(text: str) -> int:
    """Parse an integer of any size; a ``type`` for ``argparse``, whose message names the option.

    Raises:
        argparse.ArgumentTypeError: The text is not an integer in the digits 0 to 9.
    """
    if len(text) > _MAX_DIGITS or not _WHOLE.fullmatch(text.strip(" ")):
        raise argparse.ArgumentTypeError(f"expected a whole number such as 8, digits only; found {_cut(text)!r}")
    return int(text)


def real_number(text: str) -> float:
    """Parse a number, including ``inf`` and ``nan``; a ``type`` for ``argparse``, whose message names the option.

    Raises:
        argparse.ArgumentTypeError: The text is not a number in the digits 0 to 9.
    """
    if len(text) > _MAX_DIGITS or not _REAL.fullmatch(text.strip(" ")):
        raise argparse.ArgumentTypeError(f"expected a number such as 0.5 or 1e-3; found {_cut(text)!r}")
    return float(text)


def keep_numbers(options: Any, whole: Sequence[str] = (), real: Sequence[str] = ()) -> None:
    """Convert NumPy numbers in a frozen dataclass to Python numbers; None stays if it is the default.

    Args:
        options: An instance of the dataclass, modified in place; call this first in ``__post_init__``.
        whole: Names of fields that become ``int``; floats and fractions are rejected.
        real: Names of fields that become ``float``.

    Raises:
        UsageError: A field is not such a number; True and False are not numbers here.
    """
    kinds: tuple[tuple[Sequence[str], type, type, str], ...] = (
        (whole, Integral, int, "a whole number"),
        (real, Real, float, "a number"),
    )
    for names, kind, convert, words in kinds:
        for name in names:
            value = getattr(options, name)
            if value is None and type(options).__dataclass_fields__[name].default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kind):
                raise UsageError(f"{name} must be {words}, found {value!r}")
            try:
                object.__setattr__(options, name, convert(value))
            except OverflowError as error:
                raise UsageError(f"{name} must be {words} that fits a float, found {shown_number(value)}") from error


def keep_between(
    options: Any,
    whole: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    real: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> None:
    """Convert numbers as :func:`keep_numbers` does, each limited to its range: ``{field: (least, most)}``.

    Raises:
        UsageError: A field is not such a number, or lies outside; the message begins with its name.
    """
    keep_numbers(options, tuple(whole), tuple(real))
    for name, (least, most) in {**whole, **real}.items():
        check_between(name, getattr(options, name), least, most)


def check_between(name: str, value: float | None, least: float, most: float) -> None:
    """Raise an error for NaN or a number outside of a range; None passes.

    Raises:
        UsageError: The value is invalid; the message begins with `name`.
    """
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} must lie between {least} and {most}, found {shown_number(value)}")


def check_most(name: str, value: float | None, most: float) -> None:
    """Raise an error for a number that is too large, if the lower bound has its own message; None passes.

    Raises:
        UsageError: The value is invalid; the message begins with `name`.
    """
    if value is not None and value > most:
        raise UsageError(f"{name} must be {most} or less, found {shown_number(value)}")


def shown_number(value: Any) -> str:
    """Format a number for a message; of a very long one, only its length."""
    if isinstance(value, Integral) and int(value).bit_length() > 4 * _MAX_SHOWN:
        # str() rejects more than 4,300 digits.
        return f"a number of about {math.ceil(int(value).bit_length() * math.log10(2))} digits"
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
