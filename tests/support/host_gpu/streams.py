"""Streams, events and graphs of the host's GPU: queues of work that run when somebody waits for them."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from support.host_gpu.memory import HostGpuError

__all__ = ["Event", "HostStreams", "Stream"]

CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, INVALID_HANDLE = 900, 901, 400
Work = Callable[[], None]


@dataclass
class Stream:
    """Work that waits; numbers count works since the stream was made."""

    waiting: deque[Work] = field(default_factory=deque)
    enqueued: int = 0
    done: int = 0
    captured: list[Work] | None = None
    capturing_thread: int = 0
    invalid: bool = False


@dataclass
class Event:
    """A place in a stream: after so many works of it."""

    stream: Stream | None = None
    place: int = 0


class HostStreams:
    """All streams.

    Args:
        order: 0 runs what is waited for and nothing else; other seeds let other streams run ahead at random.
    """

    def __init__(self, order: int = 0) -> None:
        self.all: dict[int, Stream] = {}
        self._random = random.Random(order) if order else None

    def enqueue(self, stream: Stream, work: Work) -> None:
        """At the end of the stream, or of what is being captured."""
        if stream.captured is not None:
            stream.captured.append(work)
            return
        stream.waiting.append(work)
        stream.enqueued += 1

    def run(self, stream: Stream, place: int) -> None:
        """Until so many works are done."""
        if self._random is not None:
            for other in list(self.all.values()):
                if other is not stream and self._random.random() < 0.5:
                    self._run(other, self._random.randint(other.done, other.enqueued))
        self._run(stream, place)

    def record(self, event: Event, stream: Stream) -> None:
        """The event is where the stream's work ends now."""
        if stream.captured is not None:
            stream.captured.append(lambda: None)
            return
        event.stream, event.place = stream, stream.enqueued

    def wait(self, stream: Stream, event: Event) -> None:
        """What comes later in the stream waits for the event as it is now."""
        other, place = event.stream, event.place
        if other is not None:
            self.enqueue(stream, lambda: self._run(other, place))

    def reached(self, event: Event) -> bool:
        """Without waiting; sometimes work goes on meanwhile."""
        if event.stream is None:
            return True
        if self._random is not None and self._random.random() < 0.5:
            self._run(event.stream, event.place)
        return event.stream.done >= event.place

    def begin_capture(self, stream: Stream) -> None:
        stream.captured, stream.invalid = [], False
        stream.capturing_thread = threading.get_ident()

    def end_capture(self, stream: Stream) -> list[Work]:
        works, stream.captured = stream.captured, None
        if works is None or stream.invalid:
            raise HostGpuError(CAPTURE_INVALIDATED, "operation failed due to a previous error during capture")
        return works

    def refuse_while_capturing(self, what: str) -> None:
        """Some calls end a capture of the thread that makes them."""
        me = threading.get_ident()
        for stream in self.all.values():
            if stream.captured is not None and stream.capturing_thread == me:
                stream.invalid = True
                raise HostGpuError(CAPTURE_UNSUPPORTED, f"{what} is not permitted when stream is capturing")

    def _run(self, stream: Stream, place: int) -> None:
        while stream.done < place:
            work = stream.waiting.popleft()
            stream.done += 1
            work()
