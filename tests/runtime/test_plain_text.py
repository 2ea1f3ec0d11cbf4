from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins.text import unprintable
from yolact_runtime.plain_text import printable_lines


@given(st.lists(st.text()))
@examples(150)
def test_further_lines_never_begin_like_a_message(lines: list[str]) -> None:
    text = "\n".join(lines)
    first, *others = printable_lines(text).split("\n")
    assert len(others) == text.count("\n")
    assert unprintable(first) is None
    assert all(unprintable(line) is None and line[:1] in {"", " "} for line in others)


def test_lines_that_are_indented_already_stay() -> None:
    assert printable_lines("no backend:\n  one\ntwo\n") == "no backend:\n  one\n  two\n"
