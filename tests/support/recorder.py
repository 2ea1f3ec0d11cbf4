"""A reporter that records what it receives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


class Recorder:
    """A :class:`yolact_runtime.reporter.Reporter` for tests.

    Args:
        on_status: Function called with each status, before it is recorded.

    Attributes:
        told: Kinds and texts, in order. The kind of :meth:`progress` is ``"progress"``, with a text ``"label 2/5"`` for
            each item.
    """

    def __init__(self, on_status: Callable[[str], object] = lambda _: None) -> None:
        self._on_status = on_status
        self.told: list[tuple[str, str]] = []

    @property
    def lines(self) -> list[str]:
        """Permanent lines, including headings, without warnings."""
        return [text for kind, text in self.told if kind in ("say", "heading")]

    @property
    def warnings(self) -> list[str]:
        """Texts of all warnings."""
        return self.of("warn")

    def of(self, kind: str) -> list[str]:
        """Return the texts of one kind."""
        return [text for found, text in self.told if found == kind]

    def say(self, text: str = "") -> None:
        self.told.append(("say", text))

    def heading(self, text: str) -> None:
        self.told.append(("heading", text))

    def warn(self, text: str) -> None:
        self.told.append(("warn", text))

    def status(self, text: str) -> None:
        self._on_status(text)
        self.told.append(("status", text))

    def progress(self, items: Iterable[Item], label: str, total: int | None = None) -> Generator[Item, None, None]:
        for done, item in enumerate(items, 1):
            yield item
            self.told.append(("progress", f"{label} {done}/{total}"))
