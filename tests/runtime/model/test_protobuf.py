"""The one reader and writer of protobuf messages, against the protobuf package that onnx brings."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.engine_graphs import small_model
from support.properties import examples
from yolact_runtime.model.protobuf import BYTES, VARINT, encode_field, fields, messages, varints

FIXED64, FIXED32 = 1, 5
NUMBERS = st.integers(1, 2**29 - 1)
FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(NUMBERS, st.just(BYTES), st.binary(max_size=40)),
    st.tuples(NUMBERS, st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    st.tuples(NUMBERS, st.just(FIXED32), st.binary(min_size=4, max_size=4)),
)
SMALL = small_model("int8", side=8)


def encoded(values: list[tuple[int, int, int | bytes]]) -> bytes:
    return b"".join(
        encode_field(number, kind, memoryview(value) if isinstance(value, bytes) else value)
        for number, kind, value in values
    )


@examples(150)
@given(st.lists(FIELDS, max_size=8))
def test_what_is_written_is_read(values: list[tuple[int, int, int | bytes]]) -> None:
    content = memoryview(encoded(values))
    read = [(number, kind, bytes(v) if isinstance(v, memoryview) else v) for number, kind, v in fields(content)]
    assert read == values
    assert [number for number, _ in messages(content)] == [number for number, kind, _ in values if kind == BYTES]


@examples(150)
@given(st.lists(FIELDS, min_size=1, max_size=4), st.data())
def test_a_message_that_is_cut_inside_of_a_field_is_refused(
    values: list[tuple[int, int, int | bytes]], data: st.DataObject
) -> None:
    content, ends = encoded(values), {len(encoded(values[:count])) for count in range(len(values) + 1)}
    place = data.draw(st.integers(0, len(content)))
    if place in ends:
        assert len(list(fields(memoryview(content[:place])))) == sorted(ends).index(place)
    else:
        with pytest.raises(ValueError, match=r"cut-off number|does not fit"):
            list(fields(memoryview(content[:place])))


@examples(150)
@given(st.binary(max_size=60))
def test_whatever_bytes_are_they_are_fields_or_refused(content: bytes) -> None:
    """What is read can be written, and is read again as the same."""
    try:
        found = list(fields(memoryview(content)))
    except ValueError:
        return
    assert list(fields(memoryview(b"".join(encode_field(*field) for field in found)))) == found


@examples(150)
@given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=6))
def test_a_damaged_model_is_read_as_protobuf_reads_it_or_refused(place: int, damage: bytes) -> None:
    """Where both read it, they see the same nodes: nothing is checked that is not what runs."""
    content = SMALL[:place] + damage + SMALL[place + len(damage) :]
    try:
        graphs = [bytes(value) for number, value in messages(memoryview(content)) if number == 7]
        nodes = [value for graph in graphs for number, value in messages(memoryview(graph)) if number == 1]
        names = [bytes(dict(messages(node)).get(3, b"")) for node in nodes]
    except ValueError:
        return
    try:
        model = onnx.load_from_string(content)
    except Exception:  # of protobuf, which reads all the way down, and is nobody's declared dependency
        return
    # What is no UTF-8 comes from protobuf as bytes.
    found = [node.name if isinstance(node.name, bytes) else node.name.encode() for node in model.graph.node]
    assert names == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x01", "field number 0"),
        (b"\x82\x80\x80\x80\x10\x00", "field number 536870912"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "cut-off number"),
        (b"\x0b\x0c", "field 1 does not fit"),
        (b"\x0f\x00", "field 1 does not fit"),
        (b"\x0a\x02x", "field 1 does not fit"),
    ],
    ids=["0", "beyond", "65 bits", "11 bytes", "a group", "an unknown type", "short"],
)
def test_what_readers_disagree_about_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(fields(memoryview(content)))


def test_packed_numbers() -> None:
    assert list(varints(memoryview(b"\x01\xac\x02" + b"\xff" * 9 + b"\x01"))) == [1, 300, 2**64 - 1]
    with pytest.raises(ValueError, match="cut-off number"):
        list(varints(memoryview(b"\x01\xac")))
