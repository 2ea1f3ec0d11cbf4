"""Nested containers in the content of a checkpoint file: dictionaries, lists and tuples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["mappings_in"]


def mappings_in(content: object) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield every dictionary in `content`, outer ones first, with the keys and positions that lead to it.

    Each object is yielded once, so that recursive containers terminate.
    """
    seen: set[int] = set()
    level: list[tuple[tuple[str, ...], object]] = [((), content)]
    while level:
        inner: list[tuple[tuple[str, ...], object]] = []
        for path, value in level:
            if id(value) in seen:
                continue
            if isinstance(value, Mapping):
                seen.add(id(value))
                yield path, value
                inner += [((*path, str(key)), item) for key, item in value.items()]
            elif isinstance(value, list | tuple):
                seen.add(id(value))
                inner += [((*path, str(number)), item) for number, item in enumerate(value)]
        level = inner
