"""Table of handles: the numbers by which a program names the objects of the simulated GPU."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

from support.host_gpu.faults import HostGpuError, Status

__all__ = ["Handles"]

Kind = TypeVar("Kind")


class Handles:
    """Table of handles, which are never reused, so that a released handle stays invalid."""

    def __init__(self) -> None:
        self._numbers = itertools.count(0x1000, 0x10)
        self._things: dict[int, Any] = {}
        self._permanent: dict[int, Any] = {}

    def put(self, thing: object) -> int:
        """Return a handle for a new object."""
        handle = next(self._numbers)
        self._things[handle] = thing
        return handle

    def put_permanent(self, thing: object, *handles: int) -> None:
        """Register an object that always exists, under its known numbers."""
        self._permanent |= dict.fromkeys(handles, thing)

    def get(self, handle: Any, kind: type[Kind]) -> Kind:
        """Return the object of a handle."""
        number = int(handle)
        thing = self._things.get(number, self._permanent.get(number))
        if not isinstance(thing, kind):
            raise HostGpuError(Status.INVALID_HANDLE, f"{number:#x} is not a {kind.__name__}, or no longer one")
        return thing

    def drop(self, handle: Any, kind: type[Kind]) -> Kind:
        """Remove a handle and return its object."""
        thing = self.get(handle, kind)
        if int(handle) not in self._things:
            raise HostGpuError(Status.INVALID_HANDLE, f"{int(handle):#x} cannot be given back")
        del self._things[int(handle)]
        return thing

    def live(self) -> list[str]:
        """Return the types of the objects that were not released, in the order in which they were made."""
        return [type(thing).__name__ for thing in self._things.values()]
