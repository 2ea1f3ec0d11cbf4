"""SIGINT and SIGTERM: exceptions that unwind a command, held back while something is being finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

__all__ = ["Terminated", "hold_stop", "name_of_stop", "raise_stops"]


class Terminated(SystemExit):
    """SIGTERM came, with which services and containers are stopped."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class _Stops:
    """What came so far.

    Attributes:
        count: How many signals came.
        held: Signals are held back.
        waiting: The signal that is held back.
        patience_s: How long it may be held back; None is as long as it takes.
        timer: Sends the second signal when patience ends.
    """

    def __init__(self) -> None:
        self.count = 0
        self.held = False
        self.waiting: int | None = None
        self.patience_s: float | None = None
        self.timer: threading.Timer | None = None

    def receive(self, number: int, _: FrameType | None) -> None:
        """Raise, at once or at the end of the block that holds the first signal back; the second one never waits."""
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
        """Forget the signal that is held back, and return it."""
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
    """Inside the block SIGTERM raises :class:`Terminated`, and SIGINT KeyboardInterrupt, where it is not ignored.

    Nothing changes outside the main thread, where Python allows no handlers.
    """
    global _stops
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer, _stops = _stops, _Stops()
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _stops.receive)}
    if signal.getsignal(signal.SIGINT) in {signal.default_int_handler, outer.receive}:
        # A shell starts what is in the background with SIGINT ignored, and that stays.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _stops.receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stops = outer


@contextmanager
def hold_stop(patience_s: float | None = None) -> Iterator[None]:
    """Hold the first signal back until the end of the block, so that a line or a file is written whole.

    A second signal ends the block at once. Blocks do not lie one inside the other.

    Args:
        patience_s: How long the signal may be held back, for what may wait for ever, such as a pipe that nobody reads;
            the block then ends as by a second signal. None waits as long as it takes.

    Raises:
        KeyboardInterrupt, Terminated: At the end of the block, where a signal came inside.
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
    """``"SIGINT"`` or ``"SIGTERM"`` where such a signal raised `error`, else None."""
    if isinstance(error, Terminated):
        return "SIGTERM"
    return "SIGINT" if isinstance(error, KeyboardInterrupt) else None
