"""Long use of a segmenter: by calls, streams and threads, with sources that raise, stop early or give wrong frames.

The model is a small one of the tests, so that a try is thousands of frames. Silently wrong: a frame's instances are not
those that a fresh segmenter finds in it alone. Left over: threads, file descriptors, or memory that grows.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yolact_benchmarks.studies.storm.attempt import Attempt, Campaign
from yolact_benchmarks.studies.storm.outcome import Finding, Outcome, ok, silent
from yolact_benchmarks.studies.storm.stage import Stage, open_model, same_instances, tests_support
from yolact_plugins.errors import YolactError
from yolact_runtime import Segmenter
from yolact_runtime.masks.instances import Instances

__all__ = ["CAMPAIGN"]

Frame = npt.NDArray[Any]
_ROUNDS = 8
_NUM_FRAMES = 12
_MOST_GROWTH_BYTES = 24 << 20
_WRONG: tuple[Any, ...] = (
    None, "frame", np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.float64), np.zeros((4, 4, 2), np.uint8),
    np.zeros((2, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.int8), [[1, 2, 3]],
)  # fmt: skip


class _SourceError(Exception):
    """An error of a camera."""


def _prepare(stage: Stage) -> None:
    tests_support()
    from support.scenes import Thing, write_bundle  # type: ignore[import-not-found, unused-ignore]

    things = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6, prototype=1)]
    write_bundle(stage.folder / "small.bundle", things)


def _attempt(stage: Stage, attempt: Attempt) -> Finding:
    rng = attempt.rng
    path = stage.folder / "small.bundle"
    noise = np.random.default_rng(rng.randrange(2**32))
    frames = [
        noise.integers(0, 256, (rng.randrange(1, 90), rng.randrange(1, 120), 3), np.uint8) for _ in range(_NUM_FRAMES)
    ]
    expected = []
    for frame in frames:
        with open_model(path) as fresh:
            expected.append(fresh(frame))
    uses = [rng.choice(list(_USES)) for _ in range(_ROUNDS)]
    what = ", ".join(uses)
    with open_model(path) as segmenter:
        # The first round allocates what is allocated once.
        wrong = _use(segmenter, frames, expected, uses, rng.randrange(2**32))
        before = _held()
        wrong = wrong or _use(segmenter, frames, expected, uses, rng.randrange(2**32))
        after = _held()
    if wrong:
        return silent(f"{what}: {wrong}")
    if after[0] > before[0] or after[1] > before[1]:
        grown = f"threads {before[0]} -> {after[0]}, descriptors {before[1]} -> {after[1]}"
        return Finding(Outcome.LEFTOVER, f"{what}: {grown}")
    if after[2] - before[2] > _MOST_GROWTH_BYTES:
        return Finding(Outcome.LEFTOVER, f"{what}: memory grew by {(after[2] - before[2]) >> 20} MiB")
    return ok(what)


def _use(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], uses: list[str], seed: int) -> str:
    noise = np.random.default_rng(seed)
    for use in uses:
        order = noise.permutation(len(frames)).tolist()
        wrong: str = _USES[use](segmenter, frames, expected, order)
        if wrong:
            return f"{use}: {wrong}"
    return ""


def _compare(found: Instances, expected: Instances, number: int) -> str:
    return "" if same_instances(found, expected) else f"frame {number} has other instances than alone"


def _by_call(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], order: list[int]) -> str:
    return next(filter(None, (_compare(segmenter(frames[i]), expected[i], i) for i in order)), "")


def _by_stream(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], order: list[int]) -> str:
    count = 0
    with contextlib.closing(segmenter.stream(frames[i] for i in order)) as stream:
        for found, i in zip(stream, order, strict=False):
            count += 1
            if wrong := _compare(found, expected[i], i):
                return wrong
    return "" if count == len(order) else f"{count} results of {len(order)} frames"


def _by_threads(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], order: list[int]) -> str:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: segmenter(frames[i]), order))
    return next(filter(None, (_compare(each, expected[i], i) for each, i in zip(found, order, strict=True))), "")


def _stopped(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], order: list[int]) -> str:
    with contextlib.closing(segmenter.stream(frames[i] for i in order)) as stream:
        return _compare(next(stream), expected[order[0]], order[0])


def _source_raises(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], order: list[int]) -> str:
    def source() -> Iterator[Frame]:
        for i in order[:3]:
            yield frames[i]
        raise _SourceError("the cable was pulled")

    found: list[Instances] = []
    try:
        with contextlib.closing(segmenter.stream(source())) as stream:
            for result in stream:
                found.append(result)  # results before the error count
    except _SourceError:
        if len(found) != 3:
            return f"{len(found)} results of 3 frames before the source's error"
        return next(filter(None, (_compare(f, expected[i], i) for f, i in zip(found, order, strict=False))), "")
    return "the source's error was lost"


def _wrong_frames(segmenter: Segmenter, frames: list[Frame], expected: list[Instances], order: list[int]) -> str:
    for wrong in _WRONG:
        for by_stream in (False, True):
            try:
                _ = [*segmenter.stream([frames[0], wrong])] if by_stream else segmenter(wrong)
            except YolactError:
                continue
            return f"{str(wrong)[:40]} was accepted as a frame"
    return _by_call(segmenter, frames, expected, order)


_USES: dict[str, Any] = {
    "calls": _by_call,
    "stream": _by_stream,
    "threads": _by_threads,
    "stopped stream": _stopped,
    "source that raises": _source_raises,
    "wrong frames": _wrong_frames,
}


def _held() -> tuple[int, int, int]:
    """Return the number of threads, of file descriptors, and of bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return threading.active_count(), len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE")  # noqa: PTH208


CAMPAIGN = Campaign("soak", _attempt, 40, 1, _prepare)
