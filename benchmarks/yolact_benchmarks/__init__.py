"""Benchmarks: side-by-side speed and memory, written to records."""

__all__: list[str] = []
