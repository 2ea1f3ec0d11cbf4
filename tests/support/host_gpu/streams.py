"""Streams, events and captures of the host's GPU: queues of work that run when somebody waits for them."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from support.host_gpu.faults import HostGpuError, Status
from support.host_gpu.memory import Range

__all__ = ["Capture", "Event", "HostStreams", "Stream", "Work"]

_RUN_AHEAD = 0.5
"""How probable it is, for seeds other than 0, that another stream goes on at a given moment."""


@dataclass(frozen=True)
class Work:
    """One thing that a stream does, and the memory that it refers to."""

    run: Callable[[], object]
    what: str
    ranges: tuple[Range, ...] = ()


@dataclass(eq=False)
class Capture:
    """What a stream puts into a graph instead of doing it. `mode` is a name of cuda.h, in lower case."""

    mode: str
    thread: int = field(default_factory=threading.get_ident)
    works: list[Work] = field(default_factory=list)
    invalid: bool = False

    def concerns_this_thread(self) -> bool:
        """What this thread does now may spoil the capture."""
        return self.mode == "global" or (self.mode == "thread_local" and self.thread == threading.get_ident())


@dataclass(eq=False)
class Stream:
    """Work that waits; places in it count works since it was made. `is_default`: it was not made and cannot end."""

    waiting: deque[Work] = field(default_factory=deque)
    enqueued: int = 0
    done: int = 0
    capture: Capture | None = None
    is_default: bool = False
    is_closed: bool = False


@dataclass(eq=False)
class Event:
    """A place in a stream: after so many works of it; or a place in a capture, for which nobody can wait outside."""

    timing: bool = True
    stream: Stream | None = None
    place: int = 0
    capture: Capture | None = None


class HostStreams:
    """All streams.

    Args:
        order: 0 runs what is waited for and nothing else. Any other seed lets streams run ahead at random whenever
            something is enqueued, asked or waited for.
    """

    def __init__(self, order: int = 0) -> None:
        self._streams: list[Stream] = []
        self._random = random.Random(order) if order else None
        self._running: Stream | None = None

    def add(self, stream: Stream) -> Stream:
        """A new stream."""
        self._streams.append(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """Nothing more is enqueued. What waits still runs when its turn comes; closing does not wait for it."""
        stream.is_closed = True
        self._streams = [each for each in self._streams if each.waiting or not each.is_closed]

    def enqueue(self, stream: Stream, work: Work) -> None:
        """At the end of the stream, or of what it captures."""
        if stream.capture is not None:
            self._require_valid(stream.capture)
            stream.capture.works.append(work)
            return
        stream.waiting.append(work)
        stream.enqueued += 1
        self._run_ahead()

    def waiting(self) -> Iterator[Work]:
        """Everything that has not run yet."""
        for stream in self._streams:
            yield from stream.waiting

    def synchronize(self, stream: Stream) -> None:
        """Run everything in the stream."""
        if stream.capture is not None:
            self._spoil(stream.capture, "waiting for a stream")
        self._run_ahead()
        self._run(stream, stream.enqueued)

    def synchronize_all(self) -> None:
        """Run everything."""
        self._run_ahead()
        for stream in self._shuffled():
            self._run(stream, stream.enqueued)

    def record(self, event: Event, stream: Stream) -> None:
        """The event is where the stream's work ends now."""
        if stream.capture is not None:
            self._require_valid(stream.capture)
        event.stream, event.place, event.capture = stream, stream.enqueued, stream.capture

    def mark(self, event: Event) -> None:
        """The event is where the running work ends: that of a graph makes its mark when its turn comes."""
        assert self._running is not None
        event.stream, event.place, event.capture = self._running, self._running.done, None

    def wait(self, stream: Stream, event: Event) -> None:
        """What comes later in the stream waits for the event as it is now."""
        other, place = event.stream, event.place
        if other is None or (event.capture is not None and event.capture is stream.capture):
            return
        if stream.capture is not None:
            stream.capture.invalid = True
            raise HostGpuError(Status.CAPTURE_ISOLATION, "a capture cannot depend on work outside of it")
        if event.capture is not None:
            raise HostGpuError(Status.NOT_SUPPORTED, "this GPU captures one stream only; CUDA would join the other")
        self.enqueue(stream, Work(lambda: self._run(other, place), "a wait for an event"))

    def synchronize_event(self, event: Event) -> None:
        """Run what the event stands for; nothing where it was never recorded."""
        self._require_uncaptured(event)
        if event.stream is not None:
            self._run_ahead()
            self._run(event.stream, event.place)

    def reached(self, event: Event) -> bool:
        """Whether the event's place is reached. If not, work goes on until it is, so that who asks again is told so."""
        self._require_uncaptured(event)
        if event.stream is None:
            return True
        self._run_ahead()
        was_reached = event.stream.done >= event.place
        self._run(event.stream, event.place)
        return was_reached

    def place_of(self, stream: Stream) -> Event:
        """The end of a stream's work as it is now."""
        if stream.capture is not None:
            self._spoil(stream.capture, "asking a stream")
        return Event(stream=stream, place=stream.enqueued)

    def begin_capture(self, stream: Stream, mode: str) -> None:
        """From now on the stream's work goes to a graph."""
        if stream.is_default:
            raise HostGpuError(Status.CAPTURE_UNSUPPORTED, "the default stream cannot be captured")
        if stream.capture is not None:
            raise HostGpuError(Status.ILLEGAL_STATE, "the stream is capturing already")
        stream.capture = Capture(mode)

    def end_capture(self, stream: Stream) -> list[Work]:
        """The captured work; the stream is as it was before."""
        capture = stream.capture
        if capture is None:
            raise HostGpuError(Status.ILLEGAL_STATE, "the stream is not capturing")
        if capture.mode != "relaxed" and capture.thread != threading.get_ident():
            raise HostGpuError(Status.CAPTURE_WRONG_THREAD, "another thread began the capture")
        stream.capture = None
        self._require_valid(capture)
        return capture.works

    def refuse_while_capturing(self, what: str) -> None:
        """Some calls end the captures that they could spoil."""
        for stream in self._streams:
            if stream.capture is not None and stream.capture.concerns_this_thread():
                self._spoil(stream.capture, what)

    def _require_valid(self, capture: Capture) -> None:
        if capture.invalid:
            raise HostGpuError(
                Status.CAPTURE_INVALIDATED, "operation failed due to a previous error during stream capture"
            )

    def _require_uncaptured(self, event: Event) -> None:
        if event.capture is not None:
            event.capture.invalid = True
            raise HostGpuError(Status.CAPTURED_EVENT, "the event was recorded in a capture; nobody can wait for it")

    def _spoil(self, capture: Capture, what: str) -> None:
        capture.invalid = True
        raise HostGpuError(Status.CAPTURE_UNSUPPORTED, f"{what} is not permitted when stream is capturing")

    def _shuffled(self) -> list[Stream]:
        streams = list(self._streams)
        if self._random is not None:
            self._random.shuffle(streams)
        return streams

    def _run_ahead(self) -> None:
        if self._random is not None:
            for stream in self._shuffled():
                if self._random.random() < _RUN_AHEAD:
                    self._run(stream, self._random.randint(stream.done, stream.enqueued))

    def _run(self, stream: Stream, place: int) -> None:
        while stream.done < place:
            work = stream.waiting.popleft()
            # Counted first: work that fails is over, and the work behind it goes on.
            stream.done += 1
            # Work may wait for another stream, which runs meanwhile.
            outer, self._running = self._running, stream
            try:
                work.run()
            finally:
                self._running = outer
