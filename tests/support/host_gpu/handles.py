"""Handles: the numbers by which a program names what the host's GPU has made for it."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

from support.host_gpu.faults import HostGpuError, Status

__all__ = ["Handles"]

Kind = TypeVar("Kind")


class Handles:
    """Numbers are never used twice, so that a handle which was given back stays nobody's."""

    def __init__(self) -> None:
        self._numbers = itertools.count(0x1000, 0x10)
        self._things: dict[int, Any] = {}
        self._permanent: dict[int, Any] = {}

    def put(self, thing: object) -> int:
        """A handle for something new."""
        handle = next(self._numbers)
        self._things[handle] = thing
        return handle

    def put_permanent(self, thing: object, *handles: int) -> None:
        """Something that is there without having been made, under its known numbers."""
        self._permanent |= dict.fromkeys(handles, thing)

    def get(self, handle: Any, kind: type[Kind]) -> Kind:
        """What a handle stands for."""
        number = int(handle)
        thing = self._things.get(number, self._permanent.get(number))
        if not isinstance(thing, kind):
            raise HostGpuError(Status.INVALID_HANDLE, f"{number:#x} is not a {kind.__name__}, or no longer one")
        return thing

    def drop(self, handle: Any, kind: type[Kind]) -> Kind:
        """Forget a handle; returns what it stood for."""
        thing = self.get(handle, kind)
        if int(handle) not in self._things:
            raise HostGpuError(Status.INVALID_HANDLE, f"{int(handle):#x} cannot be given back")
        del self._things[int(handle)]
        return thing

    def live(self) -> list[str]:
        """Kinds of what was not given back, in the order in which it was made."""
        return [type(thing).__name__ for thing in self._things.values()]
