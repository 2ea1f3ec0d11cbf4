"""Numbers of the options: what is none is refused with the field's name, and NumPy's are Python's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from yolact_runtime import SegmenterOptions
from yolact_runtime.errors import UsageError

REAL = ("min_confidence", "crop_margin", "iou_threshold")
WHOLE = ("num_threads", "frames_in_flight", "max_instances", "bit_depth")


@pytest.mark.parametrize("name", [*REAL, *WHOLE])
@pytest.mark.parametrize("value", [-1, float("nan"), float("-inf"), "1", b"1", True, np.True_, [1], 10**400, 1j])
def test_what_is_no_number_or_lies_outside_is_refused_with_its_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} "):
        SegmenterOptions(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [1.5, 2.0, float("inf"), 10**30, 2**63, np.float32(2)])
def test_whole_numbers_have_no_fraction_and_an_end(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{name} "):
        SegmenterOptions(**{name: value})


def test_numbers_of_numpy_are_kept_as_pythons() -> None:
    options = SegmenterOptions(
        min_confidence=np.float32(0.5),  # type: ignore[arg-type]  # a number all the same
        num_threads=np.int64(2),  # type: ignore[arg-type]  # a number all the same
    )
    assert (type(options.min_confidence), options.min_confidence) == (float, 0.5)
    assert (type(options.num_threads), options.num_threads) == (int, 2)
