"""Mistakes in command lines, told in one line: what is wrong, and the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence

__all__ = ["closest", "listed", "reworded", "unknown_option"]

_NEGATIVE_NUMBER = re.compile(r"-[0-9.].*")
_NAME = r"argument (?P<name>\S+): "
# What argparse says, and how it reads here.
_REWORDED = (
    (rf"{_NAME}expected (?:one|at least one|[0-9]+) arguments?", "{name} needs a value"),
    (rf"{_NAME}not allowed with argument (?P<other>\S+)", "{name} and {other} exclude each other; leave one out"),
    (rf"{_NAME}ignored explicit argument (?P<value>.*)", "{name} takes no value; found {value}"),
    (r"the following arguments are required: (?P<names>.*)", "missing: {names}"),
    (r"one of the arguments (?P<names>.*) is required", "missing: one of {names}"),
    (rf"{_NAME}(?P<rest>.*)", "{name}: {rest}"),
)


def closest(word: str, names: Collection[str]) -> str | None:
    """Return the name that was probably meant by a word; None if none is close.

    Args:
        word: The word that was typed.
        names: Names that there are.
    """
    bare = word.lstrip("-")
    if len(bare) > 1 and (longer := sorted(name for name in names if name.lstrip("-").startswith(bare))):
        return longer[0]
    found = difflib.get_close_matches(f"--{bare}" if word.startswith("-") else word, sorted(names), 1, 0.7)
    return found[0] if found else None


def unknown_option(words: Sequence[str], names: Collection[str]) -> str | None:
    """Return what is wrong with the first word that looks like an option and is none; None if there is no such word.

    Args:
        words: Words after the command's name.
        names: Options that there are, with their dashes.
    """
    for word in words:
        if word == "--":
            return None
        # A word with a space in it is never an option, however it begins.
        if not word.startswith("-") or word == "-" or " " in word or _NEGATIVE_NUMBER.fullmatch(word):
            continue
        name = word.partition("=")[0]
        # "-output x" is never the option -o with the value "utput".
        is_short = not word.startswith("--") and word[:2] in names and f"-{name}" not in names
        if name in names or is_short:
            continue
        meant = closest(name, [option for option in names if option.startswith("--")])
        return f"unknown option {name}" + (f" (did you mean {meant}?)" if meant else "")
    return None


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: ``"a, b or c"``."""
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def reworded(message: str) -> str:
    """Return a message of :mod:`argparse` in the words of this project; others as they are."""
    for pattern, words in _REWORDED:
        if match := re.fullmatch(pattern, message, re.DOTALL):
            parts = match.groupdict()
            if "name" in parts:
                parts["name"] = parts["name"].rpartition("/")[2]
            if "names" in parts:
                names = [name.rpartition("/")[2] for name in re.split(",? ", parts["names"])]
                parts["names"] = listed(names) if "one of" in words else ", ".join(names)
            return words.format(**parts)
    return message
