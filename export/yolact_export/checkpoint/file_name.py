"""Configurations recognised by a file name: published names, and what users and programs add to them."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from pathlib import Path

from yolact_export.model.registry import CONFIGS

__all__ = ["FileName", "config_name_of", "read_file_name"]

# Longest first, so that yolact_resnet50 is not found in yolact_resnet50_pascal.
_KNOWN = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(sorted(CONFIGS, key=len, reverse=True))})(?![a-z0-9])")
# Epoch and iteration, as upstream writes them.
_EPOCH_ITERATION = re.compile(r"^(?:_config)?_(\d+)_(\d+)(?![a-z])")
_SEPARATORS = re.compile(r"[\s\-_.,;:'\"()\[\]{}@#~&]+")
_WORD = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")
# Words that may accompany a configuration's name without changing the model's input or priors.
_HARMLESS = frozenset(
    word
    for words in (
        "pth pt pkl ckpt tar bin",
        "config cfg weights model checkpoint trained training coco ema release",
        "interrupt interrupted best last latest final epoch ep iter iteration step",
        "backup bak sav save saved old new orig original download downloaded tmp temp",
        # Copies, as file managers call them: "- Copy", "Copy of", "Kopie von", …
        "copy of kopie von van copie de copia di cópia kopia av kopi af kopio kopya másolat",
        "копия копію копія αντίγραφο 副本 的副本 コピー のコピー 복사본 사본 نسخة",
    )
    for word in words.split()
)
_COUNTED = frozenset(["epoch", "ep", "iter", "iteration", "step"])
# A number between them could be an input size; numbers below are counters of copies, above iterations and dates.
_LEAST_SIZE, _MOST_SIZE = 32, 4096
# Input sizes even after what could be an epoch: no training ends after so few iterations.
_INPUT_SIZES = frozenset(
    [*range(32, 1025, 32), *(size for config in CONFIGS.values() for size in (config.input_height, config.input_width))]
)


@dataclasses.dataclass(frozen=True)
class FileName:
    """Information in a file name.

    Attributes:
        config: Name of the configuration, or None if it is not certain.
        mentioned: Names of configurations in the name.
        doubts: Parts of the name that could mean another configuration.
    """

    config: str | None
    mentioned: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def config_name_of(path: Path) -> str | None:
    """Return the configuration in a name ``<config>_<epoch>_<iteration>[_interrupt].pth``, or in that of a copy."""
    return read_file_name(path).config


def read_file_name(path: Path) -> FileName:
    """Read the configuration from the name of a file.

    A name is recognised if nothing but the name of one known configuration can refer to a model: epoch and iteration,
    and the additions of browsers, file managers and training scripts. ``yolact_base_im400_mine.pth`` is not
    recognised.
    """
    # Composed form: macOS writes "ó" as two characters.
    text = _SEPARATORS.sub("_", unicodedata.normalize("NFKC", path.name).casefold())
    found = list(_KNOWN.finditer(text))
    mentioned = tuple(dict.fromkeys(match[0] for match in found))
    if len(found) != 1:
        return FileName(None, mentioned)
    before, after = text[: found[0].start()], text[found[0].end() :]
    if (numbers := _EPOCH_ITERATION.match(after)) and not _could_be_size(int(numbers[1]), int(numbers[2])):
        after = after[numbers.end() :]
    doubts = (*_doubts(before), *_doubts(after))
    return FileName(None if doubts else mentioned[0], mentioned, doubts)


def _could_be_size(epoch: int, iteration: int) -> bool:
    """Return whether two numbers could be height and width, or the second one the side of a square input.

    Two numbers can be height and width only if a training with that epoch would have had too few iterations.
    """
    if iteration in _INPUT_SIZES:
        return True
    return all(_LEAST_SIZE <= number < _MOST_SIZE for number in (epoch, iteration)) and iteration < 4 * epoch


def _doubts(text: str) -> list[str]:
    words = _WORD.findall(text)
    return [word for before, word in zip(["", *words], words, strict=False) if not _is_harmless(word, before)]


def _is_harmless(word: str, before: str) -> bool:
    if word.isdecimal():
        return before in _COUNTED or not _LEAST_SIZE <= int(word) < _MOST_SIZE
    return word in _HARMLESS
