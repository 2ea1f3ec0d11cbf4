from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_runtime.media.lettering import in_ascii, text_coverage, text_size

Frame = npt.NDArray[np.uint8]


@pytest.mark.parametrize("height", [8, 12, 20, 48])
@pytest.mark.parametrize("text", ["cat 0.90", "Wg|yj", "i", "?"])
def test_letters_are_covered_and_nothing_is_cut_off(text: str, height: int) -> None:
    coverage = text_coverage(text, height)
    assert coverage.dtype == np.float32
    assert 0 <= coverage.min() < coverage.max() <= 1
    assert coverage.max() > 0.4  # thin letters of eight pixels fall between two columns
    # The same line drawn with spaces around covers as much: no part of a letter lies outside the canvas.
    padded = text_coverage(f" {text} ", height)
    assert coverage.sum() >= 0.97 * padded.sum()
    assert height <= coverage.shape[0] <= 2 * height + 4


def test_characters_that_the_font_lacks_do_not_fail() -> None:
    assert text_coverage("猫 é", 12).max() > 0.5
    assert text_coverage("", 12).size == 0


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cat 0.90", "cat 0.90"),
        ("Fußgänger", "Fussganger"),
        ("café", "cafe"),
        ("smørrebrød", "smorrebrod"),
        ("Łódź", "Lodz"),
        ("ﬁre №4", "fire No4"),
        ("bell\N{EN DASH}pepper", "bell-pepper"),
        ("猫 0.5", "? 0.5"),
        ("a\tb\x00", "a?b?"),
    ],
)
def test_letters_with_accents_become_plain_ones(text: str, written: str) -> None:
    assert in_ascii(text) == written


@examples(150)
@given(st.text(max_size=12), st.integers(8, 48))
def test_any_text_can_be_drawn_and_has_the_size_that_was_told(text: str, height: int) -> None:
    assert all(" " <= letter <= "~" for letter in in_ascii(text))
    assert text_coverage(text, height).shape == text_size(text, height)
