from __future__ import annotations

import argparse
import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_runtime.errors import UsageError
from yolact_runtime.option_numbers import (
    check_most,
    keep_between,
    real_number,
    shown_number,
    whole_number,
)


@dataclasses.dataclass(frozen=True)
class Options:
    num_things: int = 1
    share: float | None = None

    def __post_init__(self) -> None:
        keep_between(self, {"num_things": (0, 9)}, {"share": (0, 1)})


@given(st.integers(-(10**30), 10**30))
def test_whole_numbers_are_read_as_they_are_written(value: int) -> None:
    assert whole_number(str(value)) == whole_number(f" {value} ") == value


@given(st.floats())
def test_real_numbers_are_read_as_they_are_written(value: float) -> None:
    assert real_number(repr(value)) == pytest.approx(value, rel=0, abs=0, nan_ok=True)


@examples(400)
@given(st.text(alphabet="0123456789+-.eE_ infaNx\t\n\N{FULLWIDTH DIGIT FIVE}\N{ARABIC-INDIC DIGIT FIVE}", max_size=8))
def test_a_word_is_read_as_python_does_or_refused(text: str) -> None:
    for read, convert in ((whole_number, int), (real_number, float)):
        try:
            value: float = read(text)
        except argparse.ArgumentTypeError:
            continue
        assert value == pytest.approx(convert(text), rel=0, abs=0, nan_ok=True)
        assert re.fullmatch(r" *[-+0-9.a-zA-Z]+ *", text)


@pytest.mark.parametrize("read", [whole_number, real_number])
@pytest.mark.parametrize("text", ["", "1e", "1_000", "\N{FULLWIDTH DIGIT FIVE}", "0x10", "1,5", "9" * 5000, "five"])
def test_what_is_no_number_is_refused_and_shown_in_part(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"number such as .* found '") as raised:
        read(text)
    assert len(str(raised.value)) < 120


def test_ranges_are_named_by_field() -> None:
    assert Options(np.int8(3), np.float32(0.5)) == Options(3, 0.5)  # type: ignore[arg-type]
    assert Options().share is None
    with pytest.raises(UsageError, match=r"^num_things must lie between 0 and 9, found 10$"):
        Options(10)
    with pytest.raises(UsageError, match=r"^num_things must be a whole number, found None$"):
        Options(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^num_things must be a whole number, found 3\.0$"):
        Options(3.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^share must lie between 0 and 1, found nan$"):
        Options(share=math.nan)
    with pytest.raises(UsageError, match=r"^share must be a number that fits a float, found .* about 401 digits"):
        Options(share=10**400)


def test_a_largest_value_alone() -> None:
    check_most("--workers", 64, 64)
    check_most("--workers", None, 64)
    with pytest.raises(UsageError, match=r"^--workers must be 64 or less, found 65$"):
        check_most("--workers", 65, 64)


def test_long_numbers_are_not_written_out() -> None:
    assert shown_number(10**30) == "1" + "0" * 30
    assert shown_number(-(10**6000)) == "a number of about 6001 digits"
    assert shown_number(1e308) == "1e+308"
