"""Rows of the tables in documents, rendered from one record of ``benchmarks/results`` or ``examples/models`` each."""

__all__: list[str] = []
