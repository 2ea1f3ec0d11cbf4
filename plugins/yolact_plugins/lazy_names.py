"""Public names of a package that are loaded when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yolact_plugins.errors import MissingDependencyError

__all__ = ["lazy_names"]


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]], namespace: dict[str, Any], extra: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package whose names are loaded on demand.

    Args:
        package: Name of the package.
        modules: Module to the public names that it defines.
        namespace: Globals of the package, which keep what was loaded.
        extra: The extra of this project that installs what the modules import; a missing package raises
            :class:`~yolact_plugins.errors.MissingDependencyError` with it.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(module_of[name]), name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("yolact_"):
                raise
            raise MissingDependencyError(error.name.partition(".")[0], f"{package}.{name}", extra) from error
        namespace[name] = value
        return value

    def names() -> list[str]:
        return sorted({*namespace, *module_of})

    return load, names
