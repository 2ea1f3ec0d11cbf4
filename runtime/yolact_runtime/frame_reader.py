"""The thread of a stream, which takes frames from a source and starts processing them."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from yolact_runtime.errors import BackendError, SourceTimeoutError
from yolact_runtime.frame_path import FramePath
from yolact_runtime.masks.instances import Instances

__all__ = ["Ended", "FrameReader", "Started"]

_log = logging.getLogger(__name__)


class Started(NamedTuple):
    """The event that a frame was started; it is collected, or discarded, once."""

    collect: Callable[[], Instances]
    discard: Callable[[], None]


class Ended(NamedTuple):
    """The event that there are no more frames.

    The source is exhausted or failed with an error, or the stream was ended.
    """

    error: BaseException | None


class FrameReader:
    """A thread that starts processing the frames of a source.

    Every method may be called from any thread, from a signal handler and from the garbage collector, which may run in
    the middle of a method of the same object. Hence a reentrant lock, and SimpleQueue, whose ``put`` is designed for
    that; a Semaphore is not.

    Args:
        path: The frame pipeline.
        frames: The source of frames.
        frames_in_flight: Maximum number of frames that are started and not yet collected.
    """

    def __init__(self, path: FramePath, frames: Iterable[Any], frames_in_flight: int) -> None:
        # Both are released when the stream ends, even while the thread still waits for the source.
        self._path: FramePath | None = path
        self._frames: Iterable[Any] | None = frames
        self._events: queue.SimpleQueue[Started | Ended] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(frames_in_flight):
            self._room.put(None)
        self._asked_at: float | None = None
        self._stopped = self._finished = False
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    @property
    def stopped(self) -> bool:
        """Whether the stream was ended from outside."""
        return self._stopped

    def begin(self) -> None:
        """Start the thread, once, unless the stream has ended.

        Raises:
            BackendError: The thread was started before this process was forked, and runs in the parent.
        """
        if self._is_left_behind():
            if self._stopped:
                return
            raise BackendError(
                f"this stream was started in process {self._process}, and this is a fork of it, without the thread "
                f"that takes frames: call Segmenter.stream after the fork"
            )
        with self._lock:
            if self._thread is None and not self._stopped:
                # A daemon: it may wait for a camera that delivers no more frames, and must not keep the process alive.
                self._thread = threading.Thread(target=self._run, name="yolact-stream", daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float | None) -> Started | Ended:
        """Return the next event; the error of an end is returned once, and later calls return an end without it.

        Raises:
            SourceTimeoutError: Nothing is in flight, and the source has not returned a frame for this time.
        """
        if self._is_left_behind():
            return Ended(None)
        with self._lock:
            if self._finished:
                return Ended(None)
        event = self._next_event(timeout_s)
        if isinstance(event, Ended):
            with self._lock:
                self._finished = True
            # For other waiting threads.
            self._events.put(Ended(None))
            return event
        return Started(partial(self._collected, event.collect), event.discard)

    def end(self, error: BaseException | None = None) -> None:
        """Discard frames in flight, and notify the consumer; the thread discards frames that it still starts."""
        if self._is_left_behind():
            # The lock may be held by a thread of the parent process, where the frames in flight are, too.
            self._stopped = True
            return
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            self._path = self._frames = None
            waiting = self._drain()
            self._events.put(Ended(error))
        self._room.put(None)
        for event in waiting:
            _discard(event)

    def join(self, patience_s: float) -> None:
        """Give the thread some time to end, unless this is the thread."""
        thread = self._thread
        # Ctrl-C, or a signal handler, may interrupt while the thread is being started.
        if thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join(patience_s)

    def _is_left_behind(self) -> bool:
        """Return whether this is a forked process whose parent has the thread."""
        return self._thread is not None and os.getpid() != self._process

    def _next_event(self, timeout_s: float | None) -> Started | Ended:
        if timeout_s is None:
            return self._events.get()
        while True:
            asked_at = self._asked_at
            left_s = timeout_s if asked_at is None else asked_at + timeout_s - time.monotonic()
            try:
                return self._events.get(timeout=max(left_s, 0.0))
            except queue.Empty:
                # Still the same request: the clock of another frame began later.
                if asked_at is not None and self._asked_at == asked_at and time.monotonic() >= asked_at + timeout_s:
                    self.end()
                    raise SourceTimeoutError(
                        f"the source of this stream delivered no frame for {timeout_s:g} s. Check that the camera is "
                        f"connected and sends; its thread is left alone, and takes no further frame"
                    ) from None

    def _collected(self, collect: Callable[[], Instances]) -> Instances:
        instances = collect()
        self._room.put(None)
        return instances

    def _drain(self) -> list[Started]:
        waiting = []
        # A waiting consumer takes events without the lock, so nothing here may wait for an event.
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, Started):
                    waiting.append(event)
        return waiting

    def _run(self) -> None:
        error: BaseException | None = None
        source: Iterator[Any] | None = None
        try:
            frames, self._frames = self._frames, None
            if frames is not None:
                self._asked_at = time.monotonic()
                source = iter(frames)
                del frames
                self._read(source)
        except BaseException as raised:  # handed to the consumer, whose thread raises it
            error = raised
        self._asked_at = None
        with self._lock:
            self._path = None
            if not self._stopped:
                self._events.put(Ended(error))
            elif error is not None:
                _log.debug("a stream that was closed ended with %s: %s", type(error).__name__, error)
        # The traceback of the error refers to this frame, which must not refer to the error.
        error = None
        _close_source(source)

    def _read(self, source: Iterator[Any]) -> None:
        while True:
            self._asked_at = None
            self._room.get()
            if self._stopped:
                return
            self._asked_at = time.monotonic()
            try:
                frame = next(source)
            except StopIteration:
                return
            path = self._path
            if path is None:
                return
            self._asked_at = None
            ticket = path.start(frame)
            # While the source is asked for the next frame, this one must not be referenced.
            del frame
            self._hand_over(Started(partial(path.collect, ticket), partial(path.discard, ticket)))
            del path, ticket

    def _hand_over(self, event: Started) -> None:
        with self._lock:
            if not self._stopped:
                self._events.put(event)
                return
        _discard(event)


def _discard(event: Started) -> None:
    """Discard a frame of a closed stream; its failure is only logged."""
    try:
        event.discard()
    except Exception as error:
        _log.warning("a frame of a stream that was closed failed: %s", error)


def _close_source(source: Iterator[Any] | None) -> None:
    """Close a generator on the thread that iterated it, where its ``with`` and ``finally`` blocks belong."""
    if not isinstance(source, Generator):
        return
    try:
        source.close()
    except BaseException as error:  # of another's code, on a thread where nobody could catch it
        _log.warning("the source of a stream failed when it was closed: %s: %s", type(error).__name__, error)
