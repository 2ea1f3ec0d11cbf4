"""Random changes of bytes and of JSON documents, each with a short description."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

__all__ = ["HOSTILE_VALUES", "mutate_bytes", "mutate_json"]

_MISSING = object()
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, False, "", "abc", "\x1b[2J\nerror: x", "\ud800", "a" * 70_000, 0, -1, 1, 2, 0.5, -0.0, 1e-45, 1e38,
    1e300, float("nan"), float("inf"), float("-inf"), 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    10**18, 10**30, -(2**63), [], {}, [[[[1]]]], [0] * 10_000, {"a": {"b": 1}},
)  # fmt: skip


def mutate_bytes(content: bytes, rng: random.Random, begin: int = 0, end: int | None = None) -> tuple[str, bytes]:
    """Change bytes within a range.

    Args:
        content: Content of a file.
        rng: Random generator that chooses the change.
        begin: Index of the first byte that may change.
        end: Index behind the last byte that may change; None stands for the end of the content.

    Returns:
        Description of the change, and the changed content, which may happen to equal the original.
    """
    end = len(content) if end is None else end
    name = rng.choice(list(_OF_BYTES))
    first = rng.randrange(begin, max(end, begin + 1))
    size = min(rng.choice((1, 2, 8, 64, 4096)), len(content) - first)
    return f"{name} at {first}", _OF_BYTES[name](content, first, size, rng)


def _flip(content: bytes, first: int, size: int, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for place in range(first, first + min(size, 8)):
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


_OF_BYTES: dict[str, Callable[[bytes, int, int, random.Random], bytes]] = {
    "bits flipped": _flip,
    "noise": lambda content, first, size, rng: content[:first] + rng.randbytes(size) + content[first + size :],
    "zeros": lambda content, first, size, _: content[:first] + bytes(size) + content[first + size :],
    "cut off": lambda content, first, *_: content[:first],
    "cut out": lambda content, first, size, _: content[:first] + content[first + size :],
    "doubled": lambda content, first, size, _: content[: first + size] + content[first:],
    "inserted": lambda content, first, size, rng: content[:first] + rng.randbytes(size) + content[first:],
    "swapped": lambda content, first, size, _: (
        content[:first] + content[first + size : first + 2 * size] + content[first : first + size]
        + content[first + 2 * size :]
    ),
}  # fmt: skip


def mutate_json(document: Any, rng: random.Random) -> tuple[str, Any]:
    """Change one value of a parsed document: replace, remove, duplicate or rename it, or alter a number slightly.

    Returns:
        Description of the change, and the changed copy.
    """
    changed = copy.deepcopy(document)
    path = rng.choice(list(_paths(changed)))
    parent = changed
    for step in path[:-1]:
        parent = parent[step]
    key = path[-1]
    value = rng.choice(_neighbours(parent[key]) if rng.random() < 0.5 else [_MISSING, *HOSTILE_VALUES])
    shown = "/".join(map(str, path))
    if value is _MISSING:
        del parent[key]
        return f"{shown} missing", changed
    if isinstance(parent, dict) and rng.random() < 0.05:
        parent[f"{key}2"] = parent.pop(key)
        return f"{shown} under another key", changed
    parent[key] = value
    return f"{shown} = {str(value)[:40]!r}", changed


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _paths(item, (*path, key))
    return found


def _neighbours(value: Any) -> list[Any]:
    """Return plausible wrong values of the same kind."""
    if isinstance(value, bool) or value is None:
        return [not value, int(bool(value)), str(value)]
    if isinstance(value, int | float):
        return [value + 1, value - 1, value * 2, value * 1000, -value, float(value), str(value), [value]]
    if isinstance(value, str):
        return [value.upper(), value[:-1], value + "x", "../" + value, "/etc/passwd", [value]]
    if isinstance(value, list):
        return [[*value, *value], value[:-1], value[::-1], value * 50, dict(enumerate(map(str, value)))]
    return [[value], dict(list(value.items())[:-1])]
