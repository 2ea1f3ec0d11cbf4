"""The file of ``--class-names``: what editors and programs write is read as it is meant, or refused with the line."""

from __future__ import annotations

import codecs
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from yolact_export.commands.class_names import read_class_names
from yolact_export.errors import UsageError
from yolact_plugins.text import unprintable

NAMES = ("disc", "ring", "großes Quadrat", "三角形")
NAME = (
    st.text(min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda name: name and unprintable(name) is None and name[0] not in "[{")
)


def _read(folder: Path, content: bytes) -> tuple[str, ...]:
    path = folder / "names.txt"
    path.write_bytes(content)
    return read_class_names(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n  \n"])
def test_what_editors_write(end: str, encoding: str, tail: str, tmp_path: Path) -> None:
    text = "\n".join(NAMES) + tail
    assert _read(tmp_path, text.replace("\n", end).encode(encoding)) == NAMES


@given(st.lists(NAME, min_size=1, max_size=6, unique=True), st.booleans(), st.sampled_from([b"", codecs.BOM_UTF8]))
@examples(100)
def test_names_come_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], as_list: bool, mark: bytes
) -> None:
    text = json.dumps(names) if as_list else "".join(f" {name}\t\n" for name in names)
    assert _read(tmp_path_factory.mktemp("names"), mark + text.encode()) == tuple(names)


def test_a_list_keeps_the_spaces_of_a_name_and_lines_do_not(tmp_path: Path) -> None:
    assert _read(tmp_path, b'["a ", " b"]') == ("a ", " b")
    assert _read(tmp_path, b"a \n b") == ("a", "b")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no names"),
        (b"\n\n", "holds no names"),
        (b"[]", "holds no names"),
        (b"disc\n\nring\n", "line 2: there is no name"),
        (b"\ndisc\n", "line 1: there is no name"),
        (b"disc\n \t\nring", "line 2: there is no name"),
        (b'["disc", "  "]', "entry 2: there is no name"),
        (b"disc\nring\ndisc\n", 'line 3: "disc" occurs already, in line 1'),
        (b'["a", "b", "a"]', 'entry 3: "a" occurs already, in entry 1'),
        (b"\x1b[31mred\nring", r"line 1: .* has the character U+001B"),
        (b'["ring\\nerror: fake line"]', "entry 1: .* has the character U+000A"),
        (b"disc\n\xef\xbb\xbfring\n", "line 2: .* has the character U+FEFF"),
        (b'["\\ud800", "b"]', "half of a surrogate pair"),
        (b"[" * 100_000, "nested too deep"),
        (b'["a", 1]', "entry 2: 1 is not a string"),
        (b'["a", "b"', "not JSON: line 1"),
        (b'{"names": ["a"]}', "is a JSON object; it takes a JSON list of names, or a name a line"),
        ("größe".encode("latin-1"), "is not text in UTF-8"),
        ("disc\nring".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
    ],
)
def test_what_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--class-names: .*names\.txt") as error:
        _read(tmp_path, content)
    first, _, second = reason.partition(" .* ")
    assert first in str(error.value)
    assert second in str(error.value)
    assert unprintable(str(error.value)) is None


def test_a_file_that_is_not_there_or_has_no_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere: No such file"):
        read_class_names(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="cannot read /dev/zero: it is a device, not a file"):
        read_class_names(Path("/dev/zero"))
    with pytest.raises(UsageError, match=r"cannot read .*\\udcff"):
        read_class_names(Path(os.fsdecode(bytes(tmp_path) + b"/n\xff")))


def test_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"a\nb\n",))
    writer.start()
    assert read_class_names(pipe) == ("a", "b")
    writer.join()
