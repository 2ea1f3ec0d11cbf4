"""Rows of the tables in documents, each kind made of one record of ``benchmarks/results`` or ``examples/models``."""

__all__: list[str] = []
