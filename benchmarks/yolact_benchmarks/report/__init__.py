"""The record of ``yolact-bench``, and the tables, charts and page made of it."""

__all__: list[str] = []
