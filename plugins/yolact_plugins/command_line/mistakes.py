"""Mistakes in command lines, told in one line: what is wrong, and the name that was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

__all__ = ["NEGATIVE_NUMBER", "closest", "last_taken", "listed", "reworded", "unknown_option"]

NEGATIVE_NUMBER = re.compile(r"-(\.?[0-9].*|inf(inity)?|nan)$", re.IGNORECASE)
"""Words that begin with a dash and are values, even if an option then refuses them: ``-1e-3``, ``-3%``, ``-inf``."""
_OTHER_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
"""Dashes that text programs put in place of hyphens."""
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
    long_names = [option for option in names if option.startswith("--")]
    for word in words:
        if word == "--":
            return None
        name = word.partition("=")[0]
        if word.startswith(tuple(_OTHER_DASHES)) and (meant := closest(name.lstrip(_OTHER_DASHES + "-"), long_names)):
            return f"unknown option {name}, whose dash is not a hyphen (did you mean {meant}?)"
        # A word with a space in it is never an option, however it begins.
        if not word.startswith("-") or word == "-" or " " in word or NEGATIVE_NUMBER.match(word):
            continue
        # "-output x" is never the option -o with the value "utput".
        is_short = not word.startswith("--") and word[:2] in names and f"-{name}" not in names
        if name in names or is_short:
            continue
        meant = closest(name, long_names)
        return f"unknown option {name}" + (f" (did you mean {meant}?)" if meant else "")
    return None


def last_taken(words: Sequence[str], greedy: Iterable[str]) -> tuple[str, str] | None:
    """Return an option that takes all words behind it, and the last word that it took; None if there is none.

    Args:
        words: Words after the command's name.
        greedy: Names of options that take any number of values.
    """
    option, found = "", None
    for word in words:
        if word.startswith("-"):
            option = word if word in greedy else ""
        elif option:
            found = option, word
    return found


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: ``"a, b or c"``."""
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def reworded(message: str, words: Sequence[str] = ()) -> str:
    """Return a message of :mod:`argparse` in the words of this project; others as they are.

    Args:
        message: Message of an error, with the names of options that it is about.
        words: Words after the command's name; an option is named as it is in them.
    """
    for pattern, new in _REWORDED:
        if match := re.fullmatch(pattern, message, re.DOTALL):
            parts = match.groupdict()
            if "name" in parts:
                parts["name"] = _as_typed(parts["name"].split("/"), words)
            if "names" in parts:
                names = [name.rpartition("/")[2] for name in re.split(",? ", parts["names"])]
                parts["names"] = listed(names) if "one of" in new else ", ".join(names)
            return new.format(**parts)
    return message


def _as_typed(names: Sequence[str], words: Sequence[str]) -> str:
    """Return the one of an option's names that was typed, or the last."""
    for word in words:
        for name in names:
            if word.partition("=")[0] == name or (not word.startswith("--") and word.startswith(name)):
                return name
    return names[-1]
