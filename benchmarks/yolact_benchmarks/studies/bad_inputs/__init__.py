"""Behaviour of the commands on bad inputs, by kind: ``python -m yolact_benchmarks.studies.bad_inputs``."""

__all__: list[str] = []
