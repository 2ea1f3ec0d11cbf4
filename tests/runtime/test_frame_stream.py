"""Streams: order, overlap, bounds, and every way of ending."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import Thing, fake_segmenter
from yolact_runtime import SegmenterOptions
from yolact_runtime.errors import BackendError, FrameError
from yolact_runtime.frame_stream import FrameStream

TIMEOUT_S = 30  # of waits that end at once when the code is right


class Recorder:
    """A frame path whose frames are numbers; it notes what happens and can be held or made to fail."""

    def __init__(self, fails_at: tuple[str, int] | None = None) -> None:
        self.events: list[tuple[str, int]] = []
        self.in_flight: set[int] = set()
        self.most_in_flight = 0
        self._fails_at = fails_at
        self._lock = threading.Lock()
        self.started: queue.SimpleQueue[int] = queue.SimpleQueue()

    def start(self, frame: int) -> int:
        self._note("start", frame)
        with self._lock:
            self.in_flight.add(frame)
            self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        self.started.put(frame)
        return frame

    def collect(self, ticket: int) -> Any:
        self._end(ticket)
        self._note("collect", ticket)
        return ticket

    def discard(self, ticket: int) -> None:
        self._end(ticket)
        self._note("discard", ticket)

    def close(self) -> None:
        self.events.append(("close", -1))

    def _end(self, ticket: int) -> None:
        with self._lock:
            self.in_flight.remove(ticket)

    def _note(self, what: str, frame: int) -> None:
        self.events.append((what, frame))
        if (what, frame) == self._fails_at:
            raise BackendError(f"{what} {frame}")


@examples(60)
@given(st.integers(0, 12), st.integers(1, 4))
def test_every_frame_once_in_order_and_never_too_many(count: int, frames_in_flight: int) -> None:
    path = Recorder()
    assert list(FrameStream(path, range(count), frames_in_flight)) == list(range(count))
    assert path.most_in_flight <= frames_in_flight
    assert not path.in_flight


def test_the_next_frame_is_begun_before_the_one_before_is_asked_for() -> None:
    path = Recorder()
    stream = FrameStream(path, range(9), frames_in_flight=2)
    assert next(stream) == 0
    # Nobody asks for the second result; frames 1 and 2 are under way all the same, and no more than these.
    assert [path.started.get(timeout=TIMEOUT_S) for _ in range(3)] == [0, 1, 2]
    assert path.started.empty()
    assert list(stream) == list(range(1, 9))


def test_a_frame_is_taken_from_the_camera_only_when_there_is_room() -> None:
    taken: list[int] = []

    def camera() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    path = Recorder()
    stream = FrameStream(path, camera(), frames_in_flight=1)
    assert next(stream) == 0
    path.started.get(timeout=TIMEOUT_S)
    assert path.started.get(timeout=TIMEOUT_S) == 1
    assert taken == [0, 1]
    stream.close()


def test_a_result_does_not_wait_for_the_next_frame() -> None:
    gate = threading.Event()

    def slow_camera() -> Iterator[int]:
        yield 0
        assert gate.wait(TIMEOUT_S)
        yield 1

    stream = FrameStream(Recorder(), slow_camera(), frames_in_flight=2)
    assert next(stream) == 0  # would never come if the second frame had to come first
    gate.set()
    assert list(stream) == [1]


def test_what_the_source_raises_comes_after_the_frames_before() -> None:
    def camera() -> Iterator[int]:
        yield from range(3)
        raise OSError("unplugged")

    path, results = Recorder(), []
    with pytest.raises(OSError, match="unplugged"):
        results.extend(FrameStream(path, camera(), 2))
    seen = [number for what, number in path.events if what == "collect"]
    assert seen == [0, 1, 2]
    assert not path.in_flight


@pytest.mark.parametrize("fails_at", [("start", 2), ("collect", 2)])
def test_what_the_path_raises_ends_the_stream(fails_at: tuple[str, int]) -> None:
    path, results = Recorder(fails_at), []
    stream = FrameStream(path, range(9), 3)
    results.extend(itertools.islice(stream, 2))
    with pytest.raises(BackendError, match=f"{fails_at[0]} 2"):
        next(stream)
    assert results == [0, 1]
    assert list(stream) == []
    _wait_until_idle(path)


def test_a_consumer_that_stops_discards_what_is_under_way() -> None:
    path = Recorder()
    for result in FrameStream(path, range(100), 3):
        if result == 4:
            break
    _wait_until_idle(path)
    collected = [number for what, number in path.events if what == "collect"]
    assert collected == [0, 1, 2, 3, 4]
    assert len([1 for what, _ in path.events if what == "start"]) < 100


class SlowStart(Recorder):
    """Does not come back from beginning with one frame before it is let go: a network that takes its time."""

    def __init__(self, slow: int) -> None:
        super().__init__()
        self._slow = slow
        self.entered, self.let_go = threading.Event(), threading.Event()

    def start(self, frame: int) -> int:
        ticket = super().start(frame)
        if frame == self._slow:
            self.entered.set()
            assert self.let_go.wait(TIMEOUT_S)
        return ticket

    def discard(self, ticket: int) -> None:
        super().discard(ticket)
        self.let_go.set()


def test_a_frame_that_is_just_being_begun_when_the_consumer_stops_is_discarded() -> None:
    """Its buffers and its place on the device would be lost for good."""
    path = SlowStart(2)
    stream = FrameStream(path, range(100), 3)
    assert next(stream) == 0
    assert path.entered.wait(TIMEOUT_S)
    stream.close()
    path.let_go.set()
    _wait_until_idle(path)
    assert sorted(number for what, number in path.events if what == "discard") == [1, 2]
    assert [number for what, number in path.events if what == "start"] == [0, 1, 2]


def test_a_stream_that_is_never_read_takes_no_frame() -> None:
    path = Recorder()
    FrameStream(path, range(3), 2).close()
    assert path.events == []


def test_two_streams_at_once() -> None:
    path = Recorder()
    first, second = FrameStream(path, range(10), 2), FrameStream(path, range(10, 20), 2)
    assert list(zip(first, second, strict=True)) == [(i, i + 10) for i in range(10)]


def _wait_until_idle(path: Recorder) -> None:
    """The reader's thread may be about to begin with one more frame, which it then discards."""
    for thread in threading.enumerate():
        if thread.name == "yolact-stream":
            thread.join(TIMEOUT_S)
    assert not path.in_flight


# --- of a segmenter ---------------------------------------------------------------------------------------------------

THINGS = [Thing((0.25, 0.25, 0.75, 0.75)), Thing((0.0, 0.0, 0.4, 0.6), class_id=2, confidence=0.6)]
PICTURES = SegmenterOptions(min_confidence=0.1)


def test_a_segmenter_streams_what_it_returns_for_single_frames() -> None:
    scenes = [THINGS[:1], THINGS, [], THINGS[1:]]
    frames = [np.full((20 + i, 30, 3), i, np.uint8) for i in range(4)]
    segmenter, _ = fake_segmenter(scenes, PICTURES)
    single = [segmenter(frame) for frame in frames]
    segmenter, _ = fake_segmenter(scenes, PICTURES)
    streamed = list(segmenter.stream(frames))
    assert [len(instances) for instances in streamed] == [1, 2, 0, 1]
    for a, b in zip(single, streamed, strict=True):
        assert (a.xyxy == b.xyxy).all()
        assert a.mask == b.mask


def test_a_frame_buffer_may_be_used_again() -> None:
    segmenter, network = fake_segmenter([THINGS], PICTURES)

    def camera() -> Iterator[np.ndarray[Any, Any]]:
        buffer = np.empty((16, 16, 3), np.uint8)
        for value in (0, 100, 200):
            buffer[:] = value
            yield buffer

    list(segmenter.stream(camera()))
    means = [float(tensor.mean()) for tensor in network.tensors]
    assert means == sorted(means)
    assert len(set(means)) == 3


def test_something_that_is_no_frame_ends_a_segmenters_stream() -> None:
    segmenter, _ = fake_segmenter([THINGS], PICTURES)
    stream = segmenter.stream([np.zeros((8, 8, 3), np.uint8), "no frame"])
    assert len(next(stream)) == 2
    with pytest.raises(FrameError, match="found str"):
        next(stream)


def test_a_closed_segmenter_streams_nothing() -> None:
    segmenter, _ = fake_segmenter([THINGS], PICTURES)
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        next(segmenter.stream([np.zeros((8, 8, 3), np.uint8)]))
