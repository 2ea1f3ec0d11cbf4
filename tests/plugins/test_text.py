"""Text and JSON from outside: right or refused."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_plugins.errors import TextError
from yolact_plugins.text import decode_json, decode_text, printable, read_json, read_text, unprintable

ENCODINGS = {
    "utf-8": b"",
    "utf-8 with a mark": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
LINES = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\ufeff")), max_size=5)


def _encoded(text: str, name: str) -> bytes:
    return ENCODINGS[name] + text.encode(name.removesuffix(" with a mark"))


@given(LINES, st.sampled_from(sorted(ENCODINGS)), st.sampled_from(["\n", "\r\n", "\r"]))
@examples(150)
def test_text_is_the_same_in_every_encoding_and_with_every_line_end(lines: list[str], encoding: str, end: str) -> None:
    assert decode_text(_encoded(end.join(lines), encoding), "names.txt") == "\n".join(lines)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from(sorted(ENCODINGS)),
    st.booleans(),
)
@examples(150)
def test_a_document_comes_back_or_is_refused(document: Any, encoding: str, escapes: bool) -> None:
    text = json.dumps(document, ensure_ascii=escapes)
    try:
        content = _encoded(text, encoding)
    except UnicodeEncodeError:
        return  # a lone surrogate, which only an escape can carry
    try:
        assert decode_json(content, "a.json") == document
    except TextError as error:
        assert "half of a surrogate pair" in str(error)  # noqa: PT017 - the other outcome


def test_a_mark_within_the_text_stays() -> None:
    assert decode_text("a\ufeffb".encode(), "names.txt") == "a\ufeffb"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("größe".encode("latin-1"), "byte 2 is 0xf6"),
        (b"\xff\xfea\0b", "not text in UTF-16-LE"),
        (b"\xff\xfe\x00\xd8a\x00", "not text in UTF-16-LE"),  # a lone surrogate
        (b"\xed\xa0\x80", "not text in UTF-8"),  # the same in UTF-8
        ("disc\nring".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        (b"XY\3\4\0\0", "zero bytes"),
    ],
)
def test_what_is_no_text(content: bytes, reason: str) -> None:
    with pytest.raises(TextError, match=r"names\.txt is not text.*Save it as UTF-8") as error:
        decode_text(content, "names.txt")
    assert reason in str(error.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_packed_is_to_be_unpacked(pack: Callable[[bytes], bytes]) -> None:
    """It was to be saved as UTF-8."""
    with pytest.raises(TextError, match=r"a\.json is not text: it is compressed by (gzip|bzip2|xz); unpack it: "):
        decode_json(pack(b"{}"), "a.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON: it is empty"),
        (" \n\t", "not JSON: it is empty"),
        ("0 0.5 0.5 0.1 0.1", "line 1, column 3: Extra data"),
        ('{"a": 1}\n{"a": 2}\n', "line 2, column 1: Extra data; the file holds several documents, as JSON Lines does"),
        ('{"a": [1, 2', "column 12: Expecting ',' delimiter; the file appears to be truncated"),
        ('{"a": 1, "b', "the file appears to be truncated"),
        ('{"a": "b\n", "c": 1}', "Invalid control character"),
        ("<?xml version='1.0'?><annotation/>", "not JSON: it is XML or HTML"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        ('{"a": 1,\n"b"}', "line 2, column 4"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"a": 1, "a": 2}', 'the key "a" twice'),
        ('["\\ud800"]', "half of a surrogate pair"),
        ('{"\\udfff": 1}', "half of a surrogate pair"),
        ('["\\ud800 \\udc00"]', "half of a surrogate pair"),
        ("[NaN]", "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "1e999 is too large"),
        ("1" * 5000, "not JSON"),
    ],
)
def test_documents_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(TextError, match=r"^a\.json: ") as error:
        decode_json(text.encode(), "a.json")
    assert reason in str(error.value)
    assert len(str(error.value)) < 250


def test_a_surrogate_pair_is_a_character() -> None:
    assert decode_json(b'["\\ud83d\\ude80"]', "a.json") == ["\U0001f680"]


def test_numbers_that_are_not_finite_are_left_to_callers_that_ask_for_it() -> None:
    values = decode_json(b"[NaN, Infinity, -1e999, 2.5]", "a.json", allow_nan=True)
    assert repr(values) == "[nan, inf, -inf, 2.5]"


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(path) == {"a": 1}
    assert read_text(path) == '{"a": 1}\n'
    with pytest.raises(TextError, match=r"cannot read .*b\.json: No such file"):
        read_json(tmp_path / "b.json")
    with pytest.raises(TextError, match="Is a directory"):
        read_text(tmp_path)


def test_a_length_is_the_most_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[1, 2]")
    assert read_json(path, max_bytes=6) == [1, 2]
    with pytest.raises(TextError, match=r"a\.json is longer than 5 B"):
        read_json(path, max_bytes=5)
    reading, writing = os.pipe()
    os.write(writing, b"[1, 2, 3]")
    os.close(writing)
    with pytest.raises(TextError, match=r"/dev/fd/[0-9]+ is longer than 6 B"):
        read_json(Path(f"/dev/fd/{reading}"), max_bytes=6)
    os.close(reading)
    with pytest.raises(TextError, match="cannot read /dev/zero: it is a device, not a file"):
        read_text(Path("/dev/zero"), max_bytes=2_000_000)
    with pytest.raises(TextError, match="cannot read"):
        read_text(Path("a\0b"))


@given(st.text(st.characters()))
@examples(150)
def test_what_is_printable_is_text_in_one_line(text: str) -> None:
    shown = printable(text)
    assert unprintable(shown) is None
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert (shown == text) == (unprintable(text) is None)


@pytest.mark.parametrize(
    ("text", "found", "shown"),
    [
        ("Straße 猫 🚀 👩‍👧", None, "Straße 猫 🚀 👩‍👧"),
        ("x\x1b[2Jy.png", "U+001B", "x\\x1b[2Jy.png"),
        ("a\nb", "U+000A", "a\\nb"),
        ("a\udcffb", "U+DCFF", "a\\udcffb"),
        ("gpj\u202eexe", "U+202E", "gpj\\u202eexe"),
        ("\ufeffdisc", "U+FEFF", "\\ufeffdisc"),
    ],
)
def test_unprintable(text: str, found: str | None, shown: str) -> None:
    assert unprintable(text) == found
    assert printable(text) == shown
