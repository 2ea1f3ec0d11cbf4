"""Streams that end early: sources that give nothing, that fail, that are abandoned; and that nothing is left then."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.properties import examples
from support.scenes import Thing, fake_segmenter
from yolact_runtime import FrameStream, Segmenter, SegmenterOptions, SourceTimeoutError, YolactError
from yolact_runtime.errors import BackendError, UsageError
from yolact_runtime.frame_reader import FrameReader

TIMEOUT_S = 30  # of waits that end at once when the code is right


class Frame:
    """A number that can be looked after by a weak reference."""

    def __init__(self, number: int) -> None:
        self.number = number


class Ledger:
    """A frame path that keeps account of its tickets: each is collected or discarded, once."""

    def __init__(self, fails: tuple[str, int] = ("", -1)) -> None:
        self.in_flight: set[int] = set()
        self._fails = fails
        self._lock = threading.Lock()

    def start(self, frame: Frame) -> int:
        self._fail("start", frame.number)
        with self._lock:
            self.in_flight.add(frame.number)
        return frame.number

    def collect(self, ticket: int) -> Any:
        self._end(ticket)
        self._fail("collect", ticket)
        return ticket

    def discard(self, ticket: int) -> None:
        self._end(ticket)
        self._fail("discard", ticket)

    def inspect(self, frame: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def _end(self, ticket: int) -> None:
        with self._lock:
            self.in_flight.remove(ticket)

    def _fail(self, what: str, number: int) -> None:
        if self._fails == (what, number):
            raise BackendError(f"{what} {number}")


class Camera:
    """Gives some frames and then none, until it is let go; `inside` says that it is waited for."""

    def __init__(self, frames: int = 0) -> None:
        self.frames, self.taken = frames, 0
        self.inside, self.go = threading.Event(), threading.Event()

    def __iter__(self) -> Camera:
        return self

    def __next__(self) -> Frame:
        if self.taken == self.frames:
            self.inside.set()
            assert self.go.wait(TIMEOUT_S)
        self.taken += 1
        return Frame(self.taken - 1)


def in_a_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """What the work returns, or raises, is the last element once the thread has ended."""
    ends: list[Any] = []

    def run() -> None:
        try:
            ends.append(work())
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ends


def wait_for_readers() -> None:
    for thread in threading.enumerate():
        if thread.name == "yolact-stream":
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


# --- time-outs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_source_that_gives_no_frame_is_abandoned_after_what_was_begun(before: int) -> None:
    path, camera = Ledger(), Camera(before)
    stream = FrameStream(path, camera, 2, timeout_s=0.05)
    results: list[Any] = []
    with pytest.raises(SourceTimeoutError, match=r"delivered no frame for 0\.05 s") as caught:
        results.extend(stream)
    assert results == list(range(before))
    assert isinstance(caught.value, YolactError | TimeoutError)
    assert list(stream) == []
    camera.go.set()  # the thread comes back with a frame, which nobody begins with
    wait_for_readers()
    assert not path.in_flight


def test_time_that_the_network_takes_is_not_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    now, under_way, gate = [0.0], threading.Event(), threading.Event()
    monkeypatch.setattr("yolact_runtime.frame_reader.time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Ledger):
        def start(self, frame: Frame) -> int:
            if frame.number == 1:
                now[0] += 3600
                under_way.set()
                assert gate.wait(TIMEOUT_S)
            return super().start(frame)

    stream = FrameStream(Slow(), map(Frame, range(3)), 1, timeout_s=TIMEOUT_S)
    assert next(stream) == 0
    assert under_way.wait(TIMEOUT_S)
    consumer, ends = in_a_thread(lambda: list(stream))
    # A question that is an hour old would be answered at once.
    consumer.join(0.1)
    gate.set()
    consumer.join(TIMEOUT_S)
    assert ends == [[1, 2]]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 86401, True, "5", b"5", 10**400, [1]])
def test_time_outs_that_are_none(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^timeout_s must be a number of seconds above 0"):
        FrameStream(Ledger(), [], 1, timeout_s=value)


def test_time_outs_of_numpy_are_numbers() -> None:
    assert list(FrameStream(Ledger(), [], 1, timeout_s=np.float32(0.5))) == []  # type: ignore[arg-type]  # a number


# --- closing ----------------------------------------------------------------------------------------------------------


def test_a_consumer_that_waits_is_woken_by_close() -> None:
    path, camera = Ledger(), Camera()
    stream = FrameStream(path, camera, 2)
    consumer, ends = in_a_thread(lambda: list(stream))
    assert camera.inside.wait(TIMEOUT_S)
    closer, _ = in_a_thread(stream.close)
    consumer.join(TIMEOUT_S)
    assert ends == [[]]
    camera.go.set()
    closer.join(TIMEOUT_S)
    wait_for_readers()
    assert not path.in_flight
    assert camera.taken == 1


def test_all_consumers_that_wait_are_woken() -> None:
    camera = Camera()
    stream = FrameStream(Ledger(), camera, 2)
    consumers = [in_a_thread(lambda: list(stream)) for _ in range(3)]
    assert camera.inside.wait(TIMEOUT_S)
    camera.go.set()
    camera.frames = -1
    stream.close()
    for thread, _ in consumers:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_close_does_not_wait_for_a_frame_that_a_consumer_took_just_then() -> None:
    class Claims(queue.SimpleQueue[Any]):
        """Says that it holds something, as it did a moment before."""

        def empty(self) -> bool:
            return False

    stream: FrameStream = FrameStream(Ledger(), [], 1)  # type: ignore[arg-type]
    stream._reader._events = Claims()
    closing = threading.Thread(target=stream.close, daemon=True)
    closing.start()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert next(stream, None) is None


def test_close_while_a_result_is_waited_for() -> None:
    waiting, gate = threading.Event(), threading.Event()

    class Held(Ledger):
        def collect(self, ticket: int) -> Any:
            waiting.set()
            assert gate.wait(TIMEOUT_S)
            super().collect(ticket)
            raise BackendError("failed because it was closed")

    path = Held()
    stream = FrameStream(path, map(Frame, range(9)), 2)
    consumer, ends = in_a_thread(lambda: list(stream))
    assert waiting.wait(TIMEOUT_S)
    stream.close()
    gate.set()
    consumer.join(TIMEOUT_S)
    assert ends == [[]]
    wait_for_readers()
    assert not path.in_flight


def test_close_while_a_consumer_takes_the_event_that_was_just_seen() -> None:
    """The consumer takes events without the lock that `close` holds: one may be gone after it was seen."""
    reader = FrameReader(Ledger(), map(Frame, range(9)), 1)
    events = reader._events

    class Robbed:
        def empty(self) -> bool:
            if events.empty():
                return True
            events.get()
            return False

        def __getattr__(self, name: str) -> Any:
            return getattr(events, name)

    reader.begin()
    events.put(events.get(timeout=TIMEOUT_S))  # the first frame is begun
    reader._events = Robbed()  # type: ignore[assignment]
    closer = threading.Thread(target=reader.end, daemon=True)
    closer.start()
    closer.join(TIMEOUT_S)
    assert not closer.is_alive()
    wait_for_readers()


@pytest.mark.parametrize("started", [False, True])
def test_ctrl_c_while_the_thread_is_being_started(started: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(threading.Thread):
        def start(self) -> None:
            if started:
                super().start()
            raise KeyboardInterrupt

    monkeypatch.setattr("yolact_runtime.frame_reader.threading.Thread", Interrupted)
    path = Ledger()
    stream = FrameStream(path, map(Frame, range(9)), 2)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    stream.close()
    assert list(stream) == []
    wait_for_readers()
    assert not path.in_flight


@pytest.mark.parametrize("what", ["next", "close", "drop", "after a close"])
def test_a_stream_in_a_forked_process(what: str) -> None:
    """The thread stays in the other process, maybe with the lock in its hands."""
    camera = Camera(1)
    streams = [FrameStream(Ledger(), camera, 2)]
    assert next(streams[0]) == 0
    assert camera.inside.wait(TIMEOUT_S)

    def use() -> None:
        signal.alarm(TIMEOUT_S)
        if what == "next":
            with pytest.raises(BackendError, match="is a fork of it"):
                next(streams[0])
        if what in {"close", "after a close"}:
            streams[0].close()
        if what != "drop":
            assert list(streams[0]) == []
        streams.clear()
        gc.collect()

    holding, go = threading.Event(), threading.Event()

    def hold() -> None:
        with streams[0]._reader._lock:
            holding.set()
            assert go.wait(TIMEOUT_S)

    holder, _ = in_a_thread(hold)
    assert holding.wait(TIMEOUT_S)
    try:
        assert _forked(use) == 0
    finally:
        go.set()
        holder.join(TIMEOUT_S)
    camera.go.set()
    camera.frames = 3
    assert next(streams[0]) == 1  # here it goes on
    streams[0].close()
    wait_for_readers()


def _forked(work: Callable[[], None]) -> int:
    """The wait status of a child that does the work."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that forks with threads are dangerous
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def test_a_source_may_close_its_own_stream() -> None:
    streams: list[FrameStream] = []

    def source() -> Iterator[Frame]:
        yield Frame(0)
        streams[0].close()
        yield Frame(1)

    streams.append(FrameStream(Ledger(), source(), 1))
    assert list(streams[0]) == [0]
    wait_for_readers()


def test_a_stream_is_a_context_manager_and_works_with_closing() -> None:
    for manager in (lambda stream: stream, contextlib.closing):
        path = Ledger()
        with manager(FrameStream(path, map(Frame, range(99)), 3)) as results:
            assert next(results) == 0
        wait_for_readers()
        assert not path.in_flight
        assert list(results) == []
        results.close()


# --- sources ----------------------------------------------------------------------------------------------------------


def test_an_abandoned_generator_is_closed_on_its_own_thread() -> None:
    closed_on: list[str] = []

    def source() -> Iterator[Frame]:
        try:
            yield from map(Frame, range(99))
        finally:
            closed_on.append(threading.current_thread().name)

    with FrameStream(Ledger(), source(), 1) as results:
        next(results)
    wait_for_readers()
    assert closed_on == ["yolact-stream"]


def test_a_generator_that_is_waited_for_is_closed_when_it_is_back() -> None:
    camera, ended = Camera(1), threading.Event()

    def source() -> Iterator[Frame]:
        try:
            yield from camera
        finally:
            ended.set()

    stream = FrameStream(Ledger(), source(), 1, timeout_s=0.05)
    with pytest.raises(SourceTimeoutError):
        list(stream)
    assert not ended.is_set()
    camera.go.set()
    assert ended.wait(TIMEOUT_S)


def test_a_source_that_raises_when_it_is_closed_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    def source() -> Iterator[Frame]:
        try:
            yield from map(Frame, range(99))
        finally:
            raise OSError("cannot be closed")

    with FrameStream(Ledger(), source(), 1) as results:
        next(results)
    wait_for_readers()
    assert "failed when it was closed: OSError: cannot be closed" in caplog.text


def test_other_sources_stay_their_makers() -> None:
    class Closable(Camera):
        def close(self) -> None:
            raise AssertionError("not asked for")

    camera = Closable(5)
    with FrameStream(Ledger(), camera, 1) as results:
        next(results)
    wait_for_readers()


# --- nothing is left --------------------------------------------------------------------------------------------------

ENDS = ["exhausted", "break", "close", "consumer error", "dropped", "source error", "start", "collect", "discard"]


@examples(120)
@given(st.lists(st.tuples(st.sampled_from(ENDS), st.integers(0, 6)), min_size=1, max_size=3), st.integers(1, 4))
def test_nothing_is_left_of_streams_however_they_end(ways: list[tuple[str, int]], frames_in_flight: int) -> None:
    remembered: list[weakref.ref[Any]] = []

    def source(how: str, place: int) -> Iterator[Frame]:
        for number in range(7):
            if how == "source error" and number == place:
                raise OSError("unplugged")
            frame = Frame(number)
            remembered.append(weakref.ref(frame))
            yield frame
            del frame

    def run(how: str, place: int) -> Ledger:
        path = Ledger((how, place))
        stream = FrameStream(path, source(how, place), frames_in_flight)
        remembered.append(weakref.ref(stream))
        with contextlib.suppress(OSError, BackendError, ZeroDivisionError):
            for number in stream:
                assert number <= 6
                if number < place or how not in {"break", "close", "consumer error", "dropped", "discard"}:
                    continue
                if how == "close":
                    stream.close()
                elif how == "consumer error":
                    _ = 1 // 0
                else:
                    break
        return path

    for path in [run(*way) for way in ways]:
        wait_for_readers()
        assert not path.in_flight
        remembered.append(weakref.ref(path))
    del path
    # Without the garbage collector's help: nothing refers to itself.
    assert [left() for left in remembered if left() is not None] == []


def test_a_stuck_source_keeps_neither_the_path_nor_frames_alive() -> None:
    path, camera = Ledger(), Camera(2)
    stream = FrameStream(path, camera, 4, timeout_s=0.05)
    with pytest.raises(SourceTimeoutError):
        list(stream)
    remembered = weakref.ref(path)
    del path
    gc.collect()
    assert remembered() is None
    camera.go.set()
    wait_for_readers()


def test_the_garbage_collector_may_come_on_the_streams_own_thread() -> None:
    """A stream in a circle of references, collected while its reader works: no lock is waited for."""
    path, holder = Ledger(), [FrameStream(Ledger(), map(Frame, range(9)), 2)]
    holder.append(holder)  # type: ignore[arg-type]  # a circle

    def source() -> Iterator[Frame]:
        yield Frame(0)
        holder.clear()
        gc.collect()
        yield Frame(1)

    next(holder[0])
    assert list(FrameStream(path, source(), 1)) == [0, 1]
    wait_for_readers()
    assert not path.in_flight


# --- of a segmenter ---------------------------------------------------------------------------------------------------


def opened() -> Segmenter:
    return fake_segmenter([[Thing((0.25, 0.25, 0.75, 0.75))]], SegmenterOptions(min_confidence=0.1))[0]


def test_closing_a_segmenter_ends_its_streams() -> None:
    segmenter, inside, go = opened(), threading.Event(), threading.Event()

    def camera() -> Iterator[Any]:
        yield np.zeros((8, 8, 3), np.uint8)
        inside.set()
        assert go.wait(TIMEOUT_S)

    stream = segmenter.stream(camera())
    assert len(next(stream)) == 1
    consumer, ends = in_a_thread(lambda: next(stream))
    assert inside.wait(TIMEOUT_S)
    segmenter.close()
    consumer.join(TIMEOUT_S)
    assert isinstance(ends[0], BackendError)
    assert "the segmenter was closed" in str(ends[0])
    assert list(stream) == []
    go.set()
    wait_for_readers()


def test_a_stream_of_a_closed_segmenter_does_not_touch_its_source() -> None:
    segmenter = opened()
    segmenter.close()

    def camera() -> Iterator[Any]:
        raise AssertionError("touched")
        yield

    with pytest.raises(BackendError, match="the segmenter was closed"):
        next(segmenter.stream(camera()))


def test_a_segmenter_is_not_kept_by_its_streams() -> None:
    segmenter = opened()
    stream = segmenter.stream(np.zeros((3, 8, 8, 3), np.uint8), timeout_s=5)
    remembered = weakref.ref(segmenter)
    del segmenter
    gc.collect()
    assert remembered() is None
    assert len(list(stream)) == 3
