"""The kernels that find runs and bring results to the host, against the bits that they are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.kernel_host import kernels_of, needs_kernels, poisoned
from support.mask_scenes import Assembled, Scene, assemble, make_scene, runs, unpack
from support.properties import examples, some_of
from yolact_plugins.frame_status import FrameStatus

pytestmark = needs_kernels()


def expected(result: Assembled) -> tuple[npt.NDArray[np.int64], ...]:
    """``(offset, start, end)`` by differences of each column."""
    found: list[npt.NDArray[np.int64]] = []
    for mask in unpack(result):
        edge = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
        ends = [np.stack(np.nonzero(edge == sign)) for sign in (1, -1)]
        found.append(np.stack([columns * result.scene.height + rows for columns, rows in ends]))
    empty = np.zeros((2, 0), np.int64)
    start, end = np.concatenate([empty, *found], axis=1)
    return np.cumsum([0, *(each.shape[1] for each in found)]), start, end


def striped(rng: np.random.Generator, n: int, height: int, width: int) -> Assembled:
    """Masks at the size of the prototypes, with random stretches of rows, so that runs meet all borders of words."""
    one, boxes = np.ones((1, 1), np.float32), np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1))
    scene = Scene(np.zeros((1, height, width), np.float32), one, np.zeros(n, np.int32), boxes, height, width, np.inf)
    switches = rng.random((n, height, width)) < rng.choice([0.02, 0.1, 0.5, 1.0], (n, 1, 1))
    soft = (np.cumsum(switches, axis=1) % 2).astype(np.float32)
    return assemble(scene, wanted_tasks=int(rng.choice([1, 1000])), given=soft, seed=int(rng.integers(5)))


@examples(60)
@given(st.integers(0, 2**32 - 1))
def test_runs_are_those_of_the_bits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = map(int, rng.choice([1, 7, 31, 32, 33, 64, 96, 128, 129, 161, 300], 2))
    if seed % 2:
        result = striped(rng, int(rng.integers(1, 4)), height, min(width, 70))
    else:
        scene = make_scene(rng, int(rng.choice([0, 1, 7])), (height, width), (4, 15, 15))
        result = assemble(scene, wanted_tasks=int(rng.choice([1, 1000])), seed=seed % 5)
    for found, right in zip(runs(result, 60_000), expected(result), strict=True):
        assert found.tolist() == right.tolist()
    assert result.task_runs[: result.plan[0, 1]].sum() == len(expected(result)[1])


def test_a_run_as_long_as_several_tasks() -> None:
    result = striped(np.random.default_rng(0), 1, 300, 3)
    result = assemble(result.scene, wanted_tasks=1000, given=np.ones((1, 300, 3), np.float32))
    assert result.plan[0].tolist() == [1, 3, result.plan[0, 2], 4]
    assert result.task_runs[:3].tolist() == [3, 0, 0]
    assert [part.tolist() for part in runs(result, 10)] == [[0, 3], [0, 300, 600], [300, 600, 900]]


def test_a_buffer_of_runs_that_is_too_small_is_reported_and_not_overrun() -> None:
    rng = np.random.default_rng(4)
    result = assemble(make_scene(rng, 5, (40, 90), (4, 16, 16)))
    offset, start, end = runs(result, 10_000)
    assert result.status[0] == 0
    for capacity in some_of(int(offset[5])):
        result.status[0] = 0
        less_offset, less_start, less_end = runs(result, capacity)
        assert result.status[0] == FrameStatus.RUN_OVERFLOW
        assert less_offset.tolist() == offset.tolist()
        assert less_start.tolist() == start[:capacity].tolist()
        assert less_end.tolist() == end[:capacity].tolist()


def test_masks_without_a_place_in_the_arena_have_no_runs() -> None:
    rng = np.random.default_rng(5)
    scene = make_scene(rng, 12, (90, 70), (4, 16, 16))
    need = int(assemble(scene).offset[12])
    for words in some_of(need)[:40]:
        result = assemble(scene, arena_words=words)
        for found, right in zip(runs(result, 60_000), expected(result), strict=True):
            assert found.tolist() == right.tolist()


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize(("found", "capacity"), [(0, 0), (0, 3), (1, 9), (4, 4), (301, 310), (310, 310), (999, 310)])
def test_results_and_as_many_runs_as_there_are_reach_the_host(found: int, capacity: int, threads: int) -> None:
    rng = np.random.default_rng(6)
    results = rng.integers(0, 1000, 2048, np.int32)
    start, end = (rng.integers(0, 1000, capacity, np.int32) for _ in range(2))
    host, host_start, host_end = poisoned(2048, np.int32), *(poisoned(capacity, np.int32) for _ in range(2))
    number, offset = np.array([2], np.int32), np.array([0, 0, found, -1], np.int32)
    arguments = [results, host, np.int32(results.nbytes), number, offset, start, end, np.int32(capacity)]
    kernels_of("mask_runs")("mask_results", (threads,), (256,), [*arguments, host_start, host_end], threads)
    assert (host == results).all()
    copied = min(found, capacity)
    for here, there in ((host_start, start), (host_end, end)):
        assert (here[:copied] == there[:copied]).all()
        assert (here[copied:].view(np.uint8) == 0xCD).all()


def test_the_order_of_threads_and_blocks_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    scene = make_scene(rng, 20, (160, 90), (8, 20, 20))
    first, *others = [runs(assemble(scene, seed=seed, wanted_tasks=100), 60_000) for seed in range(5)]
    for other in others:
        for one, another in zip(first, other, strict=True):
            assert one.tolist() == another.tolist()
