"""Small faults in important modules, to see if the tests notice: ``python -m yolact_benchmarks.studies.mutants``."""

__all__: list[str] = []
