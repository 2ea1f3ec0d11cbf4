"""Streams, events and captures of the simulated GPU: queues of work that runs when something waits for it."""

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
    """One operation of a stream, and the memory that it uses."""

    run: Callable[[], object]
    what: str
    ranges: tuple[Range, ...] = ()


@dataclass(eq=False)
class Capture:
    """Work that a stream adds to a graph instead of running it. `mode` is a name of cuda.h, in lower case."""

    mode: str
    thread: int = field(default_factory=threading.get_ident)
    works: list[Work] = field(default_factory=list)
    invalid: bool = False

    def concerns_this_thread(self) -> bool:
        """Return whether calls on this thread may invalidate the capture."""
        return self.mode == "global" or (self.mode == "thread_local" and self.thread == threading.get_ident())


@dataclass(eq=False)
class Stream:
    """Pending work; places in it count operations since it was made. `is_default`: it always exists."""

    waiting: deque[Work] = field(default_factory=deque)
    enqueued: int = 0
    done: int = 0
    capture: Capture | None = None
    is_default: bool = False
    is_closed: bool = False


@dataclass(eq=False)
class Event:
    """A place in a stream, after a number of operations; or one in a capture, for which nothing outside can wait."""

    timing: bool = True
    stream: Stream | None = None
    place: int = 0
    capture: Capture | None = None


class HostStreams:
    """All streams of the simulated GPU.

    Args:
        order: Seed of the execution order: 0 only runs what is waited for. Any other seed lets streams run ahead at
            random whenever something is enqueued, queried or waited for.
    """

    def __init__(self, order: int = 0) -> None:
        self._streams: list[Stream] = []
        self._random = random.Random(order) if order else None
        self._running: Stream | None = None

    def add(self, stream: Stream) -> Stream:
        """Add a new stream and return it."""
        self._streams.append(stream)
        return stream

    def close(self, stream: Stream) -> None:
        """Close a stream to new work. Pending work still runs in order; closing does not wait for it."""
        stream.is_closed = True
        self._streams = [each for each in self._streams if each.waiting or not each.is_closed]

    def enqueue(self, stream: Stream, work: Work) -> None:
        """Append work to the stream, or to what it captures."""
        if stream.capture is not None:
            self._require_valid(stream.capture)
            stream.capture.works.append(work)
            return
        stream.waiting.append(work)
        stream.enqueued += 1
        self._run_ahead()

    def waiting(self) -> Iterator[Work]:
        """Yield all work that has not run yet."""
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
        """Set the event to the present end of the stream's work."""
        if stream.capture is not None:
            self._require_valid(stream.capture)
        event.stream, event.place, event.capture = stream, stream.enqueued, stream.capture

    def mark(self, event: Event) -> None:
        """Set the event to the end of the running work; called by the work of a graph."""
        assert self._running is not None
        event.stream, event.place, event.capture = self._running, self._running.done, None

    def wait(self, stream: Stream, event: Event) -> None:
        """Make later work of the stream wait for the event as it is now."""
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
        """Run the work that the event stands for; none if it was never recorded."""
        self._require_uncaptured(event)
        if event.stream is not None:
            self._run_ahead()
            self._run(event.stream, event.place)

    def reached(self, event: Event) -> bool:
        """Return whether the event's place is reached; if not, run the work so that the next call returns True."""
        self._require_uncaptured(event)
        if event.stream is None:
            return True
        self._run_ahead()
        was_reached = event.stream.done >= event.place
        self._run(event.stream, event.place)
        return was_reached

    def place_of(self, stream: Stream) -> Event:
        """Return the present end of a stream's work."""
        if stream.capture is not None:
            self._spoil(stream.capture, "asking a stream")
        return Event(stream=stream, place=stream.enqueued)

    def begin_capture(self, stream: Stream, mode: str) -> None:
        """Capture the stream's work from now on."""
        if stream.is_default:
            raise HostGpuError(Status.CAPTURE_UNSUPPORTED, "the default stream cannot be captured")
        if stream.capture is not None:
            raise HostGpuError(Status.ILLEGAL_STATE, "the stream is capturing already")
        stream.capture = Capture(mode)

    def end_capture(self, stream: Stream) -> list[Work]:
        """End the capture and return its work; the stream is as it was before."""
        capture = stream.capture
        if capture is None:
            raise HostGpuError(Status.ILLEGAL_STATE, "the stream is not capturing")
        if capture.mode != "relaxed" and capture.thread != threading.get_ident():
            raise HostGpuError(Status.CAPTURE_WRONG_THREAD, "another thread began the capture")
        stream.capture = None
        self._require_valid(capture)
        return capture.works

    def refuse_while_capturing(self, what: str) -> None:
        """End the captures that a call could spoil, as some calls do."""
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
