"""The record of ``yolact-bench``, and the tables, charts and page generated from it."""

__all__: list[str] = []
