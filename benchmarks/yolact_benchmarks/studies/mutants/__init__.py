"""Do the tests notice? Small faults put into modules that matter: ``python -m yolact_benchmarks.studies.mutants``."""

__all__: list[str] = []
