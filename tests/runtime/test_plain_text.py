from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_runtime.plain_text import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("猫 é ß 🎈", "猫 é ß 🎈"),
        ("\x1b[31mred\x1b]0;owned\x07", "\\x1b[31mred\\x1b]0;owned\\x07"),
        ("a\nerror: fake\r\tb", "a\\nerror: fake\\r\\tb"),
        ("\x9b31m", "\\x9b31m"),
        ("gpj.\u202e", "gpj.\\u202e"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("", ""),
    ],
)
def test_what_is_no_character_to_look_at_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
@examples(150)
def test_what_is_shown_can_be_looked_at_and_is_shown_once(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


@given(st.lists(st.text()))
@examples(150)
def test_further_lines_never_begin_like_a_message(lines: list[str]) -> None:
    text = "\n".join(lines)
    first, *others = printable_lines(text).split("\n")
    assert len(others) == text.count("\n")
    assert first.isprintable()
    assert all(line.isprintable() and line[:1] in {"", " "} for line in others)


def test_lines_that_are_indented_already_stay() -> None:
    assert printable_lines("no backend:\n  one\ntwo\n") == "no backend:\n  one\n  two\n"
