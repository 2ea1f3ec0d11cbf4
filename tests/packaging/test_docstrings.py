"""Docstrings of public names are sentences, or name a thing in full: rules in CONTRIBUTING.md, "Words"."""

from __future__ import annotations

import pytest

from support.docstrings import fragments_in, fragments_of
from support.words import ROOT

MODULES = sorted(ROOT.glob("*/yolact_*/**/*.py"))

# A docstring of each kind without fault, and faults put in its place.
GOOD_FUNCTIONS = [
    "Return the boxes of a frame.",
    "Read a header; the file is not decoded.",
    "Copy the array to the device and return its address.",
    "Mask pixels outside of the box.",
    "Run :meth:`start` on every frame.",
]
BAD_FUNCTIONS = [
    "The boxes of a frame.",
    "Returns the boxes of a frame.",
    "Copy of the array on the device.",
    "Of the model.",
    "As :meth:`read`, for a stream.",
    "Whether the file is whole.",
    "See :func:`read_header`.",
    "``(N, 4)`` float32 boxes.",
    "Make the network. How.",
    "Give it.",
    "What the network computes.",
    "Return the boxes. Positive.",
    "Such as ``13.5``.",
]
GOOD_NOUNS = [
    "Number of classes, including the background.",
    "Frames in flight: each has memory of its own.",
    "Whether the file is signed.",
    "If True, frames are copied.",
    "Per-pixel loss of the masks.",
    "``(N, 4)`` float32 boxes, relative to the frame.",
    "``(N,)`` float32: confidences of the boxes.",
    "``(N,)`` int64 classes.",
    "One past the last row.",
    "`count` rows of the table.",
    "A frame on the GPU. Not thread-safe.",
    "Optional path of a folder.",
    "Speed of the fan in revolutions per minute.",
    "One-based line number.",
    "The memory is shared with the caller.",
    "Masks that own their memory.",
]
BAD_NOUNS = [
    "Of the model.",
    "As given.",
    "How.",
    "With the background.",
    "In all.",
    "What an export produced.",
    "Where the file lies.",
    "That the names are relative to.",
    "For people.",
    "None without one.",
    "Its length in bytes.",
    "See :class:`Other`.",
    "Positive.",
    "Sorted, without doubles.",
    "Called once, when all is done.",
    "Open.",
    "Loaded on the device.",
    "Relative to the folder.",
    "Bytes.",
    "``(N, 4)`` float32, relative to the frame.",
    "``xyxy``.",
    "``(N,)`` float32: relative.",
    "Reads the images of a folder.",
    "Says how many there are.",
    "Likewise of the others.",
    "Whatever is left.",
    "Is there a GPU, and which one.",
]


@pytest.mark.parametrize("package", sorted({path.relative_to(ROOT).parts[0] for path in MODULES}))
def test_docstrings_of_public_names_are_no_fragments(package: str) -> None:
    found = {path: fragments_of(path) for path in MODULES if path.is_relative_to(ROOT / package)}
    assert {str(path): list(map(str, fragments)) for path, fragments in found.items() if fragments} == {}


def test_all_packages_are_read() -> None:
    assert len(MODULES) > 500
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == {
        "benchmarks",
        "calibration",
        "export",
        "plugins",
        "runtime",
    }


@pytest.mark.parametrize("text", GOOD_FUNCTIONS)
@pytest.mark.parametrize("head", ["def make():", "class Maker:\n  def make(self):", "async def make():"])
def test_a_good_function_passes(head: str, text: str) -> None:
    assert fragments_in(f'"""A module."""\n{head}\n    """{text}"""') == []


@pytest.mark.parametrize("text", BAD_FUNCTIONS)
@pytest.mark.parametrize("head", ["def make():", "class Maker:\n  def make(self):", "async def make():"])
def test_a_bad_function_is_found(head: str, text: str) -> None:
    (fragment,) = fragments_in(f'"""A module."""\n{head}\n    """{text}"""')
    assert fragment.name.endswith("make")


NOUNS = {
    "module": '"""{}"""',
    "class": 'class Thing:\n    """{}"""',
    "property": 'class A:\n  @property\n  def thing(self) -> int:\n    """{}"""',
    "cached property": 'class A:\n  @functools.cached_property\n  def thing(self) -> int:\n    """{}"""',
    "argument": 'def f(thing):\n    """Do a thing.\n\n    Args:\n        thing: {}\n    """',
    "second": 'def f():\n    """Do a thing.\n\n    Args:\n        a: A\n            b.\n        thing: {}\n    """',
    "attribute": 'class A:\n    """A class.\n\n    Attributes:\n        thing: {}\n    """',
    "result": 'def f():\n    """Do a thing.\n\n    Returns:\n        {}\n    """',
    "yield": 'def f():\n    """Do a thing.\n\n    Yields:\n        {}\n    """',
    "under if": 'if True:\n  class Thing:\n    """{}"""',
    "class in a class": 'class A:\n  class Thing:\n    """{}"""',
}


@pytest.mark.parametrize("source", NOUNS.values(), ids=NOUNS)
@pytest.mark.parametrize("text", GOOD_NOUNS)
def test_a_good_description_passes(text: str, source: str) -> None:
    assert fragments_in(source.format(text)) == []


@pytest.mark.parametrize("source", NOUNS.values(), ids=NOUNS)
@pytest.mark.parametrize("text", BAD_NOUNS)
def test_a_bad_description_is_found(text: str, source: str) -> None:
    assert len(fragments_in(source.format(text), "thing")) == 1


@pytest.mark.parametrize("kind", ["class", "property", "argument", "attribute"])
@pytest.mark.parametrize("text", ["The thing.", "Things.", "A thing."])
def test_a_description_that_repeats_the_name_is_found(text: str, kind: str) -> None:
    assert len(fragments_in(NOUNS[kind].format(text), "thing")) == 1


@pytest.mark.parametrize("text", ["The frame is whole.", "An open file."])
def test_a_property_that_is_true_or_false_begins_with_whether(text: str) -> None:
    source = 'class A:\n  @property\n  def b(self) -> bool:\n    """{}"""'
    assert len(fragments_in(source.format(text))) == 1
    assert fragments_in(source.format("Whether the frame is whole.")) == []


@pytest.mark.parametrize("head", ["def _f():", "class _A:", "class _A:\n  def f(self):", "def f():\n  def g():"])
def test_private_names_are_left_alone(head: str) -> None:
    assert fragments_in(f'{head}\n    """Of the model."""') == []
