"""Types and errors in the public surface of a package: types in annotations, exceptions in docstrings."""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["PACKAGES", "documented_errors", "mentioned_types", "public_names"]

PACKAGES = ("yolact_plugins", "yolact_runtime", "yolact_calibration", "yolact_export", "yolact_benchmarks")
# Special methods that people call by using an object.
_CALLED = ("__init__", "__call__", "__getitem__", "__iter__", "__next__", "__enter__", "__len__")
_RAISES = re.compile(r"^( *)Raises:\n((?:\1 .*\n?|\s*\n)+)", re.MULTILINE)


def public_names(module: ModuleType) -> dict[str, Any]:
    """Return the objects in a module's ``__all__`` by name."""
    return {name: getattr(module, name) for name in module.__all__}


def mentioned_types(thing: Any) -> Iterator[tuple[str, type]]:
    """Yield each class of this project in the public signatures of a class or function, with its place."""
    for where, hints in _annotations(thing):
        for hint in hints:
            yield from ((where, found) for found in _classes(hint) if found.__module__.startswith("yolact_"))


def documented_errors(thing: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each exception under "Raises:" in the docstrings of a class or function, with its place."""
    for where, member in [(thing.__qualname__, thing), *_members(thing)]:
        for _, section in _RAISES.findall(inspect.cleandoc(member.__doc__ or "") + "\n"):
            indent = min(len(line) - len(line.lstrip()) for line in section.splitlines() if line.strip())
            for names in re.findall(rf"^ {{{indent}}}([\w, ]+):", section, re.MULTILINE):
                yield from ((where, name.strip()) for name in names.split(","))


def is_builtin(name: str) -> bool:
    """Return whether Python itself has an exception of that name."""
    return isinstance(getattr(builtins, name, None), type)


def _members(thing: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(thing, type):
        return
    for name, member in vars(thing).items():
        if not name.startswith("_") or name in _CALLED:
            member = getattr(member, "__func__", member)  # a class method
            if isinstance(member, FunctionType | property):
                yield f"{thing.__qualname__}.{name}", member


def _annotations(thing: Any) -> Iterator[tuple[str, list[Any]]]:
    scope = _scope(thing)
    if isinstance(thing, type) and issubclass(thing, BaseException):
        return
    if isinstance(thing, type):
        own = vars(thing).get("__annotations__", {})
        public = {name: hint for name, hint in typing.get_type_hints(thing, scope, scope).items() if name in own}
        yield thing.__qualname__, [hint for name, hint in public.items() if not name.startswith("_")]
    elif isinstance(thing, FunctionType):
        yield thing.__qualname__, list(typing.get_type_hints(thing, scope).values())
    for where, member in _members(thing):
        function = member.fget if isinstance(member, property) else member
        # The __init__ of a dataclass has the annotations of its fields.
        if function.__module__.startswith("yolact_"):
            yield where, list(typing.get_type_hints(function, scope).values())


def _scope(thing: Any) -> dict[str, Any]:
    """Return the names of the module, and the public ones that only a type checker imports there."""
    # Packages below are included; those above may not be installed.
    known = PACKAGES[: PACKAGES.index(thing.__module__.partition(".")[0]) + 1]
    public = {name: found for package in known for name, found in _names_of(package).items()}
    here = vars(importlib.import_module(thing.__module__))
    return {"supervision": importlib.import_module("supervision"), **public, **here}


@functools.cache
def _names_of(package: str) -> dict[str, Any]:
    return public_names(importlib.import_module(package))


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        if not isinstance(part, str | int):
            yield from _classes(part)
