"""COCO run-length strings: the compressed form that pycocotools and every COCO tool reads.

Counts alternate between pixels outside and inside, starting outside, in column-major order. From the fourth count on,
the difference to the count two before is stored. Each number becomes groups of five bits, low group first, with a
continuation bit and the sign in the last group, shifted by 48 into printable characters.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from yolact_runtime.errors import ShapeError

__all__ = ["decode_edges", "encode_runs", "run_positions"]

Int = npt.NDArray[np.int64]


def encode_runs(offset: Int, start: Int, end: Int, size: int) -> list[str]:
    """Strings of several masks at once.

    Args:
        offset: ``(n + 1,)`` runs of mask ``i`` are ``offset[i] .. offset[i + 1] - 1``.
        start: ``(runs,)`` first positions, sorted inside a mask.
        end: ``(runs,)`` one past the last positions.
        size: Pixels of a mask.
    """
    if len(offset) < 2:
        return []
    counts, first = _counts(offset, start, end, size)
    last_count = np.append(first[1:], len(counts)) - 1
    within = np.arange(len(counts)) - np.repeat(first, last_count - first + 1)
    value = counts.copy()
    later = np.flatnonzero(within > 2)
    value[later] -= counts[later - 2]
    # Groups needed: the value must fit into 5 * groups bits with a sign.
    magnitude = np.where(value < 0, ~value, value)
    groups = np.ones(len(value), np.int64)
    for bits in range(4, 64, 5):
        more = magnitude >> bits > 0
        if not more.any():
            break
        groups += more
    last = np.cumsum(groups) - 1
    place = np.arange(last[-1] + 1) - np.repeat(last - groups + 1, groups)
    code = np.repeat(value, groups) >> (5 * place) & 0x1F | 0x20
    code[last] &= 0x1F
    text = str((code + 48).astype(np.uint8).tobytes(), "ascii")
    return [text[a:b] for a, b in itertools.pairwise([0, *(last[last_count] + 1).tolist()])]


def _counts(offset: Int, start: Int, end: Int, size: int) -> tuple[Int, Int]:
    """Counts of all masks behind one another, and where each mask's begin."""
    num_runs = np.diff(offset)
    runs = slice(offset[0], offset[-1])
    first = 2 * (offset[:-1] - offset[0]) + np.arange(len(num_runs))
    # Each mask's edges end with its size; a run's two edges lie behind those of the runs and masks before it.
    edges = np.full(2 * num_runs.sum() + len(num_runs), size, np.int64)
    place = 2 * np.arange(num_runs.sum()) + np.repeat(np.arange(len(num_runs)), num_runs)
    edges[place], edges[place + 1] = start[runs], end[runs]
    counts = np.diff(edges, prepend=0)
    counts[first] = edges[first]
    # A mask that reaches the last pixel has no trailing count of zero.
    tail = first + 2 * num_runs
    dropped = (num_runs > 0) & (counts[tail] == 0)
    kept = np.ones(len(counts), bool)
    kept[tail[dropped]] = False
    return counts[kept], first - np.concatenate([[0], np.cumsum(dropped)[:-1]])


def decode_edges(text: str | bytes, size: int) -> Int:
    """Positions where a mask begins and ends, alternating: an even number of sorted positions.

    Args:
        text: The counts string.
        size: Pixels of the mask.

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


def run_positions(start: Int, end: Int) -> Int:
    """Every position inside the runs, in order."""
    length = end - start
    before = np.cumsum(length) - length
    positions: Int = np.arange(length.sum()) + np.repeat(start - before, length)
    return positions
