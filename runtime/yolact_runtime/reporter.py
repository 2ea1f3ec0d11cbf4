"""Progress reports to a user: one object that every function below the commands accepts.

``logging`` has another audience: it serves programs that embed these packages, and carries errors and warnings. A
:class:`Reporter` serves a user who started an export, a training or a benchmark and watches it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

__all__ = ["SILENT", "ForwardingReporter", "Heartbeat", "LogReporter", "Reporter", "forward", "show_progress"]

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
_LINE_EVERY_S, _STATUS_EVERY_S = 30.0, 0.1
_BAR_WIDTH = 24


class Reporter(Protocol):
    """The messages that a function may send to a waiting user.

    :class:`yolact_runtime.terminal.Terminal` shows it on stderr, :class:`LogReporter` writes it to a logger, and
    :data:`SILENT`, the default everywhere, drops it.
    """

    def say(self, text: str = "") -> None:
        """Write a line that stays."""

    def heading(self, text: str) -> None:
        """Write a line that begins a section."""

    def warn(self, text: str) -> None:
        """Write a warning, which is shown even where all else is hidden. The text has no prefix of its own."""

    def status(self, text: str) -> None:
        """Show the state of the work, in a line that the next one replaces; call it as often as the state changes."""

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:
        """Yield `items` and show how many of `total` are done; close it where ending `items` is work."""
        ...


class Heartbeat:
    """A timer for logs, where no line replaces another: it decides when a line about the work's state is due.

    Args:
        every_s: Seconds without a line after which one is due.
    """

    def __init__(self, every_s: float = _LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._last_s = time.monotonic()

    def reset(self) -> None:
        """Count from now: a line has been written."""
        self._last_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether nothing has been written for that long."""
        return time.monotonic() - self._last_s >= self._every_s


class LogReporter:
    """A reporter that writes to a logger: lines at level INFO, warnings at level WARNING.

    A log keeps every line, so the state of the work is written only when nothing else has been for `every_s` seconds.

    Args:
        logger: The logger that receives the lines.
        every_s: Seconds between two lines about the work's state.
    """

    def __init__(self, logger: logging.Logger, every_s: float = _LINE_EVERY_S) -> None:
        self._logger = logger
        self._heartbeat = Heartbeat(every_s)

    def say(self, text: str = "") -> None:
        """Write a line at level INFO."""
        self._logger.info("%s", text)
        self._heartbeat.reset()

    def heading(self, text: str) -> None:
        """Write a line at level INFO."""
        self.say(text)

    def warn(self, text: str) -> None:
        """Write a line at level WARNING."""
        self._logger.warning("%s", text)
        self._heartbeat.reset()

    def status(self, text: str) -> None:
        """Write a line at level INFO if none has been written for a while."""
        if text and self._heartbeat.is_due:
            self.say(text)

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:
        """Yield `items`; now and then write a line that counts them."""
        return show_progress(items, label, total, self.status)


class ForwardingReporter:
    """A reporter for a process of its own, which sends everything to the process that the person watches.

    Args:
        send: Function of a message's kind, which is the name of a method of :class:`Reporter`, and of its text;
            :func:`forward` is its counterpart.
    """

    def __init__(self, send: Callable[[str, str], None]) -> None:
        self._send = send

    def say(self, text: str = "") -> None:
        """Send a line that stays."""
        self._send("say", text)

    def heading(self, text: str) -> None:
        """Send a line that begins a section."""
        self._send("heading", text)

    def warn(self, text: str) -> None:
        """Send a warning."""
        self._send("warn", text)

    def status(self, text: str) -> None:
        """Send a line that the next one replaces."""
        self._send("status", text)

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:
        """Yield `items` and send how many of them are done, ten times a second at most."""
        return show_progress(items, label, total, self.status)


def forward(kind: str, text: str, reporter: Reporter) -> None:
    """Tell a reporter what a :class:`ForwardingReporter` has sent.

    Raises:
        KeyError: `kind` is not one of its messages.
    """
    tells = {"say": reporter.say, "heading": reporter.heading, "warn": reporter.warn, "status": reporter.status}
    tells[kind](text)


class _Silent:
    """A reporter that drops everything but warnings, which go to ``logging``."""

    def say(self, text: str = "") -> None:
        pass

    def heading(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        _log.warning("%s", text)

    def status(self, text: str) -> None:
        pass

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:  # noqa: ARG002
        yield from items


SILENT: Reporter = _Silent()
"""Drops everything but warnings, which go to the logger ``yolact_runtime.reporter``."""


def show_progress(
    items: Iterable[Item], label: str, total: int | None, status: Callable[[str], None]
) -> Generator[Item, None, None]:
    """Yield `items`; ten times a second at most, and at the end, show a line that counts them.

    Args:
        items: Items to yield.
        label: Name of the items, for the line.
        total: Number of items; None if unknown.
        status: Function that shows a line.
    """
    began = shown = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown > _STATUS_EVERY_S or done == total:
            shown = now
            status(_progress_line(label, done, total, now - began))


def _progress_line(label: str, done: int, total: int | None, elapsed_s: float) -> str:
    """Return a line with a bar, the counts, the rate and the seconds left; without `total`, with count and rate."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    if total is None:
        return f"{label} {done}  {rate:.1f}/s"
    filled = min(round(_BAR_WIDTH * done / max(total, 1)), _BAR_WIDTH)
    left_s = max(total - done, 0) / rate if rate else 0.0
    return f"{label} [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done}/{total}  {rate:.1f}/s  {left_s:.0f} s left"
