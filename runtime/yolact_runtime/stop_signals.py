"""SIGINT and SIGTERM: exceptions that unwind a command, deferred while something is being finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

__all__ = ["Terminated", "hold_stop", "name_of_stop", "raise_stops"]


class Terminated(SystemExit):
    """The exception for SIGTERM, with which services and containers are stopped."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class _Stops:
    """The signals received so far.

    Attributes:
        count: Number of signals.
        held: Whether signals are deferred.
        waiting: The deferred signal.
        patience_s: Maximum time to defer it, in seconds; None means no limit.
        timer: Timer that sends the second signal after that time.
    """

    def __init__(self) -> None:
        self.count = 0
        self.held = False
        self.waiting: int | None = None
        self.patience_s: float | None = None
        self.timer: threading.Timer | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        """Raise at once, or at the end of the block that defers the first signal; the second one is never deferred."""
        self.count += 1
        if self.held and self.count == 1:
            self.waiting = number
            if self.patience_s is not None:
                # To the main thread, whose call it interrupts.
                again = partial(signal.pthread_kill, threading.get_ident(), number)
                self.timer = threading.Timer(self.patience_s, again)
                self.timer.daemon = True
                self.timer.start()
        else:
            self.release()
            _raise(number)

    def release(self) -> int | None:
        """Forget the deferred signal, and return it."""
        if self.timer is not None:
            self.timer.cancel()
        number, self.waiting, self.timer = self.waiting, None, None
        return number


_stops = _Stops()


def _raise(number: int) -> None:
    if number == signal.SIGTERM:
        raise Terminated
    raise KeyboardInterrupt


@contextmanager
def raise_stops() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM and KeyboardInterrupt on SIGINT inside the block, unless they are ignored.

    Nothing changes outside the main thread, where Python allows no handlers.
    """
    global _stops
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _stops = _stops, _Stops()
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _stops.receive)}
    if signal.getsignal(signal.SIGINT) in {signal.default_int_handler, outer.receive}:
        # A shell starts background processes with SIGINT ignored, and that stays.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _stops.receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stops = outer


@contextmanager
def hold_stop(patience_s: float | None = None) -> Iterator[None]:
    """Defer the first signal until the end of the block, so that a line or a file is written completely.

    A second signal ends the block at once. Blocks must not be nested.

    Args:
        patience_s: Maximum time to defer the signal, in seconds, for operations that may block forever, such as writing
            to a pipe that is not read; the block then ends as with a second signal. None means no limit.

    Raises:
        KeyboardInterrupt, Terminated: A signal was received inside the block; raised at its end.
    """
    stops = _stops
    stops.held, stops.patience_s = True, patience_s
    try:
        yield
    finally:
        stops.held = False
        number = stops.release()
        if number is not None:
            _raise(number)


def name_of_stop(error: BaseException) -> str | None:
    """Return ``"SIGINT"`` or ``"SIGTERM"`` if such a signal raised `error`, else None."""
    if isinstance(error, Terminated):
        return "SIGTERM"
    return "SIGINT" if isinstance(error, KeyboardInterrupt) else None
