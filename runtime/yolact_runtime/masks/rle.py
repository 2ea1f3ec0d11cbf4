"""COCO run-length strings: the compressed form that pycocotools and every COCO tool reads.

Counts alternate between pixels outside and inside, starting outside, in column-major order. From the fourth count on,
the difference to the count two before is stored. Each number becomes groups of five bits, low group first, with a
continuation bit and the sign in the last group, shifted by 48 into printable characters.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError

__all__ = ["decode_edges", "encode_runs", "paint_runs", "run_positions"]

Int = npt.NDArray[np.int64]
# Differences of counts below this fit into int32.
_HALF_OF_INT32 = 1 << 30
# Ratio of the extent of a mask to its pixels, measured, above which positions outside are skipped.
_SPARSE = 4


def encode_runs(offset: Int, start: Int, end: Int, size: int) -> list[str]:
    """Encode the runs of several masks as COCO run-length strings, one for each mask.

    Args:
        offset: First run of each mask, and the number of runs, ``(n + 1,)``.
        start: First positions, ``(runs,)``, sorted inside a mask.
        end: End positions, exclusive, ``(runs,)``.
        size: Pixels of a mask.
    """
    if len(offset) < 2:
        return []
    counts, first = _counts(offset, start, end, size)
    stop = np.append(first[1:], len(counts))
    value = counts.copy()
    value[2:] -= counts[:-2]
    # The first three of a mask are stored unchanged.
    head = (first[:, None] + np.arange(3)).ravel()
    head = head[head < np.repeat(stop, 3)]
    value[head] = counts[head]
    code, last = _codes(value)
    text = str(code.tobytes(), "ascii")
    return [text[a:b] for a, b in itertools.pairwise([0, *(last[stop - 1] + 1).tolist()])]


def _codes(value: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], Int]:
    """Return the characters of all numbers, and the position of each number's last one."""
    # The remaining bits after a number's first five bits, then after the next five, with the sign: each step has one
    # group fewer, and most numbers have one or two.
    magnitude = np.where(value < 0, ~value, value)
    longer = [np.flatnonzero(magnitude >> 4)]
    while len(longer[-1]):
        longer.append(longer[-1][magnitude[longer[-1]] >> (4 + 5 * len(longer)) > 0])
    groups = np.ones(len(value), np.intp)
    for which in longer:
        groups[which] += 1
    last = np.cumsum(groups) - 1
    code = np.empty(last[-1] + 1, np.uint8)
    begin = last - groups + 1
    code[begin] = (value & 0x1F) + 0x50
    for place, which in enumerate(longer, 1):
        code[begin[which] + place] = (value[which] >> (5 * place) & 0x1F) + 0x50
    code[last] -= 0x20
    return code, last


def _counts(offset: Int, start: Int, end: Int, size: int) -> tuple[npt.NDArray[Any], Int]:
    """Return the counts of all masks, one behind the other, and where each mask's counts begin."""
    num_runs = np.diff(offset).astype(np.intp, copy=False)
    runs = slice(offset[0], offset[-1])
    # Each mask's edges end with its size.
    tail = np.cumsum(2 * num_runs + 1) - 1
    first = tail - 2 * num_runs
    edges = np.full(tail[-1] + 1, size, np.int32 if size < _HALF_OF_INT32 else np.int64)
    of_runs = np.ones(len(edges), bool)
    of_runs[tail] = False
    edges[of_runs] = np.stack([start[runs], end[runs]], axis=1).ravel()
    counts = edges.copy()
    counts[1:] -= edges[:-1]
    counts[first] = edges[first]
    # A mask that reaches the last pixel has no trailing count of zero.
    dropped = (num_runs > 0) & (counts[tail] == 0)
    kept = np.ones(len(counts), bool)
    kept[tail[dropped]] = False
    return counts[kept], first - np.concatenate([[0], np.cumsum(dropped)[:-1]])


def decode_edges(text: str | bytes, size: int) -> Int:
    """Decode a COCO run-length string to the positions where its mask begins and ends, alternating and sorted.

    Args:
        text: The counts string to decode.
        size: Number of pixels of the mask.

    Raises:
        ShapeError: The string is not a counts string, or its counts do not add up to `size`.
    """
    # Characters beyond ASCII become bytes above 127, which no code has.
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    code = np.frombuffer(content, np.uint8).astype(np.int64) - 48
    if not len(code) or ((code < 0) | (code > 63)).any() or code[-1] & 0x20:
        raise ShapeError(f"not a COCO run-length string: {text[:40]!r}")
    last = np.flatnonzero(code & 0x20 == 0)
    groups = np.diff(last, prepend=-1)
    within = np.arange(len(code)) - np.repeat(last - groups + 1, groups)
    value = np.add.reduceat((code & 0x1F) << (5 * within), last - groups + 1)
    negative = code[last] & 0x10 != 0
    value[negative] -= 1 << (5 * groups[negative])
    counts = value
    counts[1::2] = np.cumsum(value[1::2])
    counts[2::2] = np.cumsum(value[2::2])
    # Each count is checked, too: a sum of counts near 2**62 wraps around to any value.
    if ((counts < 0) | (counts > size)).any() or counts.sum() != size:
        raise ShapeError(f"run-length counts add up to {counts.sum()} pixels, the mask has {size}: {text[:40]!r}")
    return np.cumsum(counts)[: len(counts) // 2 * 2]


def paint_runs(flat: npt.NDArray[Any], start: npt.NDArray[Any], end: npt.NDArray[Any], value: int) -> None:
    """Set the pixels of one mask's runs to a value, in an array indexed by position."""
    if not len(start):
        return
    first, last = int(start[0]), int(end[-1])
    if last - first > _SPARSE * (end - start).sum():
        flat[run_positions(start, end)] = value
        return
    # Creating and reading bits from the first to the last position is faster than listing the positions that are set.
    edges = np.stack([start, end], axis=1).ravel()
    inside = np.ones(len(edges) - 1, bool)
    inside[1::2] = False
    np.copyto(flat[first:last], value, where=np.repeat(inside, np.diff(edges)))


def run_positions(start: Int, end: Int) -> Int:
    """Return every position inside the runs, in order."""
    length = end - start
    before = np.cumsum(length) - length
    positions: Int = np.arange(length.sum()) + np.repeat(start - before, length)
    return positions
