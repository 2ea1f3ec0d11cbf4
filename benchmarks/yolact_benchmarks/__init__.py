"""Benchmarks: side-by-side speed and memory, written to records."""

from yolact_plugins import __version__

__all__ = ["__version__"]
