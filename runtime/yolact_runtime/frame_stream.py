"""Streams of frames: the next frame is started while the last one is still being processed; results come in order."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from yolact_runtime.errors import SourceTimeoutError, UsageError
from yolact_runtime.frame_path import FramePath
from yolact_runtime.frame_reader import Ended, FrameReader
from yolact_runtime.masks.instances import Instances

__all__ = ["FrameStream"]

_log = logging.getLogger(__name__)
# Maximum time that `close` waits for a source that is about to return a frame.
_PATIENCE_S = 1.0
# Longer than any useful timeout for a camera; larger values were meant in another unit, and None waits forever.
_MAX_TIMEOUT_S = 86400.0


class FrameStream(Iterator[Instances]):
    """Iterator of the instances of each frame, in order. :meth:`Segmenter.stream` returns it.

    Use it in a ``for`` loop, and as a context manager where the loop may end early. After its last result, after an
    error and after :meth:`close` it is exhausted.

    A thread takes frames from the source, each only when work on it can begin at once, so that a camera's frame is
    fresh: at most `frames_in_flight` frames are started and not yet delivered. A result is delivered as soon as it is
    there, not when the next frame comes. If the stream ends before its source, a source that is a generator is closed,
    by the thread that iterates it and once it has returned its frame; any other source belongs to the caller.

    Example:
        ```python
        with segmenter.stream(camera, timeout_s=5) as results:
            for instances in results:
                ...
        ```

    Args:
        path: The frame pipeline of a segmenter.
        frames: The source, iterated in another thread from the first ``next()`` on. A frame in host memory may be
            changed once the next one is asked for.
        frames_in_flight: Frames that are processed at once; 1 overlaps nothing.
        timeout_s: Longest time that the source may take for a frame, in seconds, above 0 and up to a day; None waits
            for ever.

    Raises:
        UsageError: The timeout is not such a number.
    """

    def __init__(
        self, path: FramePath, frames: Iterable[Any], frames_in_flight: int, timeout_s: float | None = None
    ) -> None:
        self._timeout_s = _checked_timeout(timeout_s)
        self._reader = FrameReader(path, frames, frames_in_flight)

    def __iter__(self) -> FrameStream:
        return self

    def __next__(self) -> Instances:
        """Wait for the instances of the next frame, which the caller owns.

        Raises:
            StopIteration: The source is exhausted, or the stream was closed, perhaps during this call.
            SourceTimeoutError: The source gave no frame for `timeout_s`; frames that were started are delivered first.
            Exception: What the source raises, after the results of the frames before, and what the frame pipeline
                raises. The stream ends with it.
        """
        reader = self._reader
        try:
            reader.begin()
            while True:
                event = reader.wait(self._timeout_s)
                if isinstance(event, Ended):
                    break
                instances = _collect(reader, event.collect)
                if instances is not None:
                    return instances
        except SourceTimeoutError:
            # The stream has ended; waiting for the thread would mean waiting for the source.
            raise
        except BaseException:
            self.close()
            raise
        try:
            if event.error is not None:
                raise event.error
        finally:
            # The traceback of the error refers to this frame, which must not refer to the error.
            del event
        raise StopIteration

    def close(self) -> None:
        """End the stream. May be called again, and from any thread, also while another one waits in ``next()``.

        Frames in flight are discarded, and a consumer that waits gets StopIteration, whatever became of its frame. The
        thread that takes frames has a second to end. If the source blocks for longer, as a camera without frames does,
        the thread takes no further frame and ends when the source returns.
        """
        self._reader.end()
        self._reader.join(_PATIENCE_S)

    def end(self, error: BaseException) -> None:
        """End the stream without waiting; a consumer that waits, or comes later, gets the error once."""
        self._reader.end(error)

    def __enter__(self) -> FrameStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # A loop that breaks out of an unnamed stream cannot close it. No waiting here: the garbage collector runs on
        # any thread.
        reader = getattr(self, "_reader", None)
        if reader is not None and not _is_finalizing():
            reader.end()


def _collect(reader: FrameReader, collect: Callable[[], Instances]) -> Instances | None:
    """Return the frame's instances; None if the stream was closed meanwhile, whose end is the next event."""
    try:
        instances = collect()
    except Exception as error:
        if not reader.stopped:
            raise
        _log.debug("a frame of a closed stream failed: %s", error)
        return None
    return None if reader.stopped else instances


def _checked_timeout(timeout_s: float | None) -> float | None:
    if timeout_s is None:
        return None
    try:
        seconds = None if isinstance(timeout_s, bool | str | bytes) else float(timeout_s)
    except (TypeError, ValueError, OverflowError):
        seconds = None
    if seconds is None or not 0 < seconds <= _MAX_TIMEOUT_S:
        raise UsageError(
            f"timeout_s must be a number of seconds above 0 and at most {_MAX_TIMEOUT_S:.0f}, or None to wait "
            f"forever; found {timeout_s!r}"
        )
    return seconds
