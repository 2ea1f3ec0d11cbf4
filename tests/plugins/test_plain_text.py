from __future__ import annotations

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins.plain_text import (
    LONGEST_LINE,
    LONGEST_WORD,
    GuardedStream,
    guarded_stderr,
    printable_line,
    printable_lines,
    shortened,
)
from yolact_plugins.text import unprintable

# Plain text, what steers a terminal, and names that are too long.
TEXTS = st.one_of(
    st.text(),
    st.text(alphabet="a \n\r\x1b[m\x07\x9b\u202e\u2066\u2028\ud800:"),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=3), st.sampled_from([399, 401, 9000])),
    st.sampled_from(["error: x", "warning: x", "\nerror: x", "a\nwarning: x", "\x1b[31merror: x"]),
)


def is_fit(line: str) -> bool:
    return unprintable(line) is None and len(line) <= LONGEST_LINE


@given(st.lists(TEXTS))
@examples(150)
def test_further_lines_never_begin_like_a_message(lines: list[str]) -> None:
    text = "\n".join(lines)
    first, *others = printable_lines(text).split("\n")
    assert len(others) == text.count("\n")
    assert is_fit(first)
    assert all(is_fit(line) and line[:1] in {"", " "} for line in others)
    assert max((len(word) for line in (first, *others) for word in line.split()), default=0) <= LONGEST_WORD


@given(TEXTS)
@examples(100)
def test_what_is_fit_already_stays(text: str) -> None:
    once = printable_lines(text)
    assert printable_lines(once) == once


def test_lines_that_are_indented_already_stay() -> None:
    assert printable_lines("no backend:\n  one\ntwo\n") == "no backend:\n  one\n  two\n"


def test_a_long_name_keeps_its_suffix() -> None:
    line = printable_line(f"cannot read /data/{'x' * 10_000}.tiff: no such file")
    assert line.startswith("cannot read /data/xxx")
    assert line.endswith("xxx.tiff: no such file")
    assert "x…x" in line
    assert len(line) < 500
    assert printable_line("\x1b" * 10_000_000).count("…") == 1


@given(st.text(), st.integers(1, 30))
@examples(50)
def test_shortened_is_as_long_as_it_may_be(text: str, longest: int) -> None:
    cut = shortened(text, longest)
    assert cut == text if len(text) <= longest else len(cut) == longest
    assert "…" in cut or cut == text


# --- streams of others ------------------------------------------------------------------------------------------------


@given(st.lists(TEXTS))
@examples(100)
def test_nobody_can_imitate_a_message_on_a_guarded_stream(pieces: list[str]) -> None:
    written = io.StringIO()
    stream = GuardedStream(written)
    for piece in pieces:
        assert stream.write(piece) == len(piece)
        # A further piece of the same line may be as long again.
        assert all(unprintable(line) is None for line in written.getvalue().split("\n"))
    assert not any(line.startswith(("error:", "warning:")) for line in written.getvalue().split("\n"))


def test_prints_are_guarded_and_our_own_writer_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with guarded_stderr():
        print("error: forged", file=sys.stderr)  # noqa: T201
        assert sys.stderr.isatty() is False
        with guarded_stderr():
            assert sys.stderr.unguarded is before  # type: ignore[attr-defined]  # guarded once
    assert sys.stderr is before
    assert capsys.readouterr().err == "  error: forged\n"


def test_warnings_and_an_error_that_nobody_caught_are_guarded_too() -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import warnings\n"
        "from yolact_plugins.plain_text import guarded_stderr\n"
        "with guarded_stderr():\n"
        "    warnings.warn('b\\x1b[2J\\nerror: forged')\n"
        "    raise ValueError('a\\x1b[2J\\nerror: forged')\n"
    )
    ended = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "UserWarning: b\\x1b[2J\n  error: forged\n" in ended.stderr
    assert "ValueError: a\\x1b[2J\n  error: forged\n" in ended.stderr
