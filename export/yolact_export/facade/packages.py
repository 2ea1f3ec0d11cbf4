"""Packages that a command needs, asked for before any work is done."""

from __future__ import annotations

import importlib.util

from yolact_export.errors import MissingDependencyError

__all__ = ["require_packages"]


def require_packages(command: str, extra: str, *packages: str) -> None:
    """Raise MissingDependencyError for the first of the packages that is not installed."""
    for package in packages:
        if not _is_installed(package):
            raise MissingDependencyError(package, command, extra)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False
