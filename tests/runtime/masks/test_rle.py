from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as coco

from support.properties import examples
from yolact_runtime.errors import ShapeError
from yolact_runtime.masks.rle import decode_edges, encode_runs, run_positions

Mask = npt.NDArray[np.bool_]
masks = st_numpy.arrays(bool, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=20))


def _edges(mask: Mask) -> npt.NDArray[np.int64]:
    flat = np.concatenate([[0], mask.T.ravel().astype(np.int8), [0]])
    return np.flatnonzero(np.diff(flat))


def _encode(mask: Mask) -> str:
    edges = _edges(mask)
    (text,) = encode_runs(np.array([0, len(edges) // 2]), edges[::2], edges[1::2], mask.size)
    return text


def _coco_string(mask: Mask) -> str:
    return str(coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"], "ascii")


def _string_of_counts(counts: list[int]) -> str:
    """Written down from the format, number by number."""
    letters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != (-1 if group & 0x10 else 0)
            letters.append(chr(48 + (group | 0x20 if more else group)))
    return "".join(letters)


@examples(200)
@given(masks)
def test_strings_equal_those_of_pycocotools(mask: Mask) -> None:
    assert _encode(mask) == _coco_string(mask)


@examples(200)
@given(masks)
def test_strings_of_pycocotools_are_read(mask: Mask) -> None:
    text = _coco_string(mask)
    assert decode_edges(text, mask.size).tolist() == _edges(mask).tolist()
    assert decode_edges(text.encode(), mask.size).tolist() == _edges(mask).tolist()


@examples(150)
@given(st.lists(st.integers(1, 2**33), min_size=1, max_size=12))
def test_runs_of_any_length_come_back(lengths: list[int]) -> None:
    edges = np.cumsum(lengths)
    edges = edges[: len(edges) // 2 * 2]
    size = int(sum(lengths))
    (text,) = encode_runs(np.array([0, len(edges) // 2]), edges[::2], edges[1::2], size)
    assert decode_edges(text, size).tolist() == edges.tolist()


@pytest.mark.parametrize("length", [15, 16, 31, 32, 511, 512, 16383, 16384, 10**6])
def test_group_borders_equal_pycocotools(length: int) -> None:
    # Long then short and short then long: differences of both signs, from the fourth count on.
    for pattern in ([length, 1, 1, length, length, 1], [1, length, length, 1, 1, length], [0, length]):
        flat = np.repeat(np.arange(len(pattern)) % 2 == 1, pattern)
        mask = flat.reshape(1, -1)
        assert _encode(mask) == _coco_string(mask)
        assert decode_edges(_encode(mask), mask.size).tolist() == _edges(mask).tolist()


def test_by_hand() -> None:
    # Column-major: 1 outside, 2 inside, 1 outside.
    assert _encode(np.array([[0, 1], [1, 0]], bool)) == "121"
    # The fourth count is stored as its difference to the second: 5 - 1.
    assert _encode(np.array([[0, 1, 0, 1, 1, 1, 1, 1]], bool)) == "1114"
    assert decode_edges("1114", 8).tolist() == [1, 2, 3, 8]


def test_several_masks_at_once() -> None:
    rng = np.random.default_rng(0)
    many = [rng.random((7, 5)) < p for p in (0.5, 0, 1, 0.2)]
    edges = [_edges(mask) for mask in many]
    offset = np.concatenate([[0], np.cumsum([len(e) // 2 for e in edges])])
    flat = np.concatenate(edges)
    assert encode_runs(offset, flat[::2], flat[1::2], 35) == [_coco_string(mask) for mask in many]


def test_a_mask_without_pixels_and_one_that_is_full() -> None:
    assert _encode(np.zeros((3, 4), bool)) == _coco_string(np.zeros((3, 4), bool)) == "<"
    assert _encode(np.ones((3, 4), bool)) == _coco_string(np.ones((3, 4), bool)) == "0<"
    assert decode_edges("<", 12).tolist() == []
    assert decode_edges("0<", 12).tolist() == [0, 12]


def test_the_test_writes_strings_as_pycocotools_does() -> None:
    assert _string_of_counts([3, 40, 2000, 7, 70000]) == _coco_string(
        np.repeat([False, True, False, True, False], [3, 40, 2000, 7, 70000])[None]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a COCO run-length string"),
        (b"", "not a COCO run-length string"),
        ("R", "not a COCO run-length string"),  # ends with a continuation
        ("1 2", "not a COCO run-length string"),  # below "0"
        ("1\x7f1", "not a COCO run-length string"),
        ("1p1", "not a COCO run-length string"),  # above "o"
        (b"\xff\xfe", "not a COCO run-length string"),
        ("é", "not a COCO run-length string"),
        ("1111\ud800", "not a COCO run-length string"),
        ("11", "add up to 2 pixels, the mask has 8"),
        ("999", "add up to 27 pixels, the mask has 8"),
        ("N:", "the mask has 8"),  # -2 and 10: sums to the size, but a count is negative
        (_string_of_counts([1, 1, 10, -4]), "the mask has 8"),
        ("o" * 30 + "0", "the mask has 8"),
        (_string_of_counts([2**62] * 4 + [8]), "the mask has 8"),  # sums to 8 modulo 2**64
    ],
)
def test_malformed_strings_are_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        decode_edges(text, 8)


@examples(300)
@given(st.one_of(st.binary(max_size=30), st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30)))
def test_any_string_is_read_or_refused(text: str | bytes) -> None:
    try:
        edges = decode_edges(text, 500)
    except ShapeError:
        return
    assert len(edges) % 2 == 0
    assert (np.diff(edges, prepend=0) >= 0).all()
    assert (edges <= 500).all()


def test_a_long_wrong_string_is_cut_in_the_message() -> None:
    with pytest.raises(ShapeError) as raised:
        decode_edges("1" * 10000, 8)
    assert len(str(raised.value)) < 200


def test_run_positions_lists_every_position() -> None:
    start, end = np.array([2, 7, 9]), np.array([4, 8, 9])
    assert run_positions(start, end).tolist() == [2, 3, 7]
    none: Any = np.zeros(0, np.int64)
    assert run_positions(none, none).tolist() == []
