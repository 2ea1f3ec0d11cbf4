"""Numbers that people give: words of command lines read as they were typed, and fields of options kept as numbers."""

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
"""Largest number of images or steps: more than anybody has."""
MAX_SEED = (1 << 63) - 1
"""The largest seed that torch takes."""
MAX_INSTANCES = 100_000
"""More than any model keeps; memory for their masks is planned from it."""
MAX_WEIGHT = 1e6
"""Of a term of a loss."""
MAX_BYTES = 1 << 50
"""Of memory, on any machine."""
MAX_THREADS = 256
"""More than any machine for this job has; a backend would take minutes and gigabytes to start a mistyped number."""
MAX_WORKERS = 64
"""Largest number of processes beside a command; each one holds libraries and data of its own."""

# int() and float() would also read underscores and the digits of every script.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_REAL = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf(inity)?|nan)", re.IGNORECASE)
# Nobody means a longer one, and Python has a limit of its own with a message of its own.
_MAX_DIGITS = 400
_MAX_SHOWN = 40


def whole_number(text: str) -> int:
    """The whole number that was typed, of any size; for ``argparse``, whose message names the option.

    Raises:
        argparse.ArgumentTypeError: It is none, in the digits 0 to 9.
    """
    if len(text) > _MAX_DIGITS or not _WHOLE.fullmatch(text.strip(" ")):
        raise argparse.ArgumentTypeError(f"a whole number such as 8 is wanted, in digits alone; found {_cut(text)!r}")
    return int(text)


def real_number(text: str) -> float:
    """The number that was typed, ``inf`` and ``nan`` included; for ``argparse``, whose message names the option.

    Raises:
        argparse.ArgumentTypeError: It is none, in the digits 0 to 9.
    """
    if len(text) > _MAX_DIGITS or not _REAL.fullmatch(text.strip(" ")):
        raise argparse.ArgumentTypeError(f"a number such as 0.5 or 1e-3 is wanted; found {_cut(text)!r}")
    return float(text)


def keep_numbers(options: Any, whole: Sequence[str] = (), real: Sequence[str] = ()) -> None:
    """Keep numbers of NumPy as Python's own in a frozen dataclass; None stays where it is the default.

    Args:
        options: An instance of the dataclass, changed in place; call it first in ``__post_init__``.
        whole: Fields that become ``int``; those of floats and of fractions are refused.
        real: Fields that become ``float``.

    Raises:
        UsageError: A field is no such number; True and False are none.
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
    """Keep numbers as :func:`keep_numbers` does, each in its range: ``{field: (least, most)}``.

    Raises:
        UsageError: A field is no such number, or lies outside; the message begins with its name.
    """
    keep_numbers(options, tuple(whole), tuple(real))
    for name, (least, most) in {**whole, **real}.items():
        check_between(name, getattr(options, name), least, most)


def check_between(name: str, value: float | None, least: float, most: float) -> None:
    """Refuse a number outside of a range, and NaN; None is left alone.

    Raises:
        UsageError: The message begins with `name`.
    """
    if value is not None and not least <= value <= most:
        raise UsageError(f"{name} must lie between {least} and {most}, found {shown_number(value)}")


def check_most(name: str, value: float | None, most: float) -> None:
    """Refuse a number that is too large, where the lower end has a message of its own; None is left alone.

    Raises:
        UsageError: The message begins with `name`.
    """
    if value is not None and value > most:
        raise UsageError(f"{name} must be {most} or less, found {shown_number(value)}")


def shown_number(value: Any) -> str:
    """The number for a message; of a very long one, how long it is."""
    if isinstance(value, Integral) and int(value).bit_length() > 4 * _MAX_SHOWN:
        # str() refuses more than 4,300 digits.
        return f"a number of about {math.ceil(int(value).bit_length() * math.log10(2))} digits"
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
