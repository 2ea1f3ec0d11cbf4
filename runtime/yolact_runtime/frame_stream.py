"""A stream of frames: the next one is begun while the one before is still on its way; results come in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

from yolact_runtime.frame_path import FramePath
from yolact_runtime.masks.instances import Instances

__all__ = ["stream_frames"]

_PATIENCE_S = 1.0


class _Started(NamedTuple):
    ticket: Any


class _Ended(NamedTuple):
    """No more frames: the source is exhausted, or failed with an error."""

    error: BaseException | None


def stream_frames(path: FramePath, frames: Iterable[Any], frames_in_flight: int) -> Generator[Instances, None, None]:
    """Instances of each frame, in order.

    A thread takes frames from the source, one only when there is room to begin with it at once, so that a camera's
    frame is fresh when it is taken: at most `frames_in_flight` are begun and not yet delivered. A result is delivered
    as soon as it is there, not when the next frame comes.

    When the consumer stops early and closes the generator, frames in flight are discarded, and the thread is given a
    second to end; a source that blocks for longer, such as a camera without frames, is left alone when it returns.

    Args:
        path: Of the model.
        frames: Iterated in another thread. A frame in host memory may be changed once the next one is asked for.
        frames_in_flight: At least 1, which overlaps nothing.

    Raises:
        Exception: Whatever the source raises, after the results of the frames before; and what the path raises.
    """
    reader = _Reader(path, frames, frames_in_flight)
    reader.begin()
    try:
        while True:
            event = reader.events.get()
            if isinstance(event, _Ended):
                if event.error is not None:
                    raise event.error
                return
            instances = path.collect(event.ticket)
            reader.room.release()
            yield instances
    finally:
        reader.stop()


class _Reader:
    """The thread that takes frames and begins with them.

    Attributes:
        events: In order: what was started, and the end.
        room: How many more frames may be begun.
    """

    def __init__(self, path: FramePath, frames: Iterable[Any], frames_in_flight: int) -> None:
        self._path = path
        self._frames = frames
        self.events: queue.SimpleQueue[_Started | _Ended] = queue.SimpleQueue()
        self.room = threading.Semaphore(frames_in_flight)
        self._stopped = False
        self._lock = threading.Lock()
        # A daemon: it may be waiting for a camera that gives no frame any more, and must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="yolact-stream", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Discard what is in flight; the thread discards what it may still begin with."""
        with self._lock:
            self._stopped = True
            while not self.events.empty():
                event = self.events.get()
                if isinstance(event, _Started):
                    self._path.discard(event.ticket)
        self.room.release()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._read()
        except BaseException as raised:  # handed to the consumer, whose thread raises it
            error = raised
        self.events.put(_Ended(error))

    def _read(self) -> None:
        source = iter(self._frames)
        while True:
            self.room.acquire()
            if self._stopped:
                return
            try:
                frame = next(source)
            except StopIteration:
                return
            if self._stopped:
                return
            self._hand_over(self._path.start(frame))

    def _hand_over(self, ticket: Any) -> None:
        with self._lock:
            if not self._stopped:
                self.events.put(_Started(ticket))
                return
        self._path.discard(ticket)
