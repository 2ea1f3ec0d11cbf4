"""The configuration that a file name tells: published names, and what people and programs make of them."""

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
# What may stand around a configuration's name without changing the model's input or priors.
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
# A number of its own between them could be an input size; below are counters of copies, above iterations and dates.
_LEAST_SIZE, _MOST_SIZE = 32, 4096
# An input size even after what could be an epoch: nobody stops a training after so few iterations.
_INPUT_SIZES = frozenset(
    [*range(32, 1025, 32), *(size for config in CONFIGS.values() for size in (config.input_height, config.input_width))]
)


@dataclasses.dataclass(frozen=True)
class FileName:
    """What a file name tells.

    Attributes:
        config: The configuration, or None where the name does not tell it beyond doubt.
        mentioned: Names of configurations in the name.
        doubts: Parts of the name that could mean another configuration.
    """

    config: str | None
    mentioned: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def config_name_of(path: Path) -> str | None:
    """The configuration in a published file name, ``<config>_<epoch>_<iteration>[_interrupt].pth``, or in a copy's."""
    return read_file_name(path).config


def read_file_name(path: Path) -> FileName:
    """What the name of a file tells of its configuration.

    A name is recognised where nothing beside one known configuration can mean another model: epoch and iteration, and
    what browsers, file managers and training scripts add. ``yolact_base_im400_mine.pth`` is not recognised.
    """
    # Composed: macOS gives "ó" as two characters.
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
    """Whether two numbers could be height and width, or the second one the side of a square input.

    Height and width only where an epoch would have a few iterations: that of a training takes more.
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
