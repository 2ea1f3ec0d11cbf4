from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from yolact_runtime.media.lettering import text_coverage

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
