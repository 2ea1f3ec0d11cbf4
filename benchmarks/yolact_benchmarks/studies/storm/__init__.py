"""Seeded campaigns that try to break the project: ``python -m yolact_benchmarks.studies.storm``."""

__all__: list[str] = []
